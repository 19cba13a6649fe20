package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// maxPacket is the longest packet that is read. It leaves room for a topic and
// properties beside the largest payload.
const maxPacket = maxPayload + 256<<10

// The buffer sizes of a connection in bytes: one that works, and one that idles
// beside thousands of others.
const (
	busyBuffer = 16 << 10
	idleBuffer = 512
)

// conn is one MQTT connection. Its read loop decodes and acknowledges; one
// publisher writes beside it. What either has to say is collected in one buffer
// and written when the read loop has run dry, the publisher waits, or it is full.
type conn struct {
	nc      net.Conn
	version packet.Version
	ack     connack

	in         []byte // in[start:end] was read and not yet decoded
	start, end int

	// The read loop calls them; set before serve. nil: nothing happens.
	onPublish func(*packet.Publish) // the packet is valid during the call
	onIdle    func()                // before it waits for more to read

	mu     sync.Mutex // guards the fields up to the next blank line
	out    []byte
	broken error  // of a write; all later ones fail with it
	ids    []byte // state of each packet identifier, made for the first that is used
	lastID uint16
	times  *ackTimes // nil: nobody asks

	inflight atomic.Int64  // messages of QoS 1 and 2 that are not acknowledged in full
	acked    atomic.Int64  // those acknowledged
	refused  atomic.Int64  // those of them that the broker says it did not take
	wake     chan struct{} // acknowledgements or deliveries came
	suback   chan error
	done     chan struct{} // closed when the read loop has ended
	err      error         // why it ended, nil if we wanted it; read after done
	closing  atomic.Bool
}

// ackTimes are how long acknowledgements take, from the call of publish until the
// exchange ends.
type ackTimes struct {
	start time.Time
	sent  [1 << 16]time.Duration // by packet identifier, since start
	took  histogram
}

// connack is what of a CONNACK matters to a load generator.
type connack struct {
	sessionPresent bool
	receiveMaximum int // messages we may have unacknowledged
}

// The states of a packet identifier.
const (
	idFree     = iota
	idSent     // PUBLISH was sent
	idReleased // PUBREL was sent
)

// dialer says where and how to connect.
type dialer struct {
	addr    string
	source  string // local address; "": any
	buffer  int    // bytes
	timeout time.Duration
}

// connect opens a connection and waits until the broker has accepted it. Nothing
// is read after that before serve.
func (d dialer) connect(ctx context.Context, hello *packet.Connect) (*conn, error) {
	nd := net.Dialer{Timeout: d.timeout}
	if d.source != "" {
		nd.LocalAddr = &net.TCPAddr{IP: net.ParseIP(d.source)}
	}
	nc, err := nd.DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, fmt.Errorf("connect as %s: %w", hello.ClientID, err)
	}
	c := &conn{
		nc:      nc,
		version: hello.Version,
		in:      make([]byte, d.buffer),
		wake:    make(chan struct{}, 1),
		suback:  make(chan error, 1),
		done:    make(chan struct{}),
	}
	_ = nc.SetDeadline(time.Now().Add(d.timeout)) // fails only on a closed connection, and so does what follows
	if err := c.greet(hello); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("connect as %s: %w", hello.ClientID, err)
	}
	_ = nc.SetDeadline(time.Time{})
	return c, nil
}

// greet sends the CONNECT and reads the CONNACK.
func (c *conn) greet(hello *packet.Connect) error {
	c.out = hello.Append(c.out)
	f, err := c.next()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("closed without an answer; does the broker speak MQTT %s?", c.version)
	case err != nil:
		return err
	case f.Type() != packet.TypeConnack:
		return fmt.Errorf("%s in place of CONNACK", f.Type())
	}
	var a packet.Connack
	if err := a.Decode(f); err != nil {
		return err
	}
	if a.Code != packet.Accepted {
		return fmt.Errorf("refused: %s", a.Code)
	}
	if a.Reason.Failed() {
		return fmt.Errorf("refused: %s", a.Reason)
	}
	c.ack = connack{a.SessionPresent, int(a.Properties.UintOr(packet.PropReceiveMaximum, 65535))}
	return nil
}

// serve starts the read loop. close ends and joins it.
func (c *conn) serve() *conn {
	go func() {
		err := c.readLoop()
		if !c.closing.Load() {
			c.err = err
		}
		_ = c.nc.Close()
		close(c.done)
	}()
	return c
}

// close says good-bye and returns when the read loop has ended, after which
// nothing calls onPublish and onIdle.
func (c *conn) close() {
	c.closing.Store(true)
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second)) // a broker that hangs does not hold us
	_ = c.send(packet.Disconnect{}.Append)                 // it may be lost already
	_ = c.nc.Close()
	<-c.done
}

// lost reports why the connection ended by itself, or nil.
func (c *conn) lost() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// signal wakes the publisher if it waits.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// publish puts m into the write buffer. At QoS 1 and 2 it gives it an identifier;
// the caller keeps fewer than maxWindow of them in flight.
func (c *conn) publish(m *packet.Publish) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.QoS != mqtt.AtMostOnce {
		m.ID = c.takeIDLocked()
		c.inflight.Add(1)
	}
	c.out = m.Append(c.out)
	if len(c.out) < busyBuffer {
		return c.broken
	}
	return c.flushLocked()
}

func (c *conn) takeIDLocked() uint16 {
	if c.ids == nil {
		c.ids = make([]byte, 1<<16)
	}
	c.lastID++
	for c.lastID == 0 || c.ids[c.lastID] != idFree {
		c.lastID++
	}
	c.ids[c.lastID] = idSent
	if c.times != nil {
		c.times.sent[c.lastID] = time.Since(c.times.start)
	}
	return c.lastID
}

// send writes one packet, and what waits before it.
func (c *conn) send(packet func(dst []byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = packet(c.out)
	return c.flushLocked()
}

// flush writes what waits.
func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *conn) flushLocked() error {
	if len(c.out) > 0 && c.broken == nil {
		_, c.broken = c.nc.Write(c.out)
	}
	c.out = c.out[:0]
	return c.broken
}

// filtersPerPacket keeps a SUBSCRIBE small.
const filtersPerPacket = 100

// subscribe asks for the filters and waits until the broker has granted them.
func (c *conn) subscribe(ctx context.Context, filters []string, q mqtt.QoS, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("subscribe: no SUBACK in time"))
	defer cancel()
	s := packet.Subscribe{Version: c.version}
	for len(filters) > 0 {
		n := min(filtersPerPacket, len(filters))
		s.ID, s.Subscriptions = s.ID+1, s.Subscriptions[:0]
		for _, f := range filters[:n] {
			s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: f, QoS: q})
		}
		if err := c.send(s.Append); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		if err := c.granted(ctx); err != nil {
			return err
		}
		filters = filters[n:]
	}
	return nil
}

// granted waits for a SUBACK.
func (c *conn) granted(ctx context.Context) error {
	select {
	case err := <-c.suback:
		return err
	case <-c.done:
		return fmt.Errorf("subscribe: connection lost: %w", c.err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
