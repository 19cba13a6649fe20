package client

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

// RefusedError is the answer of a broker that does not take the connection.
type RefusedError struct {
	Code packet.ConnackCode
}

// Error says in words why, and what to check.
func (e *RefusedError) Error() string { return "the broker refused the connection: " + e.Code.String() }

// Conn is one connection to a broker. Its methods may be called from any
// goroutine.
type Conn struct {
	conn           net.Conn
	reader         *packet.Reader // of the reading goroutine
	options        Options
	sessionPresent bool
	start          time.Time

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
	leaving  bool            // a DISCONNECT is in out; nothing may follow it
	err      error           // why the connection ends
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
		conn: conn,
		// The reader's buffer grows with what arrives, so the limit can be that of MQTT.
		reader:   packet.NewReader(conn, packet.MaxSize),
		options:  o,
		start:    time.Now(),
		slots:    make(chan struct{}, max(o.Window, 0)),
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
	if _, err := c.conn.Write(connect.Append(nil)); err != nil {
		return fmt.Errorf("send CONNECT: %w", err)
	}
	f, err := c.reader.Next()
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the broker closed the connection without an answer; does this port speak MQTT %s, and without TLS?: %w", connect.Version, err)
	case err != nil:
		return fmt.Errorf("wait for CONNACK: %w", err)
	case f.Type() != packet.TypeConnack:
		return fmt.Errorf("the broker answers CONNECT with %s [MQTT-3.2.0-1]", f.Type())
	}
	return c.accept(f)
}

// accept reads the CONNACK.
func (c *Conn) accept(f packet.Frame) error {
	var connack packet.Connack
	if err := connack.Decode(f); err != nil {
		return err
	}
	if connack.Code != packet.Accepted {
		return &RefusedError{Code: connack.Code}
	}
	if connack.SessionPresent && c.options.CleanSession {
		return errors.New("the broker reports a session although a clean one was asked for [MQTT-3.2.2-1]")
	}
	c.sessionPresent = connack.SessionPresent
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
	if c.isLeaving() { // the broker hung up because it was told so
		writer.Wait()
		err = mqtt.ErrClosed
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
	calls, written, err := c.calls, c.out.written, c.err
	c.calls, c.out = nil, batch{}
	c.mu.Unlock()
	for _, done := range written {
		done(err)
	}
	for _, call := range calls {
		call.done(err)
	}
}

// SessionPresent reports whether the broker kept a session from before.
func (c *Conn) SessionPresent() bool { return c.sessionPresent }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended: [mqtt.ErrClosed] after Close and Disconnect.
// It is nil until then.
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

// Disconnect sends what was published at QoS 0 and a DISCONNECT, so the broker
// forgets the will. Publishes that are not acknowledged fail with
// [mqtt.ErrClosed]: wait for them first. It returns when all goroutines have
// ended, with an error if the connection was lost before the DISCONNECT was sent.
func (c *Conn) Disconnect() error {
	c.leave()
	<-c.done
	if err := c.Err(); !errors.Is(err, mqtt.ErrClosed) {
		return fmt.Errorf("disconnect: %w", err)
	}
	return nil
}
