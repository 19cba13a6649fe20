//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// keeper is a consumer that keeps its half of the session, so messages at QoS 2
// must come to it once, whatever happens to its connections and to the gateway.
// It acknowledges most messages of QoS 1 at once and some late and out of order.
type keeper struct {
	watched
	t       testing.TB
	g       *gateway
	id      string
	filter  string
	qos     mqtt.QoS
	account *account
	rng     *rand.Rand

	present bool // it wants to be connected
	known   bool // the gateway has its session for good
	conn    *link
	got     int // PUBLISH packets
	held    map[uint16]bool
	pending []uint16 // to be acknowledged, of this connection
}

func newKeeper(t testing.TB, g *gateway, id, filter string, q mqtt.QoS, a *account, rng *rand.Rand) *keeper {
	t.Helper()
	k := &keeper{
		t: t, g: g, id: id, filter: filter, qos: q, account: a,
		rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), present: true, held: make(map[uint16]bool),
	}
	background(t, k.run)
	k.await(t, "the subscription of "+id, func() bool { return k.known })
	return k
}

// want makes it come or go.
func (k *keeper) want(present bool) {
	k.update(func() {
		k.present = present
		switch l := k.conn; {
		case present || l == nil:
		case k.rng.IntN(2) == 0:
			l.goodbye()
		default:
			l.kill()
		}
	})
}

func (k *keeper) run(ctx context.Context) {
	for k.wait(ctx, func() bool { return k.present }) == nil {
		l, err := k.g.link(ctx, k.id)
		if err != nil {
			return
		}
		k.begin(l)
		stop := context.AfterFunc(ctx, l.kill)
		for k.read(l) == nil {
		}
		stop()
		k.update(func() { k.conn, k.pending = nil, nil })
		k.account.update(func() { k.account.lost++ })
	}
}

func (k *keeper) begin(l *link) {
	k.update(func() {
		if k.known && !l.present {
			k.t.Errorf("the gateway has forgotten the session of %s", k.id)
		}
		if k.conn = l; !k.present {
			l.kill() // it was told to go meanwhile
		}
	})
	if !k.known {
		l.subscribe(k.filter, k.qos)
	}
}

// read takes one packet.
func (k *keeper) read(l *link) error {
	f, err := l.in.Next()
	if err != nil {
		return err
	}
	switch f.Type() {
	case packet.TypeSuback:
		k.update(func() { k.known = true })
	case packet.TypePublish:
		var p packet.Publish
		if err = p.Decode(f); err == nil {
			k.update(func() { k.take(l, &p) })
		}
	case packet.TypePubrel:
		var a packet.Ack
		if err = a.Decode(f); err == nil {
			k.update(func() { delete(k.held, a.ID) })
			l.answer(packet.TypePubcomp, a.ID)
		}
	default:
		err = fmt.Errorf("%s got %s", k.id, f.Type())
	}
	if err != nil {
		k.t.Error(err)
	}
	return err
}

// take handles a message. The caller holds mu.
func (k *keeper) take(l *link, p *packet.Publish) {
	k.got++
	if p.QoS == mqtt.ExactlyOnce {
		if !k.held[p.ID] {
			k.account.enter(k, p)
		}
		k.held[p.ID] = true
		l.answer(packet.TypePubrec, p.ID)
		return
	}
	k.account.enter(k, p)
	if k.rng.IntN(8) > 0 {
		l.answer(packet.TypePuback, p.ID)
		return
	}
	if k.pending = append(k.pending, p.ID); len(k.pending) == 1 {
		time.AfterFunc(3*time.Millisecond, func() { k.update(func() { k.acknowledge(l) }) })
	}
}

// acknowledge answers what waits for it, unless that was of an earlier connection.
func (k *keeper) acknowledge(l *link) {
	if k.conn != l {
		return
	}
	k.rng.Shuffle(len(k.pending), func(i, j int) { k.pending[i], k.pending[j] = k.pending[j], k.pending[i] })
	for _, id := range k.pending {
		l.answer(packet.TypePuback, id)
	}
	k.pending = nil
}

// account is what a keeper, or all members of a share together, have got.
type account struct {
	watched
	name   string
	prefix string // of topics
	shared bool
	seen   map[message]mqtt.QoS // at most QoS of its deliveries; of a share only
	last   map[string]int       // the highest number of each topic
	count  int                  // different messages
	again  int                  // deliveries at QoS 1 of what had come before
	lost   int                  // connections
	faults []string             // at most maxFaults
}

const maxFaults = 10

func newAccount(name, prefix string, shared bool) *account {
	return &account{name: name, prefix: prefix, shared: shared, seen: make(map[message]mqtt.QoS), last: make(map[string]int)}
}

// fault notes what must not be. The caller holds mu.
func (a *account) fault(format string, args ...any) {
	if len(a.faults) < maxFaults {
		a.faults = append(a.faults, a.name+": "+fmt.Sprintf(format, args...))
	}
}

// enter takes a message that k has got for the first time, as far as k can know.
func (a *account) enter(k *keeper, p *packet.Publish) {
	var n int
	var q mqtt.QoS
	_, err := fmt.Fscan(bytes.NewReader(p.Payload), &n, &q)
	m := message{strings.TrimPrefix(string(p.Topic), a.prefix), n}
	a.update(func() {
		switch {
		case err != nil || string(p.Payload) != text(m, q):
			a.fault("%s got a payload of %d bytes of %s that nobody has sent", k.id, len(p.Payload), p.Topic)
		case p.QoS != min(q, k.qos):
			a.fault("%s got %v at QoS %d, published at %d, subscribed at %d", k.id, m, p.QoS, q, k.qos)
		case a.shared:
			a.enterShared(m, p.QoS)
		default:
			a.enterOrdered(m, p.QoS)
		}
	})
}

// enterOrdered is for one consumer. Numbers of a topic have no gaps, so whatever
// does not follow the last one was lost, or came too early.
func (a *account) enterOrdered(m message, q mqtt.QoS) {
	last := a.last[m.topic]
	switch {
	case m.n == last+1:
		a.last[m.topic] = m.n
		a.count++
	case m.n > last:
		a.fault("%v came behind %d: what is between is lost or out of order", m, last)
		a.last[m.topic] = m.n
	case q == mqtt.ExactlyOnce:
		a.fault("%v came twice at QoS 2", m)
	default:
		a.again++
	}
}

func (a *account) enterShared(m message, q mqtt.QoS) {
	before, had := a.seen[m]
	switch {
	case !had:
		a.count++
		a.seen[m] = q
	case q == mqtt.ExactlyOnce && before == q:
		a.fault("%v came twice at QoS 2", m)
	default:
		a.again++
		a.seen[m] = max(before, q)
	}
}

// report fails t with what must not be.
func (a *account) report(t testing.TB) {
	t.Helper()
	a.look(func() {
		for _, f := range a.faults {
			t.Error(f)
		}
	})
}
