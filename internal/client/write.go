package client

import (
	"context"
	"fmt"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

const (
	// maxBatch is how many bytes may wait for the writer; more blocks those who
	// want to send.
	maxBatch = 64 << 10

	// leaveTimeout is how long a broker may take to read a DISCONNECT and what
	// waits before it, and again to hang up.
	leaveTimeout = 5 * time.Second
)

// batch is what goes out with one write.
type batch struct {
	bytes   []byte
	written []func(error) // to be called when bytes were written: publishes of QoS 0
}

// lockToSend locks mu when there is room in out. It fails, with mu unlocked, when
// nothing can be sent any more or ctx is done.
func (c *Conn) lockToSend(ctx context.Context) error {
	for {
		c.mu.Lock()
		switch {
		case c.err != nil:
			defer c.mu.Unlock()
			return c.err
		case c.leaving != nil:
			c.mu.Unlock()
			return mqtt.ErrClosed
		case len(c.out.bytes) < maxBatch:
			return nil
		}
		taken := c.taken
		c.mu.Unlock()
		select {
		case <-taken:
		case <-c.ending:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unlockAndWake unlocks mu and has the writer send what is in out.
func (c *Conn) unlockAndWake() {
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// writeLoop writes batches until the connection ends.
func (c *Conn) writeLoop() {
	var b batch
	for {
		select {
		case <-c.wake:
		case <-c.ending:
			return
		}
		var last bool
		b, last = c.take(b)
		if c.write(b) != nil {
			return
		}
		if last {
			c.hangUp()
			return
		}
	}
}

// take swaps out for the batch that was written before. last means that it ends
// with a DISCONNECT.
func (c *Conn) take(before batch) (b batch, last bool) {
	clear(before.written) // keeps no closure alive
	c.mu.Lock()
	defer c.mu.Unlock()
	b, c.out = c.out, batch{bytes: before.bytes[:0], written: before.written[:0]}
	close(c.taken)
	c.taken = make(chan struct{})
	return b, c.leaving != nil
}

// write ends the connection if it fails. The error is why the connection ended,
// which after Close is not that of the write.
func (c *Conn) write(b batch) error {
	if len(b.bytes) == 0 {
		return nil
	}
	_, err := c.conn.Write(b.bytes)
	if err != nil {
		c.end(fmt.Errorf("send to the broker: %w", err))
		err = c.Err()
	}
	for _, done := range b.written {
		done(err)
	}
	return err
}

// isLeaving is the cause of a DISCONNECT that is queued or sent, or nil.
func (c *Conn) isLeaving() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving
}

// leave queues a DISCONNECT, after which nothing is sent [MQTT-3.14.4-2]. cause
// is why the connection then ends.
func (c *Conn) leave(d *packet.Disconnect5, cause error) {
	c.mu.Lock()
	defer c.unlockAndWake()
	if c.leaving != nil || c.err != nil {
		return
	}
	c.leaving = cause
	c.out.bytes = d.Append(c.out.bytes)
	_ = c.conn.SetWriteDeadline(time.Now().Add(leaveTimeout)) // fails only if there is nothing left to write to
}

// keepLocked makes with the content of out, to which it adds one packet, if the
// broker takes one of that size.
func (c *Conn) keepLocked(with []byte) error {
	if err := c.limits.checkSize(len(with) - len(c.out.bytes)); err != nil {
		return err
	}
	c.out.bytes = with
	return nil
}

// hangUp closes the connection behind a DISCONNECT. Where it can, it closes its
// own half and lets the broker close the other: closing a TCP connection while
// bytes of the broker are unread resets it, and the DISCONNECT may get lost.
func (c *Conn) hangUp() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.conn.SetReadDeadline(time.Now().Add(leaveTimeout)) != nil {
		c.end(c.isLeaving())
	}
}

// pingLoop sends a PINGREQ every KeepAlive, whatever else is sent, because its
// answer shows that the broker is alive [MQTT-3.1.2-23].
func (c *Conn) pingLoop() {
	tick := time.NewTicker(c.options.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.ending:
			return
		}
		if err := c.ping(); err != nil {
			c.end(err)
			return
		}
	}
}

// ping fails if the last PINGREQ has no answer and nothing came for one KeepAlive.
func (c *Conn) ping() error {
	c.mu.Lock()
	defer c.unlockAndWake()
	if c.leaving != nil {
		return nil
	}
	if c.pinging && c.readingFor() >= c.options.KeepAlive {
		return fmt.Errorf("no PINGRESP within %s: the broker or the network is gone", c.options.KeepAlive)
	}
	if len(c.out.bytes) < maxBatch {
		c.out.bytes = packet.Pingreq{}.Append(c.out.bytes)
	}
	c.pinging = true
	return nil
}

// handling in readingSince means that the Handler runs.
const handling = -1

// setReading notes that the reader begins to wait for bytes.
func (c *Conn) setReading() { c.readingSince.Store(int64(time.Since(c.start))) }

// readingFor is how long the reader has waited for bytes; 0 while the Handler
// runs, since a PINGRESP that nobody reads is no sign of a lost connection.
func (c *Conn) readingFor() time.Duration {
	since := c.readingSince.Load()
	if since == handling {
		return 0
	}
	return time.Since(c.start) - time.Duration(since)
}
