//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

const (
	resenders  = 3
	sendWindow = 20 // publishes under way per resender
	rareEvery  = 40 // of so many messages one goes to the topic "rare"
)

// resenders publish numbered messages at QoS 1 and 2, each to two topics of its
// own, and do what the standard asks of a client that keeps its session: what was
// not acknowledged is sent again, with its identifier, and a released message is
// released again.
type senders struct {
	watched
	g       *gateway
	allowed int            // messages that may be sent in all
	sent    int            // different ones
	acked   int            // that the gateway has taken responsibility for
	again   int            // sent again at QoS 1, which may come twice therefore
	lost    int            // connections
	safe    int            // whose session the gateway knows for good
	last    map[string]int // the highest number of each topic
}

func newSenders(t testing.TB, g *gateway, rng *rand.Rand) *senders {
	t.Helper()
	s := &senders{g: g, last: make(map[string]int)}
	background(t, func(ctx context.Context) {
		var running sync.WaitGroup
		for i := range resenders {
			r := &resender{senders: s, t: t, id: fmt.Sprint("pub", i), rng: rand.New(rand.NewPCG(rng.Uint64(), 0))}
			running.Go(func() { r.run(ctx) })
		}
		running.Wait()
	})
	s.await(t, "the publishers' sessions", func() bool { return s.safe == resenders })
	return s
}

// allow lets them send n messages more.
func (s *senders) allow(n int) { s.update(func() { s.allowed += n }) }

// awaitAcked waits until the gateway has taken responsibility for n messages.
func (s *senders) awaitAcked(t testing.TB, n int) {
	t.Helper()
	s.await(t, fmt.Sprintf("%d acknowledged messages", n), func() bool { return s.acked >= n })
}

// resender is one of them. Its fields are guarded by senders.mu.
type resender struct {
	*senders
	t      testing.TB
	id     string
	rng    *rand.Rand
	known  bool
	conn   *link
	lastID uint16
	under  []*underway // in the order in which they were sent first
}

// underway is a message that the gateway may still ask for.
type underway struct {
	message
	id       uint16
	qos      mqtt.QoS
	received bool // the gateway has it; at QoS 2 it is to be released
}

func (u *underway) packet(dup bool) []byte {
	p := packet.Publish{Topic: []byte(u.topic), Payload: []byte(text(u.message, u.qos)), QoS: u.qos, ID: u.id, Dup: dup}
	return p.Append(nil)
}

func (r *resender) run(ctx context.Context) {
	for {
		l, err := r.g.link(ctx, r.id)
		if err != nil {
			return
		}
		if r.known && !l.present {
			r.t.Errorf("the gateway has forgotten the session of %s", r.id)
		}
		r.session(ctx, l)
		if ctx.Err() != nil {
			return
		}
		r.update(func() { r.lost++ })
	}
}

// session sends over one connection until it or ctx ends.
func (r *resender) session(ctx context.Context, l *link) {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, l.kill)()
	reading.Go(func() {
		defer cancel()
		for r.read(l) == nil {
		}
	})
	if !r.known {
		l.subscribe("nothing", 1) // its SUBACK says that the session is on disk
	}
	for _, p := range r.unfinished(l) {
		if l.send(p) != nil {
			return
		}
	}
	for u := r.next(ctx); u != nil && l.send(u.packet(false)) == nil; u = r.next(ctx) {
	}
}

// unfinished returns the packets that begin a connection.
func (r *resender) unfinished(l *link) (packets [][]byte) {
	r.update(func() {
		r.conn = l
		for _, u := range r.under {
			switch {
			case u.received:
				packets = append(packets, (&packet.Ack{Type: packet.TypePubrel, ID: u.id}).Append(nil))
				continue
			case u.qos == mqtt.AtLeastOnce:
				r.again++
			}
			packets = append(packets, u.packet(true))
		}
	})
	return packets
}

// next waits until one more message may be sent. nil: ctx is done.
func (r *resender) next(ctx context.Context) (u *underway) {
	_ = r.wait(ctx, func() bool {
		if !r.known || r.sent >= r.allowed || len(r.under) >= sendWindow {
			return false
		}
		topic := "s/" + r.id + "/all"
		if r.rng.IntN(rareEvery) == 0 {
			topic = "s/" + r.id + "/rare"
		}
		r.sent++
		r.last[topic]++
		u = &underway{message: message{topic, r.last[topic]}, id: r.takeID(), qos: mqtt.QoS(1 + r.rng.IntN(2))}
		r.under = append(r.under, u)
		return true
	})
	return u
}

func (r *resender) takeID() uint16 {
	for {
		if r.lastID = r.lastID%60000 + 1; r.find(r.lastID) == nil {
			return r.lastID
		}
	}
}

func (r *resender) find(id uint16) *underway {
	for _, u := range r.under {
		if u.id == id {
			return u
		}
	}
	return nil
}

// read takes one packet.
func (r *resender) read(l *link) error {
	f, err := l.in.Next()
	if err != nil {
		return err
	}
	var a packet.Ack
	switch f.Type() {
	case packet.TypeSuback:
		r.update(func() { r.known = true; r.safe++ })
		return nil
	case packet.TypePuback, packet.TypePubrec, packet.TypePubcomp:
		err = a.Decode(f)
	default:
		err = fmt.Errorf("%s got %s", r.id, f.Type())
	}
	if err != nil {
		r.t.Error(err)
		return err
	}
	release := false
	r.update(func() { release = r.acknowledged(&a) })
	if release {
		l.answer(packet.TypePubrel, a.ID)
	}
	return nil
}

// acknowledged reports whether PUBREL is the answer.
func (r *resender) acknowledged(a *packet.Ack) (release bool) {
	u := r.find(a.ID)
	switch {
	case u == nil:
		r.t.Errorf("%s got %s %d, which answers nothing", r.id, a.Type, a.ID)
		return false
	case !u.received && a.Type != packet.TypePubcomp:
		u.received = true
		r.acked++
	}
	if a.Type == packet.TypePubrec {
		return true
	}
	for i := range r.under {
		if r.under[i] == u {
			r.under = append(r.under[:i], r.under[i+1:]...)
			break
		}
	}
	return false
}
