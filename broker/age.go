package broker

import "time"

// What is too old goes without its consumer coming back: from the oldest end of
// the queue, when the alarm of the session says so. Both the message expiry of
// its publisher and max_age count, on the gateway's line of time.

// ends returns when a message is too old in a queue with that max_age, in broker
// time; never: it will not be.
func (b *body) ends(age time.Duration) (when int64) {
	when = never
	if b.expires != 0 {
		when = b.expires
	}
	if age > 0 && b.at != 0 {
		when = min(when, b.at+int64(age))
	}
	return when
}

// ended returns why the message is too old, "" if it is not.
func (b *body) ended(age time.Duration, now int64) (reason string) {
	switch {
	case b.expired(now):
		return lostExpired
	case b.ends(age) <= now:
		return lostAge
	}
	return ""
}

// watch sees to it that the message is found when it is too old. The caller holds
// mu.
func (s *session) watch(b *body) {
	s.sweepBy(b.ends(s.bounds.MaxAge))
}

// sweepBy has the queue looked at no later than when. The caller holds mu.
func (s *session) sweepBy(when int64) {
	if when >= s.sweepAt {
		return
	}
	s.sweepAt = when
	s.b.alarms.put(alarmKey{s, queueAges}, when, s.sweep)
}

// sweep gives up what is too old.
func (s *session) sweep(t *turn) {
	s.mu.Lock()
	s.sweepAt, s.sweeps = never, true
	s.mu.Unlock()
	s.trim(t)
}

// beginSweep returns a pass over what is too old, or nil if nothing is. The
// caller holds mu.
func (s *session) beginSweep(t *turn) *pass {
	age := s.bounds.MaxAge
	for i := range s.ram.len() {
		if it := s.ram.at(i); it.seq > s.head() {
			if it.body.ended(age, t.now) == "" {
				s.sweepLater(t, it.body.ends(age))
				return nil
			}
			break
		}
	}
	if s.owed.Load() == 0 || !s.behind && s.ram.len() == 0 {
		return nil
	}
	p := s.newPass(t)
	p.level, p.judge = nothing, func(it *item) fateOf {
		if reason := it.body.ended(age, t.now); reason != "" {
			return fateOf(reason)
		}
		p.next = it.body.ends(age)
		return enough
	}
	return p
}

// sweepLater looks again when the oldest message is too old, a second from now at
// the earliest: a sweep may have to read the disk.
func (s *session) sweepLater(t *turn, when int64) {
	if when != never {
		s.sweepBy(max(when, t.now+lazy))
	}
}
