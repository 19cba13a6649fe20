package client

import (
	"bytes"
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

// Conn is one connection to a broker. Its methods may be called from any
// goroutine.
type Conn struct {
	conn    net.Conn
	reader  *packet.Reader // of the reading goroutine
	options Options        // as the broker changed them
	connack packet.Connack // the answer to CONNECT
	limits  limits
	start   time.Time

	aliases map[uint16]string // topics of the broker's aliases; of the reading goroutine

	slots  chan struct{} // holds one for each publish of QoS 1 and 2 under way
	wake   chan struct{} // tells the writer that out has something
	ending chan struct{} // closed with the first error
	done   chan struct{} // closed when all goroutines have ended

	// readingSince is when the reader began to wait for bytes, as a duration
	// since start, or handling.
	readingSince atomic.Int64

	mu       sync.Mutex      // guards the fields below; not held during I/O or calls to the user's functions
	out      batch           // what the writer takes next
	taken    chan struct{}   // closed when the writer takes out
	calls    map[uint16]call // by packet identifier, what waits for an acknowledgement
	lastID   uint16          // the packet identifier used last
	received map[uint16]bool // QoS 2 messages handed out and not released; true: PUBREC was sent
	pinging  bool            // a PINGREQ has no answer yet
	leaving  error           // not nil: a DISCONNECT is in out, for this cause; nothing may follow it
	err      error           // why the connection ends

	authenticated func(error) // waits for the end of an authentication, or nil
}

// Dial opens a TCP connection to addr ("host:port") and an MQTT connection on it.
// See [Connect].
func Dial(ctx context.Context, addr string, o Options) (*Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	return Connect(ctx, conn, o)
}

// Connect sends a CONNECT on conn and waits for the CONNACK, at most until ctx is
// done. It owns conn from here on, also if it fails. A refusal is a
// [*RefusedError]. End the connection with Disconnect or Close.
func Connect(ctx context.Context, conn net.Conn, o Options) (*Conn, error) {
	c := newConn(conn, o)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err := c.handshake()
	if !stop() {
		err = fmt.Errorf("wait for the broker's CONNACK: %w", context.Cause(ctx))
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	go c.run()
	return c, nil
}

func newConn(conn net.Conn, o Options) *Conn {
	o.setDefaults()
	return &Conn{
		conn:     conn,
		options:  o,
		aliases:  make(map[uint16]string),
		start:    time.Now(),
		wake:     make(chan struct{}, 1),
		ending:   make(chan struct{}),
		done:     make(chan struct{}),
		taken:    make(chan struct{}),
		calls:    make(map[uint16]call),
		received: make(map[uint16]bool),
	}
}

// handshake sends the CONNECT and reads the answer.
func (c *Conn) handshake() error {
	connect, err := c.options.connect()
	if err != nil {
		return err
	}
	// The reader's buffer grows with what arrives, so the limit can be that of MQTT.
	largest := min(connect.Properties.UintOr(packet.PropMaximumPacketSize, packet.MaxSize), packet.MaxSize)
	c.reader = packet.NewReader(c.conn, int(largest))
	c.reader.Version = connect.Version
	if _, err := c.conn.Write(connect.Append(nil)); err != nil {
		return fmt.Errorf("send CONNECT: %w", err)
	}
	f, err := c.firstAnswer()
	if err != nil {
		return err
	}
	return c.accept(f)
}

// firstAnswer waits for the CONNACK, and before it for steps of authentication.
func (c *Conn) firstAnswer() (packet.Frame, error) {
	for {
		f, err := c.reader.Next()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return f, fmt.Errorf("the broker closed the connection without an answer; does this port speak MQTT %s, and without TLS?: %w", c.options.Version, err)
		case err != nil:
			return f, fmt.Errorf("wait for CONNACK: %w", err)
		case f.Type() == packet.TypeConnack:
			return f, nil
		case f.Type() != packet.TypeAuth:
			return f, fmt.Errorf("the broker answers CONNECT with %s [MQTT-3.2.0-1]", f.Type())
		}
		answer, asked, err := c.answerAuth(f)
		if err != nil {
			return f, err
		}
		if !asked {
			return f, errors.New("the broker ends the authentication with AUTH, not with CONNACK [MQTT-4.12.0-5]")
		}
		if _, err := c.conn.Write(answer.Append(nil)); err != nil {
			return f, fmt.Errorf("send AUTH: %w", err)
		}
	}
}

// accept reads the CONNACK.
func (c *Conn) accept(f packet.Frame) error {
	if len(f.Body) == 2 && packet.ConnackCode(f.Body[1]) != packet.Accepted {
		f.Version = packet.V311 // a broker that does not know MQTT 5 refuses it so
	}
	if err := c.connack.Decode(f); err != nil {
		return err
	}
	k := &c.connack
	k.Properties = bytes.Clone(k.Properties)
	if k.Code != packet.Accepted || k.Reason != packet.ReasonSuccess {
		return &RefusedError{Code: k.Code, Reason: k.Reason, Properties: k.Properties}
	}
	if k.SessionPresent && c.options.CleanSession {
		return errors.New("the broker reports a session although a clean one was asked for [MQTT-3.2.2-1]")
	}
	c.obey(k.Properties)
	return nil
}

// run reads until the connection ends, and returns when everything else has ended.
func (c *Conn) run() {
	var writer, pinger sync.WaitGroup
	writer.Go(c.writeLoop)
	if c.options.KeepAlive > 0 {
		pinger.Go(c.pingLoop)
	}
	err := c.readLoop()
	if e, ok := errors.AsType[*packet.Error](err); ok && c.options.Version == packet.V5 {
		c.leave(&packet.Disconnect5{Reason: e.Reason}, err) // [MQTT-4.13.1-1]
	}
	if cause := c.isLeaving(); cause != nil { // the broker hung up because it was told so
		writer.Wait()
		err = cause
	}
	c.end(err)
	writer.Wait()
	pinger.Wait()
	c.failCalls()
	close(c.done)
}

// end closes the connection. The first error stands.
func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
		close(c.ending)
	}
	c.mu.Unlock()
	_ = c.conn.Close() // it is lost already, or nobody cares any more
}

