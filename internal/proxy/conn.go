package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	readSize = 16 << 10

	// maxUnderWay is how many reads may be delayed per way. Behind them nothing
	// is read, as behind a full window of TCP.
	maxUnderWay = 256
)

// conn is one connection through the proxy, whose mu guards it.
type conn struct {
	*Proxy
	client, server net.Conn      // server: nil until it is dialed
	lost           bool          // by HalfOpen
	gone           chan struct{} // closed when both ends are
	closed         bool          // so is gone
}

// chunk is what one read has brought: bytes, and perhaps the end of one side.
type chunk struct {
	bytes []byte
	end   error
	due   time.Time // when it arrives
}

// carry copies from src to dst until src ends, and hands the end on.
func (c *conn) carry(dst, src net.Conn, up bool) {
	queue := make(chan chunk, maxUnderWay)
	var delivering sync.WaitGroup
	delivering.Go(func() { c.deliver(dst, src, queue) })
	c.take(src, up, queue)
	close(queue)
	delivering.Wait()
}

// take reads src until it ends, and queues what does not get lost.
func (c *conn) take(src net.Conn, up bool, queue chan<- chunk) {
	buf := make([]byte, readSize)
	for {
		n, err := src.Read(buf[:c.portion()])
		delay, lost := c.passage(up)
		if !lost {
			queue <- chunk{bytes.Clone(buf[:n]), err, time.Now().Add(delay)}
		}
		if err != nil {
			return
		}
	}
}

// deliver writes each chunk when it is due.
func (c *conn) deliver(dst, src net.Conn, queue <-chan chunk) {
	for k := range queue {
		if !c.pause(time.Until(k.due)) {
			continue // the sender is to end, and not to block
		}
		if _, err := dst.Write(k.bytes); err != nil {
			c.refuse(src)
			continue
		}
		if k.end != nil {
			end(dst, k.end)
		}
		c.pause(c.duration(len(k.bytes)))
	}
}

// pause waits for d and reports whether the connection still stands.
func (c *conn) pause(d time.Duration) bool {
	if d <= 0 {
		select {
		case <-c.gone:
			return false
		default:
			return true
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.gone:
		return false
	}
}

// portion is how much is read at once: a twentieth of a second's, if the rate is
// limited.
func (c *conn) portion() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rate == 0 {
		return readSize
	}
	return min(readSize, max(1, c.rate/20))
}

// duration is how long n bytes take.
func (c *conn) duration(n int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rate == 0 {
		return 0
	}
	return time.Duration(n) * time.Second / time.Duration(c.rate)
}

// passage says what becomes of bytes that were read just now.
func (c *conn) passage(up bool) (delay time.Duration, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.delay, c.lost || c.mode.swallows(up)
}

// refuse lets src know that nobody takes what it sends, unless it is not to know.
func (c *conn) refuse(src net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.lost {
		reset(src)
	}
}

// loseLocked is HalfOpen for this connection.
func (c *conn) loseLocked() {
	if c.server != nil {
		c.lost = true
		reset(c.server)
	}
}

// closeLocked ends both sides with how.
func (c *conn) closeLocked(how func(net.Conn)) {
	how(c.client)
	if c.server != nil {
		how(c.server)
	}
	if !c.closed {
		c.closed = true
		close(c.gone)
	}
}

// end hands on to dst that its other side ended with err.
func end(dst net.Conn, err error) {
	t, ok := dst.(*net.TCPConn)
	if !ok || !errors.Is(err, io.EOF) || t.CloseWrite() != nil {
		reset(dst)
	}
}

// reset closes c so that the other side gets an error and not an orderly end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// finish closes c in an orderly way.
func finish(c net.Conn) { _ = c.Close() }
