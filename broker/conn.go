package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/mqtt/packet"
)

// The reasons for which the broker ends a connection.
var (
	errTakenOver    = errors.New("another client connected with the same client id")
	errShutdown     = errors.New("the gateway stops")
	errKeepAlive    = errors.New("the client was silent for longer than its keep-alive allows")
	errNoConnect    = errors.New("no CONNECT came in time")
	errDisconnected = errors.New("the client disconnected")
	errStore        = errors.New("the store cannot be read")
	errTooManyQoS2  = errors.New("the client does not release its QoS 2 messages")
	errTooMany      = errors.New("too many sessions or connections")
)

// conn is one network connection. The goroutine that reads it parses every
// packet that one read has brought, routes each, and then flushes every
// connection it has touched, itself, once.
type conn struct {
	b    *Broker
	t    transport
	out  output
	in   input
	held charge // for what is parked
	kept charge // for what in holds while the rest of a packet is waited for
	turn turn

	// Of the reading goroutine, once the CONNECT is accepted.
	s         *session
	version   packet.Version
	will      *packet.Will
	willCost  int   // of the will that came with the CONNECT, in memory
	keepAlive int64 // nanoseconds of silence allowed; 0: any
	deadline  int64 // broker time when the read deadline runs out
	heard     int64 // broker time when something was read last
	silent    bool  // the last packet is one that silence follows, most likely
	paid      int64 // broker time up to which publish_rate is used up
	resumed   bool  // the client has come back to its session
	begun     bool  // the client has sent a new QoS 2 message over this connection

	client Client          // who it is; set while the CONNECT is handled
	door   string          // the listener's URL; "": the program has handed the connection in
	told   map[string]bool // topics that the log has said are denied

	parked   *parked     // publications that wait for room in a queue; nil: there were none
	exchange *exchange   // nil: the client has named no authentication method
	joined   atomic.Bool // s is set: for drained, which may come before it

	five    atomic.Pointer[client5] // nil: not a client of MQTT 5
	ended   sync.Once
	parting sync.Once     // the goodbye; not under ended, because that can fail
	done    chan struct{} // closed when the connection is to end
	endedBy error         // why; set before done is closed
	left    chan struct{} // closed when nothing of it runs any more

	deadlines sync.Mutex // none is extended once the connection is to end
}

func newConn(b *Broker, nc net.Conn) *conn {
	c := &conn{b: b, t: newTransport(nc), done: make(chan struct{}), left: make(chan struct{}), paid: -int64(time.Second)}
	c.client.Remote = nc.RemoteAddr().String()
	c.turn = turn{b: b, done: c.done}
	c.out = output{t: c.t, drained: c.drained, failed: c.endNow, sent: &b.stats, memory: &b.memory}
	return c
}

// log returns a logger that says whose connection it is. Few connections have
// much to tell, so none keeps one.
func (c *conn) log() *slog.Logger {
	who := []any{"remote", c.client.Remote}
	if c.door != "" {
		who = append(who, "listener", c.door)
	}
	if c.client.ID != "" {
		who = append(who, "client", brief(c.client.ID))
	}
	return c.b.log.With(who...)
}

// end makes the connection end because of why, if nothing else has before, and
// tells the client where the protocol can. Any goroutine may call it; it does not
// wait. What is still to be written has a moment for it.
func (c *conn) end(why error) {
	c.endFor(why)
	c.parting.Do(func() {
		c.goodbye(c.endedBy)
		c.deadlines.Lock()
		defer c.deadlines.Unlock()
		now := time.Now()
		if err := errors.Join(c.t.SetReadDeadline(now), c.t.SetWriteDeadline(now.Add(farewell))); err != nil {
			c.t.Close()
		}
	})
}

// endNow is end after which nothing can be written. It takes no lock: a goodbye
// that fails leads here.
func (c *conn) endNow(why error) {
	c.endFor(why)
	c.t.Close()
}

// endFor notes why the connection ends, if nothing else has ended it before.
func (c *conn) endFor(why error) {
	c.ended.Do(func() {
		c.endedBy = why
		close(c.done)
	})
}

// start begins to serve the connection. It goes on after start has returned, and
// closes left at its end.
func (c *conn) start() {
	c.turn.begin()
	c.setDeadline(int64(c.b.cfg.Limits.ConnectTimeout))
	go c.serve()
}

// serve handles the connection until it ends, or leaves it to a new goroutine. A
// stack that has grown does not shrink below 4 KiB, while waiting takes a quarter
// of that; so a client that seems to have nothing to say gets a fresh one.
func (c *conn) serve() {
	for !c.silent {
		if err := c.read(); err != nil {
			c.finish(err)
			return
		}
	}
	c.silent = false
	go c.serve()
}

