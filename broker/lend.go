package broker

import (
	"slices"
	"sort"

	"tidegate/mqtt"
)

// How the messages of a share get to its members: each to the next in turn who
// has room.

// fate is what has become of a message, or why not, for several members taken
// together.
type fate uint8

const (
	lent     fate = 1 << iota // it is in the window of a member
	settled                   // the share has nothing more to do with it
	busy                      // no room, at the moment
	tooLarge                  // larger than the member takes
	denied                    // the member may not read it
	waits                     // it needs a place in the journal first: see pumpOrdered
)

// pump passes on what the members have room for. ordered says that the caller
// holds committer.order. The caller holds s.mu.
func (g *share) pump(t *turn, ordered bool) {
	s := g.s
	g.waits.Store(true) // before looking for room, so that none is overlooked
	for s.link != nil && s.ram.len() > 0 && s.window.len()-g.aside+s.unsaved < s.limit {
		it := *s.ram.front()
		if it.gate != nil && s.b.commit.gate(it.gate, s) || !g.dealWith(t, it, g.pass(t, &it, ordered)) {
			break
		}
	}
	g.waits.Store(s.ram.len() > 0)
	s.readOn(t)
}

// pumpOrdered is pump that may give messages another place in the journal.
func (g *share) pumpOrdered(t *turn) {
	c := g.s.b.commit
	c.order.Lock()
	defer c.order.Unlock()
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	g.pump(t, true)
}

// dealWith takes the message at the front of ram out, unless its fate is to stay
// there for now.
func (g *share) dealWith(t *turn, it item, f fate) (goOn bool) {
	s := g.s
	switch {
	case f&(lent|settled) != 0:
	case f&waits != 0:
		t.errands = append(t.errands, errand{g: g, ordered: true})
		return false
	case f&busy != 0 || f == 0:
		return false
	case f&tooLarge != 0:
		s.lose(&it, lostSize)
		f = settled
	case g.aside >= maxBeyond:
		s.lose(&it, lostDenied)
		f = settled
	default: // somebody else may read it, who is absent
		g.aside++
		s.window.insert(slot{claim: claim{rec: it.rec, seq: it.seq, cost: it.cost, loan: &loan{from: g, seq: it.seq}}})
	}
	s.ram.pop()
	s.ramBytes -= it.size()
	g.drawn = max(g.drawn, it.seq)
	delete(g.again, it.seq)
	if f&settled != 0 {
		s.settled(t, &it.claim)
	}
	return true
}

// pass gives the message to the next member who takes it, or returns why none
// does. The caller holds s.mu.
func (g *share) pass(t *turn, it *item, ordered bool) (f fate) {
	before := g.again[it.seq]
	if reason := it.body.ended(g.s.bounds.MaxAge, t.now); reason != "" && (before == nil || before.id == 0) {
		g.s.lose(it, reason)
		return settled
	}
	for i := range g.members {
		at := (g.next + i) % len(g.members)
		one := g.members[at].take(t, g, it, before, ordered)
		if one&(lent|settled) != 0 {
			g.next = at + 1
		}
		if one&settled != 0 && it.qos != mqtt.AtMostOnce {
			g.s.b.stats.delivered.Add(1) // or it is the member's now
		}
		if one&(lent|settled|waits) != 0 {
			return one
		}
		f |= one
	}
	return f
}

// offer0 sends a message at QoS 0, if a member is there and has room for it.
func (g *share) offer0(t *turn, it *item) {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.pass(t, it, false)&(busy|tooLarge) != 0 {
		g.s.drop(1)
	}
}

// take gives the message to the member, or returns why not; 0: it is absent.
// before says whose the message was; nil: nobody's.
func (m *member) take(t *turn, g *share, it *item, before *loan, ordered bool) fate {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	out := it.alone()
	out.qos, out.retain, out.ids, out.shared = min(it.qos, m.sub.QoS), it.retain && m.sub.RetainAsPublished, m.ids, true
	switch {
	case s.link == nil:
		return 0
	case !s.mayReadLocked(out.body.topic()):
		return denied
	case !s.link.takes(out.wireSize(0)):
		return tooLarge
	case out.qos == mqtt.AtMostOnce && s.link.full(s.bounds.MaxMemory), out.qos != mqtt.AtMostOnce && !s.hasRoom():
		return busy
	}
	switch out.qos {
	case mqtt.AtMostOnce:
		s.b.stats.sent.Add(1)
		s.hand(t, &out, false)
		return settled
	case mqtt.AtLeastOnce:
		m.lend(t, g, it, out, before)
		return lent
	}
	return m.handOver(t, g, it, out, ordered)
}

