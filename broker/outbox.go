package broker

import (
	"cmp"

	"tidegate/mqtt"
)

// The outbox is a window over the journal. What a session is owed stands, in
// this order, in its window (sent), in ram (to be sent next) and, if it is
// behind, in the journal. Memory holds a bounded part of it, whatever is queued.

// replay is a retained message that is sent because of a new subscription.
type replay struct {
	body body
	qos  mqtt.QoS
	ids  []uint32 // MQTT 5: of that subscription

	state uint64 // of all that is retained, when it was found
}

// offer0 sends a message at QoS 0, if somebody is there and has room for it.
func (s *session) offer0(t *turn, it item) {
	if s.share != nil {
		s.share.offer0(t, &it)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return
	}
	if s.link.full(s.bounds.MaxMemory) || !s.link.takes(it.wireSize(0)) {
		s.drop(1)
		return
	}
	s.b.stats.sent.Add(1)
	if s.link.deliver(it, t.now, false) {
		t.touch(s.link)
	}
}

// offer owes a message at QoS 1 or 2 to the session. rec is nil for a transient
// one. waits says that somebody waits for the record to be kept.
func (s *session) offer(t *turn, it item, rec *record, waits bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offerLocked(t, it, rec, waits)
}

func (s *session) offerLocked(t *turn, it item, rec *record, waits bool) {
	if s.gone {
		return
	}
	s.b.stats.accepted.Add(1)
	if rec != nil && s.bounds.Overflow == mqtt.DropNewest {
		if reason := s.full(); reason != "" {
			it.rec = rec
			s.lose(&it, reason)
			return
		}
	}
	if rec != nil {
		it.rec, it.seq, it.id = rec, rec.seq, s.takeID()
		it.cost, it.ordinal = it.body.cost(), s.nextOrdinal(it.body.topic(), rec.seq)
		s.owed.Add(1)
		s.came.add(&it)
		s.bytes += int64(it.cost)
		live := s.live.takes(s, &it)
		s.b.commit.owe(rec, s, &it, s.due(t, rec, waits, live))
		s.gauge()
		s.watch(&it.body)
		if !live && !s.behind && s.ramBytes > 0 && !s.fits(it.size()) {
			s.behind, s.loaded = true, s.tail
		}
		s.tail = rec.seq
		s.wantTrim(t)
		if s.behind && !live {
			return
		}
	}
	s.push(it)
	s.pump(t)
}

// due is when a message that s is owed has to be on disk at the latest. While
// the consumer is there and keeps up, it gets time to acknowledge, so that the
// disk is not needed at all; if a publisher waits for it, then only a few times
// what it took lately.
func (s *session) due(t *turn, rec *record, waits, live bool) int64 {
	c := s.b.commit
	keepsUp := s.link != nil && (live || !s.behind) && !rec.must && s.window.len()+s.live.size() < s.limit
	must := rec.must && (s.link != nil || !s.bounds.Relaxed)
	waits = waits && !s.bounds.Relaxed
	switch {
	case keepsUp && waits:
		return t.now + min(max(4*s.pace, c.interval), s.b.onlineDelay)
	case keepsUp:
		return t.now + s.b.onlineDelay
	case waits || must:
		return c.soon(t.now)
	default:
		return t.now + max(lazy, c.interval)
	}
}

// push appends to ram. A transient session drops its oldest message when ram
// is full; a durable one never gets here then.
func (s *session) push(it item) {
	if it.live {
		s.live.push(it)
		return
	}
	for !s.durable() && s.ram.len() > 0 && !s.fits(it.size()) {
		old := s.ram.pop()
		s.ramBytes -= old.size()
		s.lose(&old, lostMemory)
	}
	s.ram.push(it)
	s.ramBytes += it.size()
}

func (s *session) drop(n uint64) {
	s.dropped.Add(n)
	s.b.stats.dropped.Add(n)
	s.lost(n)
}