// failCalls tells everybody who waits for something that it will not come.
func (c *Conn) failCalls() {
	c.mu.Lock()
	calls, written, authenticated, err := c.calls, c.out.written, c.authenticated, c.err
	c.calls, c.out, c.authenticated = nil, batch{}, nil
	c.mu.Unlock()
	for _, done := range written {
		done(err)
	}
	for _, call := range calls {
		call.done(err)
	}
	if authenticated != nil {
		authenticated(err)
	}
}

// SessionPresent reports whether the broker kept a session from before.
func (c *Conn) SessionPresent() bool { return c.connack.SessionPresent }

// Connack is the broker's answer to the CONNECT. Its properties must not be
// written.
func (c *Conn) Connack() packet.Connack { return c.connack }

// ClientID is the client id of the connection: that of the options, or the one
// that a broker of MQTT 5 assigned.
func (c *Conn) ClientID() string { return c.options.ClientID }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended: [mqtt.ErrClosed] after Close and Disconnect.
// It is nil until then. In MQTT 5 a broker that disconnects says why in a
// [*ReasonError].
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection without a DISCONNECT, so the broker publishes the
// will. Publishes under way fail with [mqtt.ErrClosed]. It returns when all
// goroutines have ended.
func (c *Conn) Close() {
	c.end(mqtt.ErrClosed)
	<-c.done
}

// only5 is an error unless the connection speaks MQTT 5, which has what.
func (c *Conn) only5(what string) error {
	if c.options.Version == packet.V5 {
		return nil
	}
	return fmt.Errorf("MQTT %s has no %s; use 5.0", c.options.Version, what)
}

// Disconnect sends what was published at QoS 0 and a DISCONNECT, so the broker
// forgets the will. Publishes that are not acknowledged fail with
// [mqtt.ErrClosed]: wait for them first. It returns when all goroutines have
// ended, with an error if the connection was lost before the DISCONNECT was sent.
func (c *Conn) Disconnect() error {
	return c.DisconnectWith(packet.Disconnect5{})
}

// DisconnectWith is Disconnect with a reason and properties, which only MQTT 5
// has: to have the will published in spite of it, or to change how long the
// session lives.
func (c *Conn) DisconnectWith(d packet.Disconnect5) error {
	if d.Reason != packet.ReasonSuccess || len(d.Properties) > 0 {
		if err := c.only5("reasons"); err != nil {
			return fmt.Errorf("disconnect: %w", err)
		}
	}
	c.leave(&d, mqtt.ErrClosed)
	<-c.done
	if err := c.Err(); !errors.Is(err, mqtt.ErrClosed) {
		return fmt.Errorf("disconnect: %w", err)
	}
	return nil
}