// alone returns the message without what only the queue that it leaves knows.
func (it *item) alone() item {
	free := *it
	free.rec, free.gate, free.seq, free.id = nil, nil, 0, 0
	return free
}

// hasRoom reports whether one more message can be sent at once. The caller holds
// mu.
func (s *session) hasRoom() bool {
	return s.window.len()+s.ram.len()+s.coming+s.unsaved < s.limit && len(s.beyond) < maxBeyond && !s.link.full(softOut)
}

// hand gives a message to the consumer. The caller holds mu.
func (s *session) hand(t *turn, it *item, dup bool) {
	if s.link.deliver(*it, t.now, dup) {
		t.touch(s.link)
	}
}

// lend sends out to the member and notes in the window of g that it is there.
// Whoever had the message before gets it with its old identifier
// [MQTT-4.4.0-1]; for all others it is new. The caller holds both locks.
func (m *member) lend(t *turn, g *share, it *item, out item, before *loan) {
	s := m.s
	l := &loan{from: g, seq: it.seq, to: s, visit: s.visit, queue: s.queue}
	dup := before != nil && before.id != 0 && s.durable() && before.queue == s.queue
	if dup {
		out.id = before.id
	}
	for out.id == 0 || s.inUse(out.id) {
		out.id = s.takeID()
	}
	s.mixed = s.mixed || s.durable()
	l.id, out.loan = out.id, l
	s.window.add(slot{claim: out.claim, sentAt: t.now})
	g.s.window.insert(slot{claim: claim{rec: it.rec, seq: it.seq, cost: it.cost, loan: l}, sentAt: t.now})
	s.b.stats.sent.Add(1)
	s.hand(t, &out, dup)
}

// handOver makes a QoS 2 message the member's own. The caller holds both locks.
func (m *member) handOver(t *turn, g *share, it *item, out item, ordered bool) fate {
	s := m.s
	switch {
	case s.durable() && s.behind:
		return busy // it would wait behind what is still to be read
	case s.refuses.Load():
		return busy
	case s.durable() && !ordered:
		return waits
	case s.b.commit.crowded():
		s.b.commit.moved(g.s, s.b.commit.soon(t.now), nil) // so that it goes on then
		return busy
	case s.durable():
		s.oweLocked(t, out) // one commit has this and the new position of g: see gather
	default:
		m.handOverSaved(t, g, *it, out)
	}
	return settled
}

// handOverSaved gives a QoS 2 message to a member who is not known after a crash.
// It is sent once the store does not know it any more as one of g.
func (m *member) handOverSaved(t *turn, g *share, it, out item) {
	s := m.s
	b, visit := s.b, s.visit
	s.coming++
	b.commit.moved(g.s, b.commit.soon(t.now), func(t *turn, err error) {
		if err != nil {
			return
		}
		s.mu.Lock()
		s.coming--
		here := s.link != nil && s.visit == visit
		if here {
			s.offerLocked(t, out, nil, false)
		}
		s.mu.Unlock()
		if !here {
			b.oweOne(t, g.s, it.alone())
		}
	})
}

// repaid ends a loan that the member has acknowledged.
func (g *share) repaid(t *turn, l *loan) {
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := &s.window.slots
	i := sort.Search(slots.len(), func(i int) bool { return slots.at(i).seq >= l.seq })
	if i < slots.len() && slots.at(i).loan == l {
		if g.waits.Load() { // nobody had room, so l.to is the one to ask
			g.next = max(0, slices.IndexFunc(g.members, func(m *member) bool { return m.s == l.to }))
		}
		s.delivered(t, slots.remove(i))
	}
	if s.limit == 0 {
		t.look(g)
	}
}

// insert puts a message of a share into its window, which is in the order of the
// journal.
func (w *window) insert(s slot) {
	w.add(s)
	for i := w.slots.len() - 1; i > 0 && w.slots.at(i).seq < w.slots.at(i-1).seq; i-- {
		*w.slots.at(i), *w.slots.at(i - 1) = *w.slots.at(i - 1), *w.slots.at(i)
	}
}
