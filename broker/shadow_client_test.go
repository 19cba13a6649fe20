package broker

import (
	"net"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// pipe is a client over a pipe, in virtual time. What the broker sends is kept
// until the client looks.
type pipe struct {
	net.Conn
	present bool

	mu   sync.Mutex
	came []arrived
}

// arrived is a packet, and when it came.
type arrived struct {
	packet.Frame
	at time.Time
}

// call connects a client and returns when the broker rests again.
func (x *shadow) call(k packet.Connect) *pipe {
	x.t.Helper()
	ours, theirs := net.Pipe()
	go x.d.b.ServeConn(theirs)
	c := &pipe{Conn: ours}
	go c.listen()
	k.Version = packet.V311
	c.send(k.Append(nil))
	synctest.Wait()
	got := c.take()
	var ack packet.Connack
	if len(got) == 0 || got[0].Type() != packet.TypeConnack || ack.Decode(got[0].Frame) != nil || ack.Code != packet.Accepted {
		x.t.Fatalf("%s is not let in: %v", k.ClientID, got)
	}
	c.present = ack.SessionPresent
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came = append(got[1:], c.came...)
	return c
}

func (c *pipe) listen() {
	in := packet.NewReader(c.Conn, packet.MaxSize)
	for {
		f, err := in.Next()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.came = append(c.came, arrived{packet.Frame{First: f.First, Body: append([]byte(nil), f.Body...)}, time.Now()})
		c.mu.Unlock()
	}
}

// take returns what has come since it was called last.
func (c *pipe) take() []arrived {
	c.mu.Lock()
	defer c.mu.Unlock()
	came := c.came
	c.came = nil
	return came
}

// send writes a packet and waits until it is handled, so that what comes of it does
// not depend on the scheduler. A connection that has ended takes nothing.
func (c *pipe) send(p []byte) {
	_, _ = c.Write(p)
	synctest.Wait()
}

func (c *pipe) Close() error {
	err := c.Conn.Close()
	synctest.Wait()
	return err
}

func (c *pipe) ack(t packet.Type, id uint16) { c.send((&packet.Ack{Type: t, ID: id}).Append(nil)) }

// teller is a publisher that keeps its half of the session.
type teller struct {
	x      *shadow
	id     string
	c      *pipe // nil: absent
	lastID uint16
	under  []*told // in the order in which they were sent first
	waits  []*told // those that the broker holds until a queue has room, and QoS 0 behind them
}

// told is what a teller has under way.
type told struct {
	said
	id       uint16
	m        *shadowMsg // the copy that the broker has, if it has one
	received bool       // PUBREC has come
}

func (p *teller) come() {
	p.c = p.x.call(kept(p.id))
	for _, u := range p.under {
		if u.received {
			p.c.ack(packet.TypePubrel, u.id)
			continue
		}
		s := p.x.session(p.id)
		if s.received[u.id] != nil { // the broker has it and knows that
			p.x.known(u.said)
			p.send(u, true)
			continue
		}
		p.hand(u, true)
	}
}

// leave ends the connection. The broker forgets what waits for room.
func (p *teller) leave() {
	_ = p.c.Close()
	p.c, p.waits = nil, nil
}

// turn lets it come or go.
func (p *teller) turn() {
	switch {
	case p.c != nil:
		p.leave()
	case !p.x.othersWait(p):
		p.come()
	}
}

// othersWait reports whether another teller waits for room. One at a time does, so
// that it is known in which order they get it.
func (x *shadow) othersWait(p *teller) bool {
	return slices.ContainsFunc(x.tells, func(other *teller) bool { return other != p && len(other.waits) > 0 })
}

// hand gives the broker a message, which it takes or holds until there is room.
func (p *teller) hand(u *told, dup bool) {
	waits := len(p.waits) > 0 || p.x.refuses(u.said)
	p.send(u, dup)
	synctest.Wait()
	if waits {
		p.x.count["held back"]++
		p.waits = append(p.waits, u)
		return
	}
	u.m = p.x.accept(u.said, time.Time{})
}

func (p *teller) send(u *told, dup bool) {
	m := packet.Publish{Topic: []byte(u.topic), Payload: u.payload(), QoS: u.qos, ID: u.id, Dup: dup}
	p.c.send(m.Append(nil))
}

// hasRoom reports whether it may send another message. The broker reads no further
// when what it holds back for a client needs more than max_memory.
func (p *teller) hasRoom(what said) bool {
	bytes := 0
	for _, u := range append(slices.Clone(p.under), p.waits...) {
		bytes += len(u.topic) + len(u.payload()) + itemOverhead
	}
	return bytes == 0 || len(p.under)+len(p.waits) < 8 && bytes+len(what.payload())+2*itemOverhead < p.x.bounds.MaxMemory
}

// publish sends a new message, if the window has room.
func (p *teller) publish(what said) {
	if !p.hasRoom(what) || p.x.refuses(what) && p.x.othersWait(p) {
		return
	}
	u := &told{said: what}
	if what.qos != mqtt.AtMostOnce {
		p.lastID = p.lastID%1000 + 1
		u.id = p.lastID
		p.under = append(p.under, u)
	}
	p.hand(u, false)
}

// listen takes what has come.
func (p *teller) listen() {
	if p.c == nil {
		return
	}
	for _, f := range p.c.take() {
		var a packet.Ack
		if err := a.Decode(f.Frame); err != nil {
			p.x.t.Fatalf("%s got %s: %v", p.id, f.Type(), err)
		}
		i := 0
		for i < len(p.under) && p.under[i].id != a.ID {
			i++
		}
		if i == len(p.under) {
			p.x.t.Fatalf("%s got %s %d, which answers nothing", p.id, a.Type, a.ID)
		}
		u := p.under[i]
		u.received = true
		if u.m != nil {
			u.m.promised.Store(true)
		}
		if a.Type == packet.TypePubrec {
			p.c.ack(packet.TypePubrel, a.ID)
			continue
		}
		p.under = append(p.under[:i], p.under[i+1:]...)
	}
}