// finish ends the connection because of why, and takes it off its session.
func (c *conn) finish(why error) {
	defer c.b.exit(c)
	c.end(why)
	if c.exchange != nil {
		c.exchange.stop()
	}
	c.in.giveBack()
	c.kept.set(&c.b.memory, forPackets, 0)
	c.parked.drop(c)
	c.out.finish()
	c.t.Close()
	c.turn.begin()
	c.leave(&c.turn)
	c.turn.end()
}

// read handles the packets that one read brings. An error ends the connection.
func (c *conn) read() error {
	if c.isEnded() {
		return c.endedBy
	}
	before := len(c.in.bytes())
	if err := c.t.read(&c.in); err != nil {
		if c.inTime(err) {
			return nil
		}
		return c.readError(err)
	}
	c.turn.begin()
	c.heard = c.turn.now
	c.b.stats.bytesReceived.Add(uint64(len(c.in.bytes()) - before))
	err := c.handleAll(&c.turn)
	c.turn.end()
	if err != nil {
		return err
	}
	c.extendDeadline()
	return nil
}

// handleAll handles the whole packets that are there.
func (c *conn) handleAll(t *turn) error {
	for {
		f, n, need, err := c.version.Split(c.in.bytes(), int(c.b.cfg.Limits.MaxPacketSize))
		if err != nil {
			return err
		}
		if n == 0 {
			c.in.need(max(need, 1))
			return c.keep()
		}
		if err := c.handle(t, f); err != nil {
			return err
		}
		c.in.parsed(n)
		if c.in.buf == nil {
			c.kept.set(&c.b.memory, forPackets, 0)
			c.silent = beforeSilence(f.Type())
			return nil
		}
	}
}

// keep charges the client for the part of a packet that waits for the rest.
func (c *conn) keep() error {
	have := len(c.in.bytes())
	if have < smallBuffer { // and is moved into one before the next wait
		c.kept.set(&c.b.memory, forPackets, 0)
		return nil
	}
	if !c.b.memory.room(forPackets) {
		c.in.move(have + 1)
		if len(c.in.buf) > grain && c.b.memory.exhausted() {
			return errMemory
		}
	}
	c.kept.set(&c.b.memory, forPackets, len(c.in.buf))
	return nil
}

// cost returns what the connection takes while it is idle, in bytes.
func (c *conn) cost() int {
	if _, ok := c.t.(stream); ok {
		return streamCost
	}
	return connectionCost
}

// beforeSilence reports whether a client that sends nothing behind such a packet
// seems to have nothing to say: it has got ready, or shows that it is still alive.
func beforeSilence(t packet.Type) bool {
	switch t {
	case packet.TypeConnect, packet.TypeSubscribe, packet.TypeUnsubscribe, packet.TypePingreq:
		return true
	}
	return false
}

// handle handles one packet.
func (c *conn) handle(t *turn, f packet.Frame) error {
	c.b.stats.packets.Add(1)
	if c.s == nil {
		return c.introduce(t, f)
	}
	if err := c.holdBack(t, f); err != nil {
		return err
	}
	switch f.Type() {
	case packet.TypePublish:
		return c.publish(t, f)
	case packet.TypePuback, packet.TypePubrec, packet.TypePubrel, packet.TypePubcomp:
		return c.ack(t, f)
	case packet.TypeSubscribe:
		return c.subscribe(t, f)
	case packet.TypeUnsubscribe:
		return c.unsubscribe(t, f)
	case packet.TypePingreq:
		return c.ping(t, f)
	case packet.TypeDisconnect:
		return c.disconnect(f)
	case packet.TypeAuth:
		return c.auth(t, f)
	}
	return c.unexpected(f.Type())
}

// unexpected is why a connection ends on which a packet comes that a client must
// not send, or not again.
func (c *conn) unexpected(typ packet.Type) error {
	e := &packet.Error{Reason: packet.ReasonProtocolError, Text: fmt.Sprintf("a client must not send a %s", typ), ID: "MQTT-4.8.0-1"}
	switch {
	case typ == packet.TypeConnect:
		e.ID = "MQTT-3.1.0-2"
	case c.version == packet.V5:
		e.ID = "MQTT-4.13.1-1"
	}
	return e
}

// introduce handles what comes before the session.
func (c *conn) introduce(t *turn, f packet.Frame) error {
	switch {
	case c.exchange != nil:
		return c.proceed(t, f)
	case f.Type() != packet.TypeConnect: // [MQTT-3.1.0-1]
		return fmt.Errorf("the first packet is a %s, not a CONNECT", f.Type())
	}
	return c.connect(t, f)
}

// ping answers a PINGREQ [MQTT-3.12.4-1].
func (c *conn) ping(t *turn, f packet.Frame) error {
	if err := (packet.Pingreq{}).Decode(f); err != nil {
		return err
	}
	c.flushIf(t, c.out.packet(packet.Pingresp{}.Append(nil)))
	return nil
}