// pump sends what the window has room for. The caller holds mu.
func (s *session) pump(t *turn) {
	if s.share != nil {
		s.share.pump(t, false)
		return
	}
	if s.live != nil {
		s.pumpLanes(t)
		s.readOn(t)
		return
	}
	for s.link != nil && s.hasPlace() && len(s.beyond) < maxBeyond && !s.link.full(softOut) {
		if s.replay.len() > 0 {
			r := s.replay.pop()
			if !s.b.isRetained(&r) { // the session has got its successor by now
				continue
			}
			if r.qos != mqtt.AtMostOnce && !s.durable() { // else it is not owed
				s.b.stats.accepted.Add(1)
			}
			s.send(t, item{claim: claim{qos: r.qos}, body: r.body, retain: true, ids: r.ids})
			continue
		}
		if s.ram.len() == 0 || !s.sendable(s.ram.front()) {
			break
		}
		it := s.ram.pop()
		s.ramBytes -= it.size()
		s.send(t, it)
	}
	for _, g := range s.shares {
		if g.waits.Load() {
			t.pump = append(t.pump, g.s)
		}
	}
	s.readOn(t)
}

// readOn has more read from the journal if ram runs dry. The caller holds mu.
func (s *session) readOn(t *turn) {
	if s.link != nil && s.runsDry() {
		t.fill = append(t.fill, s)
	}
	s.tally()
}

// runsDry reports whether it is time to read on. The caller holds mu.
func (s *session) runsDry() bool {
	return s.behind && !s.filling && s.ramBytes < s.bounds.MaxMemory/4
}

// maxBeyond bounds what a consumer may acknowledge behind a message that it
// never acknowledges.
const maxBeyond = 1024

// sendable reports whether nothing holds it back: a gate that is shut, or a
// packet identifier that is still in use.
func (s *session) sendable(it *item) bool {
	return s.ungated(it) && (it.id == 0 || !s.inUse(it.id) || it.qos == mqtt.AtLeastOnce)
}

func (s *session) ungated(it *item) bool { return it.gate == nil || !s.b.commit.gate(it.gate, s) }

// send puts the message into the window and hands it to the consumer.
func (s *session) send(t *turn, it item) {
	dup := !it.live && it.seq != 0 && it.seq <= s.sent
	// What was sent before goes out again even when it has expired [MQTT-4.4.0-1]:
	// the consumer may have it and still use its identifier.
	if !it.known && (!dup && it.body.ended(s.bounds.MaxAge, t.now) != "" || !s.link.takes(it.wireSize(0))) {
		s.sent = max(s.sent, it.seq) // it is settled: nobody may give it up again
		s.discard(t, &it)
		return
	}
	if it.qos == mqtt.AtMostOnce {
		if s.link.deliver(it, t.now, false) {
			t.touch(s.link)
		}
		return
	}
	it.gate = nil
	s.enter(t, &it)
	if it.known {
		s.releaseOnDisk(t, it.id)
		return
	}
	s.b.stats.sent.Add(1)
	if s.link.deliver(it, t.now, dup) {
		t.touch(s.link)
	}
}

// enter puts the message into the window.
func (s *session) enter(t *turn, it *item) {
	if it.live { // nobody sees its packet identifier, and what is older may not have been sent
		s.live.window.add(slot{claim: it.claim, sentAt: t.now})
		return
	}
	for it.id == 0 || s.inUse(it.id) {
		it.id = s.takeID()
		s.mixed = s.mixed || s.durable()
	}
	s.sent = max(s.sent, it.seq)
	s.window.add(slot{claim: it.claim, sentAt: t.now, released: it.known})
}

// discard ends a message that is too old, or that the consumer does not take
// because of its size, as if it were delivered [MQTT-3.1.2-25].
func (s *session) discard(t *turn, it *item) {
	reason := cmp.Or(it.body.ended(s.bounds.MaxAge, t.now), lostSize)
	if it.seq == 0 && it.qos != mqtt.AtMostOnce && s.durable() {
		s.b.stats.accepted.Add(1) // it was sent because of a new subscription
	}
	s.lose(it, reason)
	s.settled(t, &it.claim)
}

// settled notes that c is owed no more.
func (s *session) settled(t *turn, c *claim) {
	if c.seq == 0 {
		return
	}
	s.owed.Add(-1)
	s.bytes = max(0, s.bytes-int64(c.cost))
	s.cuts.settle(c.seq, int64(c.cost))
	s.gauge()
	if c.rec == nil || s.b.commit.acked(t, c.rec, s) {
		s.ackedOnDisk(t, c)
	} else if c.live {
		s.done(c.after, c.seq, false)
	}
}

// takeID returns the next packet identifier, which is never 0.
func (s *session) takeID() uint16 {
	s.lastID++
	if s.lastID == 0 {
		s.lastID = 1
	}
	return s.lastID
}

