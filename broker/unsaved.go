package broker

import "time"

// What a consumer has acknowledged and the disk does not have, a crash makes the
// gateway send again, as it does with what is under way. So both together are no more
// than the window, and a position has to get to the disk in time, or the consumer
// stands still. Each time costs processor time and a page, so it is not done sooner
// than it must be.

// hasPlace reports whether one more message may be under way. The caller holds mu.
func (s *session) hasPlace() bool { return s.under()+s.unsaved < s.limit }

// under returns how many messages are under way. The caller holds mu.
func (s *session) under() int {
	if s.live != nil {
		return s.window.len() + s.live.window.len()
	}
	return s.window.len()
}

// runsShort reports whether no more than a quarter of the window is free, without what is
// kept for live messages. The caller holds mu.
func (s *session) runsShort() bool {
	most := s.limit - s.kept()
	return s.link != nil && s.under()+s.unsaved >= most-most/4
}

// saveInTime has the position written before the consumer, which runs short, stands
// still for want of it: at once if that is worth it, or when there is nothing more to
// wait for. The caller holds mu.
func (s *session) saveInTime(t *turn) {
	fresh, takes := s.unsaved-s.saving, s.b.commit.lead.takes.Load()
	switch {
	case fresh == 0:
		return
	case fresh >= s.worth(takes) || s.saving == 0 && s.isPause():
		s.b.commit.moved(s, t.now, nil)
	case s.saving == 0: // else it is looked at when the commit ends
		s.b.commit.moved(s, t.now+s.trip+takes, nil)
	default:
		return
	}
	s.b.commit.hurry()
}

// effort is what a commit costs beside the time that it takes: many small ones keep the
// processor from the messages.
const effort = int64(time.Millisecond / 2)

// worth is how many acknowledgements are worth a commit that takes so long. While they
// gather, the window is narrower by them; if a commit takes long, those that come
// meanwhile wait for the next one. In parts that make up a window, as what a commit frees
// goes out together and is acknowledged together. The caller holds mu.
func (s *session) worth(takes int64) int {
	most := s.limit - s.kept()
	switch {
	case 4*(takes+effort) <= s.trip:
		return max(1, min(most/10, 8+most/32)) // a page for less is too much, also of a wide one
	case takes <= s.trip:
		return max(1, most/2)
	default: // what a commit frees is acknowledged before the next one ends
		return most
	}
}

// isPause reports whether the next acknowledgement is a round trip away, because all
// that was under way when the last commit ended is acknowledged. The caller holds mu.
func (s *session) isPause() bool {
	oldest, some := s.window.oldest()
	return !some || s.before > 0 && oldest > s.before
}

// saved notes that what position said last is on disk.
func (s *session) saved(t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsaved -= s.saving
	s.saving = 0
	s.cut = s.cutting
	s.before = s.window.newest()
	s.pump(t)
	if s.runsShort() {
		s.saveInTime(t)
	}
}
