package broker

import (
	"slices"

	"tidegate/store"
)

// cursor returns the place in the journal up to which nothing is owed any more.
// The caller holds mu.
func (s *session) cursor() uint64 {
	unread := s.live.below(s.unread())
	if seq, ok := s.window.oldest(); ok {
		return min(seq-1, unread) // of a share, what has come back may be older
	}
	return unread
}

// unread is cursor without regard to the window.
func (s *session) unread() uint64 {
	if s.ram.len() > 0 {
		return s.ram.front().seq - 1
	}
	if s.behind {
		return s.loaded
	}
	return s.tail
}

// ackedOnDisk notes an acknowledgement that the store has to know of, within a second
// or when the consumer waits for that.
func (s *session) ackedOnDisk(t *turn, c *claim) {
	s.b.commit.unstore(s, 1, int64(c.cost))
	cursor := s.cursor()
	s.beyond = slices.DeleteFunc(s.beyond, func(a acked) bool { return a.seq <= cursor || a.released && a.seq == c.seq })
	switch {
	case c.seq <= cursor || s.share != nil:
	case c.live:
		s.done(c.after, c.seq, true)
	default:
		s.done(c.seq-1, c.seq, true)
	}
	s.unsaved++
	s.b.commit.moved(s, t.now+lazy, nil)
	if s.runsShort() {
		s.saveInTime(t)
	}
}

func (s *session) isBeyond(seq uint64) bool {
	return slices.ContainsFunc(s.beyond, func(a acked) bool { return a.seq == seq })
}

// position returns what the next commit has to say about the session.
func (s *session) position(c *committer) store.Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.losses.settleAll(s)
	if s.gone {
		return store.Queue{ID: s.queue, Gone: true}
	}
	s.saving = s.unsaved
	cursor := s.cursor()
	s.beyond = slices.DeleteFunc(s.beyond, func(a acked) bool { return a.seq <= cursor })
	s.cutting = slices.Clone(s.cuts.behind(cursor))
	c.mu.Lock()
	stored := s.stored
	c.mu.Unlock()
	return store.Queue{ID: s.queue, Acked: cursor, Pending: uint64(stored.n), Note: s.note(cursor, stored.bytes)}
}

// note returns what the store keeps of the session beside its position. bytes is
// what it is owed on disk.
func (s *session) note(cursor uint64, bytes int64) []byte {
	if s.share != nil {
		return s.share.note(cursor, bytes)
	}
	n := note{lastID: s.lastID, sent: s.sent, bytes: bytes, cuts: s.cuts, beyond: s.beyond}
	return n.append(nil, cursor)
}

// restore takes over what the store knows of the session when the gateway
// starts.
func (s *session) restore(q store.Queue) {
	s.loaded = max(s.loaded, q.Acked)
	s.tail, s.behind = s.loaded, true
	s.owed.Store(int64(q.Pending))
	if s.share != nil {
		s.bytes, s.cuts, s.sized = s.share.restoreNote(q.Note, q.Acked)
	} else {
		n := parseNote(q.Note, q.Acked)
		s.lastID, s.sent, s.beyond = n.lastID, n.sent, n.beyond
		s.bytes, s.cuts, s.sized = n.bytes, n.cuts, n.sized
		s.guessed = len(q.Note) == 0
	}
	s.stored, s.cut = amount{int64(q.Pending), s.bytes}, s.cuts
	if s.inbox { // whoever opens it may want all that is there; if nobody does, it must not grow for ever
		s.bounds.MaxDisk = max(s.bounds.MaxDisk, s.bytes+s.bytes/8)
	}
	s.gauge()
	if q.Pending > 0 {
		s.sweepBy(lazy)
	}
}

