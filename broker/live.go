package broker

// lane is the second way out of a session whose consumer wants live messages
// first: what is published while the consumer is there goes past the backlog, in
// its own order. It is bounded: what finds no room here waits its turn in the
// backlog. A nil lane is for consumers that want all in one order.
//
// What a lane holds stands in the journal at its place like everything else, if it
// has to be there at all. When the consumer goes, what it has not acknowledged is
// backlog; what it has is noted as ranges, see acked.
type lane struct {
	in       *inbox
	ram      queue[item]
	ramBytes int
	window   window
	tail     uint64 // the newest that the session is owed, in the lane or not
	last     bool   // the message sent last was a live one
}

// laneFor returns the lane of a consumer, if it wants one. Everything up to the
// place in the journal upTo is backlog.
func laneFor(link consumer, upTo uint64) *lane {
	if in, ok := link.(*inbox); ok && in.lanes {
		return &lane{in: in, tail: upTo}
	}
	return nil
}

// takes reports whether the message can go past the backlog of s, and if so marks
// it. The caller holds s.mu.
func (l *lane) takes(s *session, it *item) bool {
	if l == nil {
		return false
	}
	it.live = len(s.beyond) < maxBeyond && (l.ram.len() == 0 || s.roomFor(l.ramBytes+it.size(), s.bounds.MaxMemory/4))
	it.after = min(l.tail, it.seq-1)
	l.tail = it.seq
	return it.live
}

func (l *lane) push(it item) {
	l.ram.push(it)
	l.ramBytes += it.size()
}

func (l *lane) pop() item {
	it := l.ram.pop()
	l.ramBytes -= it.size()
	return it
}

// has reports whether the message at seq is in the lane or went out over it.
func (l *lane) has(seq uint64) bool {
	if l.below(seq) == seq {
		return false
	}
	for i := range l.ram.len() {
		if l.ram.at(i).seq == seq {
			return true
		}
	}
	return l.window.findSeq(seq) >= 0
}

// size returns how many messages are in the lane, or went out over it and are not
// acknowledged.
func (l *lane) size() int {
	if l == nil {
		return 0
	}
	return l.ram.len() + l.window.len()
}

// addTo adds what the lane has to what is in memory.
func (l *lane) addTo(have *amount) {
	if l == nil {
		return
	}
	for i := range l.window.len() {
		have.add(1, int64(l.window.slots.at(i).cost))
	}
	for i := range l.ram.len() {
		have.add(1, int64(l.ram.at(i).cost))
	}
}

// bytes is what the lane costs in memory.
func (l *lane) bytes() int {
	if l == nil {
		return 0
	}
	return l.ramBytes + l.window.len()*itemOverhead
}

// below returns the place in the journal up to which nothing is owed, if cursor
// is that of the backlog.
func (l *lane) below(cursor uint64) uint64 {
	if l == nil {
		return cursor
	}
	if seq, ok := l.window.oldest(); ok {
		cursor = min(cursor, seq-1)
	}
	if l.ram.len() > 0 {
		cursor = min(cursor, l.ram.front().seq-1)
	}
	return cursor
}

// take removes the message at seq from what is under way.
func (l *lane) take(seq uint64) (slot, bool) {
	if l == nil {
		return slot{}, false
	}
	i := l.window.findSeq(seq)
	if i < 0 {
		return slot{}, false
	}
	return l.window.slots.remove(i), true
}

// pumpLanes is pump for a session with a lane: one message at a time for each
// way out, and in turn, so that the consumer decides which of the two it wants
// more of, and neither can starve here. The caller holds mu.
func (s *session) pumpLanes(t *turn) {
	l := s.live
	for s.link != nil && s.hasPlace() {
		live := l.ram.len() > 0 && l.in.wants(true) && s.ungated(l.ram.front())
		backlog := s.ram.len() > 0 && l.in.wants(false) && s.ungated(s.ram.front()) && len(s.beyond) < 2*maxBeyond && !s.lags()
		switch {
		case live && !(backlog && l.last):
			l.last = true
			s.send(t, l.pop())
		case backlog:
			l.last = false
			it := s.ram.pop()
			s.ramBytes -= it.size()
			s.send(t, it)
		default:
			return
		}
	}
}

// lags reports whether the backlog has to wait for acknowledgements, or until the disk has
// them. Hardly any live message has to be noted there, so that what is kept for them, and a
// place for eight of the backlog's which wait for the disk, is enough for them to go on.
// The caller holds mu.
func (s *session) lags() bool { return s.under()+s.unsaved+s.unsaved/8+s.kept() >= s.limit }

// kept is how many places of the window are never the backlog's, which may have to wait for
// its rate: the last one, and one in 64.
func (s *session) kept() int {
	if s.live == nil {
		return 0
	}
	return min(s.limit-1, 1+s.limit/64)
}

// done notes that all that s was owed behind from and up to seq is acknowledged.
// It is appended to a range that ends or begins there; a range of its own is only
// for what the store has. The caller holds mu.
func (s *session) done(from, seq uint64, stored bool) {
	before, behind := -1, -1
	for i, a := range s.beyond {
		if !a.released && a.seq == from {
			before = i
		}
		if !a.released && a.from == seq {
			behind = i
		}
	}
	switch {
	case before >= 0 && behind >= 0:
		s.beyond[before].seq = s.beyond[behind].seq
		s.beyond = append(s.beyond[:behind], s.beyond[behind+1:]...)
	case before >= 0:
		s.beyond[before].seq = seq
	case behind >= 0:
		s.beyond[behind].from = from
	case stored:
		s.beyond = append(s.beyond, acked{from: from, seq: seq})
	}
}