// disconnect handles a DISCONNECT, after which there is no will [MQTT-3.14.4-3].
func (c *conn) disconnect(f packet.Frame) error {
	if c.version == packet.V5 {
		return c.disconnect5(f)
	}
	if err := (packet.Disconnect{}).Decode(f); err != nil {
		return err
	}
	c.will = nil
	return errDisconnected
}

// leave takes the connection off its session, publishes the will if there still
// is one [MQTT-3.1.2-8], and says that the client is gone.
func (c *conn) leave(t *turn) {
	if c.s == nil {
		c.b.stats.refused.Add(1)
		if why, refused := causeOfEnd(c.endedBy); refused {
			c.b.stats.refusals.count(why)
		}
		if ok, kept := c.b.refusedLines.speak(t.now); ok {
			c.log().Warn("refused a connection", "reason", c.endedBy, "not_logged_before", kept)
		}
		c.event(Refused, "", c.endedBy)
		return
	}
	if why, refused := causeOfEnd(c.endedBy); refused {
		c.b.stats.refusals.count(why)
	}
	c.b.detach(t, c.s, c, c.lastWill(t))
	c.b.memory.add(forSessions, -c.willCost)
	if f := c.five.Load(); f != nil {
		f.forget()
	}
	c.event(Disconnected, "", c.endedBy)
	level := slog.LevelInfo
	if !closedByPeer(c.endedBy) && !errors.Is(c.endedBy, errDisconnected) && !errors.Is(c.endedBy, errShutdown) {
		level = slog.LevelWarn
	}
	c.log().Log(context.Background(), level, "client gone", "reason", c.endedBy, "will", c.will != nil)
}

func (c *conn) isEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *conn) readError(err error) error {
	if c.isEnded() {
		return c.endedBy
	}
	var timeout net.Error
	switch {
	case !errors.As(err, &timeout) || !timeout.Timeout():
		return err
	case c.s == nil && c.exchange != nil:
		return errNoProof
	case c.s == nil:
		return errNoConnect
	}
	return errKeepAlive // [MQTT-3.1.2-24]
}

// setDeadline allows so much silence from now on; 0: any.
func (c *conn) setDeadline(silence int64) {
	c.deadline = c.turn.now + silence
	var when time.Time
	if silence > 0 {
		when = time.Now().Add(time.Duration(silence))
	}
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.isEnded() {
		return
	}
	if err := c.t.SetReadDeadline(when); err != nil {
		c.endNow(err)
	}
}

// inTime reports whether err is the end of a deadline that should have been
// extended since, and extends it.
func (c *conn) inTime(err error) bool {
	if c.isEnded() || c.s == nil || c.keepAlive == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.turn.begin()
	left := c.heard + c.keepAlive - c.turn.now
	if left <= 0 {
		return false
	}
	c.setDeadline(left)
	return true
}

// extendDeadline notes that the client is alive. Setting a deadline costs more
// than a small message, so it is done only when an eighth of it has passed.
func (c *conn) extendDeadline() {
	if c.keepAlive > 0 && c.turn.now+c.keepAlive-c.deadline > c.keepAlive/8 {
		c.setDeadline(c.keepAlive)
	}
}

// The methods of a consumer.

func (c *conn) takes(size int) bool {
	return c.five.Load().takes(size)
}

func (c *conn) deliver(it item, now int64, dup bool) (flush bool) {
	c.show(&it)
	if !dup {
		c.leaves(&it)
	}
	if f := c.five.Load(); f != nil {
		return c.out.publish5(&it, dup, f.extra(&it, now))
	}
	return c.out.publish(&it, dup)
}

func (c *conn) release(id uint16) (flush bool) {
	return c.out.ack(packet.Ack{Type: packet.TypePubrel, ID: id})
}

func (c *conn) full(limit int) bool { return c.out.full(limit) }

func (c *conn) flush(t *turn) {
	if c.out.flush() && c.s != nil {
		t.pump = append(t.pump, c.s)
	}
}

// drained goes on sending after the socket had to be waited for.
func (c *conn) drained() {
	if !c.joined.Load() {
		return
	}
	t := turn{b: c.b, done: c.done}
	t.begin()
	t.pump = append(t.pump, c.s)
	t.end()
}

func (c *conn) flushIf(t *turn, flush bool) {
	if flush {
		t.touch(c)
	}
}

// fulfil notes that something an answer waits for has happened.
func (c *conn) fulfil(t *turn, n uint64) { c.flushIf(t, c.out.fulfil(n)) }

// reply sends an answer that waits for nothing.
func (c *conn) reply(t *turn, a packet.Ack) { c.flushIf(t, c.out.ack(a)) }