// newest returns the highest place in the journal that the session's note names.
// The message there may never have got to the disk, because it was acknowledged
// in time, or given up: whoever got its place would be taken for it.
func (s *session) newest() (seq uint64) {
	if n := len(s.cuts); n > 0 {
		seq = s.cuts[n-1].upTo
	}
	if s.share != nil {
		return max(seq, s.share.drawn)
	}
	for _, a := range s.beyond {
		seq = max(seq, a.seq)
	}
	return max(seq, s.sent)
}

// refill reads the next page of what the session is owed from the journal, and
// at its end what is not yet there. Only the consumer's own acknowledgements, or
// its arrival, lead here, so reading ahead goes at the consumer's pace.
func (s *session) refill(t *turn) {
	s.mu.Lock()
	link, from := s.link, s.loaded
	if link == nil || !s.runsDry() || s.gone {
		s.mu.Unlock()
		return
	}
	s.filling = true
	most, kept := s.page(), slices.Clone(s.cuts)
	s.mu.Unlock()

	upTo := s.b.commit.committedSeq()
	p := newPage(most)
	defer p.free()
	more, err := s.read(p, from, upTo, kept)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling = false
	if s.link != link || s.loaded != from || s.gone {
		if s.link != nil { // another consumer, or a message, came back meanwhile and found the read under way
			t.fill = append(t.fill, s)
		}
		s.wantTrim(t)
		return
	}
	if err != nil {
		s.b.log.Error("cannot read what a session is owed", "session", s.id, "error", err)
		link.end(errStore)
		return
	}
	for i := range p.items {
		s.take(p.items[i])
	}
	if !more {
		s.loaded = max(s.loaded, upTo)
		s.catchUp(upTo)
	}
	s.tail = max(s.tail, s.loaded)
	s.wantTrim(t)
	s.pump(t)
}

// read fills p with the messages behind from that are kept, and returns whether there
// may be more up to upTo.
func (s *session) read(p *page, from, upTo uint64, kept cuts) (more bool, err error) {
	now := s.b.now()
	line := s.b.lineAt(now)
	err = s.b.commit.store.ReadSome(s.queue, from, upTo, p.wants, func(seq uint64, tag uint32, data []byte) bool {
		it := itemFromTag(tag)
		if !kept.keep(seq, it.ordinal) {
			return true
		}
		b, err := viewBody(data, now, line)
		if !validQoS(it.qos) || err != nil {
			s.b.log.Error("skipped a message in the journal that makes no sense", "session", s.id, "seq", seq)
			return true
		}
		it.seq, it.body, it.cost = seq, b, b.cost()
		more = !p.add(&it, len(data))
		return !more
	})
	return more, err
}

// take appends to ram what was read, unless the consumer has it already.
func (s *session) take(it item) {
	s.loaded = it.seq
	if !s.cuts.keep(it.seq, it.ordinal) {
		return
	}
	if s.share != nil && s.share.hasDrawn(it.seq) {
		return
	}
	if s.live.has(it.seq) {
		return
	}
	for _, a := range s.beyond {
		if a.has(it.seq) {
			return
		}
		it.known = it.known || a.seq == it.seq
	}
	if s.identified {
		it.ids = s.wantedIDs(string(it.body.topic()), it.shared)
	}
	s.push(it)
}

// catchUp appends what is owed behind upTo and is still on its way to the disk.
// If all of it finds room, the session is no longer behind. If a commit came
// between, the next page has it.
func (s *session) catchUp(upTo uint64) {
	full := false
	asOf := s.b.commit.eachOwed(s, func(r *record, o *owner) bool {
		it := itemFromTag(o.tag)
		it.body, it.rec, it.seq, it.cost = r.body, r, r.seq, r.body.cost()
		if r.must || !s.inbox && !r.open.Load() {
			it.gate = r
		}
		if full = s.ramBytes+it.size() > s.bounds.MaxMemory && s.ramBytes >= s.bounds.MaxMemory/4; full || r.seq <= s.loaded {
			return !full
		}
		s.take(it)
		return true
	}, upTo)
	s.behind = full || !asOf
	if !s.behind {
		s.reconcile()
	}
}
