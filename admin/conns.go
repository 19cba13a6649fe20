package admin

import (
	"net"
	"net/http"
	"sync"
)

// conns are the open connections. It bounds them, and knows when the last has
// ended, which net/http does not tell.
type conns struct {
	running sync.WaitGroup // one per connection

	mu      sync.Mutex
	open    int
	silent  map[net.Conn]struct{} // nothing was asked over them yet
	closing bool
}

func newConns() *conns { return &conns{silent: make(map[net.Conn]struct{})} }

// changed is told of every change by [http.Server]: of StateNew by the accept
// loop, of the others by the goroutine of the connection.
func (c *conns) changed(nc net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !c.add(nc) {
			nc.Close() // its goroutine finds out, and says StateClosed
		}
	case http.StateActive:
		c.mu.Lock()
		delete(c.silent, nc)
		c.mu.Unlock()
	case http.StateClosed:
		c.remove(nc)
	case http.StateIdle, http.StateHijacked: // nothing hijacks
	}
}

// add reports whether nc may be served.
func (c *conns) add(nc net.Conn) bool {
	c.running.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	c.silent[nc] = struct{}{}
	return c.open <= maxConns && !c.closing
}

func (c *conns) remove(nc net.Conn) {
	c.mu.Lock()
	c.open--
	delete(c.silent, nc)
	c.mu.Unlock()
	c.running.Done()
}

// closeSilent closes the connections over which nothing was asked yet, now and
// from now on. Browsers open some ahead of need, and [http.Server.Shutdown] would
// wait for them.
func (c *conns) closeSilent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	for nc := range c.silent {
		nc.Close()
	}
}

// wait returns when all connections have ended. No new one may come meanwhile.
func (c *conns) wait() { c.running.Wait() }
