package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/mqtt/packet"
)

// connecting is how many connections are opened at a time.
const connecting = 64

// crowd is many idle connections.
type crowd struct {
	next  atomic.Int64 // connection to open
	conns []*conn      // nil: could not be opened

	mu      sync.Mutex // guards what follows
	latency histogram  // of a connect and its subscribe
	opened  int64
	err     error // the first
}

// conns: n idle connections with a subscription each, opened many at a time, then
// held with the pings of their keep alive.
func (r *run) conns(ctx context.Context) error {
	c := &crowd{conns: make([]*conn, r.o.N)}
	defer c.close()
	start := time.Now()
	var opening sync.WaitGroup
	for range connecting {
		opening.Go(func() { r.open(ctx, c, start.Add(r.o.Time)) })
	}
	opening.Wait()
	r.report.fail(c.err)
	r.report.opened(c, time.Since(start))
	pause(ctx, 500*time.Millisecond) // the broker comes to rest
	if err := r.meter.charge(0); err != nil {
		return err
	}
	if err := r.meter.begin(); err != nil {
		return err
	}
	r.hold(ctx, c)
	r.report.connections(c.conns)
	return r.meter.chargeIdle(r.o.Hold)
}

// open opens connections until there are enough of them or the time is over.
func (r *run) open(ctx context.Context, c *crowd, deadline time.Time) {
	for ctx.Err() == nil && time.Now().Before(deadline) {
		i := int(c.next.Add(1)) - 1
		if i >= r.o.N {
			return
		}
		start := time.Now()
		idle, err := r.openOne(ctx, i)
		c.conns[i] = idle
		c.note(time.Since(start), err)
	}
}

// openOne opens connection i and subscribes. With an error there is none.
func (r *run) openOne(ctx context.Context, i int) (*conn, error) {
	d := r.dialer()
	d.buffer = idleBuffer
	d.source = fmt.Sprintf("127.0.0.%d", 2+i%r.o.Sources) // one address has too few ports for all
	c, err := d.connect(ctx, r.hello(fmt.Sprintf("idle-%d", i)))
	if err != nil {
		return nil, err
	}
	if err := c.serve().subscribe(ctx, []string{fmt.Sprintf("cmd/%d", i)}, r.o.QoS, r.o.Timeout); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// note counts an attempt.
func (c *crowd) note(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latency.add(int64(took))
	switch {
	case err == nil:
		c.opened++
	case c.err == nil:
		c.err = err
	}
}

// hold pings each connection twice in its keep alive, evenly spread.
func (r *run) hold(ctx context.Context, c *crowd) {
	start := time.Now()
	cycle := time.Duration(r.o.KeepAlive) * time.Second / 2
	for sent := 0; time.Since(start) < r.o.Hold && pause(ctx, 10*time.Millisecond); {
		due := int(float64(len(c.conns)) * float64(time.Since(start)) / float64(cycle))
		for ; sent < due; sent++ {
			if idle := c.conns[sent%len(c.conns)]; idle != nil {
				_ = idle.send(packet.Pingreq{}.Append) // a connection that is lost is counted at the end
			}
		}
	}
}

func (c *crowd) close() {
	for _, idle := range c.conns {
		if idle != nil {
			idle.close()
		}
	}
}
