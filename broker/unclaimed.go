package broker

import (
	"cmp"
	"slices"
)

// An inbox that nobody opens any more, because its bridge is not configured, must not
// collect for ever. What it is owed stays: it may be a mistake. That it has no
// subscriptions says so in the store.

// Unclaim ends the subscriptions of the inboxes for whose names gone says that nobody
// will open them any more. What they are owed stays, until somebody opens or purges
// them; those that hold nothing are removed. It returns the others, in the order of
// their names. It may be called before Serve, and again.
func (b *Broker) Unclaim(gone func(name string) bool) []SessionStatus {
	t := b.newTurn(nil)
	defer b.endTurn(t)
	b.mu.Lock()
	defer b.mu.Unlock()
	var left []SessionStatus
	for _, s := range b.sessions {
		switch {
		case !s.inbox || !gone(s.name()):
		case s.holdsNothing():
			b.forget(t, s, lostEnded)
		default:
			b.unclaim(t, s)
			left = append(left, s.status())
		}
	}
	slices.SortFunc(left, func(x, y SessionStatus) int { return cmp.Compare(x.ID, y.ID) })
	return left
}

// holdsNothing reports whether the session is owed nothing and has no receipts, which
// keep a bridge that comes back from publishing a message twice.
func (s *session) holdsNothing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owed.Load() == 0 && len(s.received) == 0
}

// unclaim ends the subscriptions of s. The caller holds mu.
func (b *Broker) unclaim(t *turn, s *session) {
	s.claim(false)
	if s.replaceSubs(nil) {
		s.save(t.now+lazy, nil) // else the next start does the same
	}
}

// claim notes whether somebody opens the inbox. The caller holds Broker.mu.
func (s *session) claim(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclaimed = !yes
}

// removeUnclaimed removes an inbox that nobody opens and that is owed nothing.
func (b *Broker) removeUnclaimed(t *turn, s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.unclaimed && s.owed.Load() == 0 && b.sessions[s.id] == s {
		b.forget(t, s, lostEnded)
	}
}