// inUse reports whether a packet identifier is in the window. Identifiers are
// given out in order, so it need only look when that order is broken or has come
// around.
func (s *session) inUse(id uint16) bool {
	if s.window.len() == 0 {
		s.mixed = false
		return false
	}
	if !s.mixed && id-s.window.slots.front().id < 1<<15 && id != s.window.slots.front().id {
		return false
	}
	return s.window.uses(id)
}

// refused takes the consumer's word that it does not want a QoS 2 message, which
// ends it [MQTT-4.3.3-4]. Like all that take an answer it returns wrong if the
// message waits for another; an answer to nothing does no harm.
func (s *session) refused(t *turn, id uint16) (wrong bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl, ok := s.window.refuse(id)
	return s.answered(t, id, sl, ok)
}

// puback takes the consumer's acknowledgement of a QoS 1 message.
func (s *session) puback(t *turn, id uint16) (wrong bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl, ok := s.window.ack(id)
	return s.answered(t, id, sl, ok)
}

// answered ends the exchange of the message in sl, if ok. The caller holds mu.
func (s *session) answered(t *turn, id uint16, sl slot, ok bool) (wrong bool) {
	if ok {
		s.delivered(t, sl)
		return false
	}
	return s.window.uses(id)
}

// ackSeq is puback for a consumer that names messages by their place in the
// journal, whatever their QoS.
func (s *session) ackSeq(t *turn, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl, ok := s.takeSeq(seq); ok {
		s.delivered(t, sl)
	}
}

// dropSeq counts as lost what the consumer inside the process has and does not want.
func (s *session) dropSeq(t *turn, seq uint64, topic, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl, ok := s.takeSeq(seq)
	if !ok {
		return
	}
	s.drop(1)
	s.enterLoss(lossKey{s.name(), s.owedBy(topic), reason}, 1, uint64(max(0, int64(sl.cost)-diskOverhead)))
	if sl.rec != nil {
		s.b.commit.lost(sl.rec, s)
	}
	s.settled(t, &sl.claim)
	s.pump(t)
}

// takeSeq removes the message at seq from what is under way. The caller holds mu.
func (s *session) takeSeq(seq uint64) (slot, bool) {
	if i := s.window.findSeq(seq); i >= 0 {
		return s.window.slots.remove(i), true
	}
	return s.live.take(seq)
}

// pubrec takes the consumer's word that it has a QoS 2 message. The PUBREL that
// answers it goes out once that is on disk, if the session is durable: after
// PUBREL the consumer may forget the identifier, so the message must never be
// sent again. Nothing goes out for an identifier that is not known.
func (s *session) pubrec(t *turn, id uint16) (known, wrong bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.window.rec(id)
	if sl == nil {
		known = s.window.uses(id)
		return known, known
	}
	if sl.seq == 0 {
		s.release(t, id)
		return true, false
	}
	if !s.isBeyond(sl.seq) {
		s.beyond = append(s.beyond, acked{from: sl.seq - 1, seq: sl.seq, released: true})
	}
	s.releaseOnDisk(t, id)
	return true, false
}

func (s *session) releaseOnDisk(t *turn, id uint16) {
	s.b.commit.moved(s, s.b.commit.soon(t.now), func(t *turn, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := s.window.find(id); err == nil && i >= 0 && s.window.slots.at(i).released {
			s.release(t, id)
		}
	})
}

func (s *session) release(t *turn, id uint16) {
	if s.link != nil && s.link.release(id) {
		t.touch(s.link)
	}
}

// pubcomp takes the consumer's last word on a QoS 2 message.
func (s *session) pubcomp(t *turn, id uint16) (wrong bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl, ok := s.window.comp(id)
	return s.answered(t, id, sl, ok)
}

// delivered notes that the message of sl is acknowledged, and sends the next.
func (s *session) delivered(t *turn, sl slot) {
	took := max(t.now-sl.sentAt, 0)
	s.trip += (took - s.trip) / 8
	if s.live == nil || sl.live { // a backlog may keep to a rate
		s.pace += (took - s.pace) / 8
	}
	s.settled(t, &sl.claim)
	if sl.loan == nil && (sl.seq != 0 || !s.durable()) || s.share != nil {
		s.b.stats.delivered.Add(1)
	}
	if sl.loan != nil && s.share == nil {
		t.errands = append(t.errands, errand{g: sl.loan.from, loan: sl.loan})
	}
	s.pump(t)
}
