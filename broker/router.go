package broker

import (
	"sync/atomic"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// publication is a message on its way through the router. Topic and payload may
// alias a read buffer: what outlives the call is copied once, into a body.
type publication struct {
	topic, payload []byte
	props          packet.Properties
	qos            mqtt.QoS
	retain         bool
	waiter         waiter   // who is told when the gateway has taken responsibility
	mark           []byte   // QoS 2: the receipt to be stored with the message
	receipt        *receipt // ... and where to note that
	once           bool     // the receipt is stored whoever gets the message
	wrong          error    // what the client has to be told instead of passing the message on
	from           *session // the client or inbox that published; nil: somebody else inside the process
	relay          bool     // it came through a bridge, ours or another gateway's
	will           bool     // it must not wait: there is one per connection, which is bound enough
}

// route gives the message to everybody it matches, and keeps it if it is
// retained. It waits only for memory. When it fails nobody has got the message.
func (b *Broker) route(t *turn, p *publication) error {
	m := b.trie.match(p.topic)
	if p.refused(m) {
		return errFull
	}
	wanted := p.wanted(m)
	if wanted != mqtt.AtMostOnce && len(m.durable) > 0 && !p.will {
		if err := b.holdBack(t); err != nil {
			return err
		}
	}
	var kept body
	if wanted != mqtt.AtMostOnce || p.retain {
		kept = appendBody(nil, p.topic, p.payload, p.props, t.now)
		if b.stamps.Load() {
			kept.at = max(t.now, 1)
		}
	} else if len(m.durable)+len(m.transient) > 0 {
		kept = appendBody(t.scratch, p.topic, p.payload, p.props, t.now)
		t.scratch = kept.buf
	}
	if p.retain {
		if err := b.keepRetained(t, p, kept); err != nil {
			return err
		}
		m = b.trie.match(p.topic) // with who has subscribed since, and did not find it retained
		wanted = p.wanted(m)
	}
	if p.tellable() && p.unheard(m) {
		p.waiter.c.out.explain(p.waiter.turn, packet.ReasonNoMatchingSubscribers, nil)
	}
	rec := b.owe(t, p, m, kept, wanted)
	if p.retain { // a session that subscribes now is owed the message, too
		p.keepReceipt(b.commit, b.commit.soon(t.now))
	}
	b.send(t, p, m, kept, rec)
	switch {
	case rec != nil:
	case p.once:
		p.receipt.marked = true
		b.commit.mark(p.mark, []byte{1}, t.now+b.commit.interval, p.waiter.stored)
	default:
		p.waiter.tellNow(t)
	}
	return nil
}

// tellable reports whether the publisher is a client that can be told what has
// become of the message: one of MQTT 5, at QoS 1 or 2.
func (p *publication) tellable() bool {
	return p.waiter.c != nil && p.waiter.c.version == packet.V5
}

// unheard reports whether nobody gets the message.
func (p *publication) unheard(m *matches) bool {
	deaf := func(list []target) bool {
		for i := range list {
			if !p.local(&list[i]) {
				return false
			}
		}
		return true
	}
	return deaf(m.durable) && deaf(m.transient)
}

// holdBack waits while the messages on their way to the disk use up their memory.
func (b *Broker) holdBack(t *turn) error {
	if !b.commit.crowded() {
		return nil
	}
	t.end()
	err := b.commit.waitRoom(t.done)
	t.begin()
	return err
}

// wanted returns the highest QoS at which the message is sent to anybody.
func (p *publication) wanted(m *matches) mqtt.QoS {
	var most mqtt.QoS
	if p.qos == mqtt.AtMostOnce {
		return most
	}
	for _, to := range m.durable {
		most = max(most, to.qos)
	}
	for _, to := range m.transient {
		most = max(most, to.qos)
	}
	return min(p.qos, most)
}

// owe makes a record of a message that durable sessions are owed, and offers it
// to them. It returns nil if none is.
func (b *Broker) owe(t *turn, p *publication, m *matches, kept body, wanted mqtt.QoS) *record {
	if wanted == mqtt.AtMostOnce || !owedToAny(m.durable) {
		return nil
	}
	c := b.commit
	c.order.Lock()
	defer c.order.Unlock()
	rec := c.begin(kept)
	rec.must = p.once || p.qos == mqtt.ExactlyOnce && exactlyOnceToAny(m.durable)
	held := p.unconfirmed() && m.inbox
	waits := !p.unconfirmed() || held && len(m.durable)+len(m.transient) > 1
	for i := range m.durable {
		to := &m.durable[i]
		it := p.item(to, kept)
		if it.qos == mqtt.AtMostOnce || p.local(to) {
			continue
		}
		if rec.must || held && !to.s.inbox {
			it.gate = rec
		}
		if p.will && to.s.refuses.Load() {
			to.s.turnAway(&it)
			continue
		}
		to.s.offer(t, it, rec, waits)
	}
	if rec.must {
		p.keepReceipt(c, c.soon(t.now))
	}
	if p.receipt != nil {
		p.receipt.rec = rec
	}
	c.settle(t, rec, p.waiter)
	return rec
}

// unconfirmed reports whether nobody is told what becomes of the message, so that
// nobody would publish it again after a crash. Such a message, a sensor's
// reading for instance, is shown to QoS 1 and 2 subscribers once it is safe for
// the inboxes: what a subscriber has confirmed is never missing upstream.
func (p *publication) unconfirmed() bool {
	return p.qos != mqtt.AtMostOnce && p.waiter.c == nil && p.waiter.done == nil
}

// send gives the message to the sessions that are not owed it durably.
func (b *Broker) send(t *turn, p *publication, m *matches, kept body, rec *record) {
	for i := range m.durable {
		to := &m.durable[i]
		if it := p.item(to, kept); it.qos == mqtt.AtMostOnce && !p.local(to) {
			to.s.offer0(t, it)
		}
	}
	var gate *record
	if rec != nil && p.unconfirmed() && m.inbox {
		gate = rec
	}
	for i := range m.transient {
		to := &m.transient[i]
		it := p.item(to, kept)
		it.gate = gate
		switch {
		case p.local(to):
		case it.qos == mqtt.AtMostOnce:
			to.s.offer0(t, it)
		default:
			to.s.offer(t, it, nil, false)
		}
	}
}

// item is the message as to gets it.
func (p *publication) item(to *target, kept body) item {
	w := &to.wish
	if p.from == to.s {
		w = &to.own
	}
	return item{claim: claim{qos: min(p.qos, w.qos)}, body: kept, retain: p.retain && (w.retain || to.s.inbox), ids: w.ids, relay: p.relay}
}

// local reports whether to has published the message and does not want it back
// [MQTT-3.8.3-3].
func (p *publication) local(to *target) bool { return p.from == to.s && !to.echo }

func owedToAny(list []target) bool {
	for _, to := range list {
		if to.qos != mqtt.AtMostOnce {
			return true
		}
	}
	return false
}

func exactlyOnceToAny(list []target) bool {
	for _, to := range list {
		if to.qos == mqtt.ExactlyOnce {
			return true
		}
	}
	return false
}

// tellNow tells the waiter of a promise that needs no record.
func (w waiter) tellNow(t *turn) {
	if w.c != nil || w.done != nil {
		w.tell(t)
	}
}

// also returns a waiter for one of two events that have to happen before w is
// told; w itself is for the other.
func (w *waiter) also() waiter {
	if w.done != nil {
		var happened atomic.Bool
		done := w.done
		w.done = func(err error) {
			if happened.Swap(true) || err != nil {
				done(err)
			}
		}
	} else if w.c != nil {
		w.c.out.expectMore(w.turn)
	}
	return *w
}
