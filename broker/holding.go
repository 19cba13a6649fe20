package broker

import (
	"strings"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// What sessions and subscriptions take of the budget.

// tally charges the session for what it holds. The caller holds mu.
func (s *session) tally() {
	bytes := s.ramBytes + s.live.bytes() + s.window.len()*itemOverhead + s.replay.len()*replayCost +
		len(s.received)*receiptCost + len(s.ordinals)*ordinalCost
	s.holding.set(&s.b.memory, forQueues, bytes)
}

// fits reports whether a message of so many bytes may be added to ram. A few
// messages always may, so that no consumer waits for others. The caller holds mu.
func (s *session) fits(bytes int) bool {
	return s.roomFor(s.ramBytes+bytes, s.bounds.MaxMemory)
}

func (s *session) roomFor(bytes, most int) bool {
	return bytes <= most && (bytes <= small || s.b.memory.room(forQueues))
}

// bound gives the queue other bounds.
func (s *session) bound(t *turn, q mqtt.QueueLimits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bounds = q
	if s.owed.Load() > 0 {
		s.sweepBy(t.now + lazy)
	}
	s.wantTrim(t)
	s.gauge()
}

// page returns how many bytes are read from the journal at a time: 16 KiB with the default
// max_memory. That takes a tenth of a millisecond, in which nothing else happens where there
// is one processor.
func (s *session) page() int {
	least := min(small, s.bounds.MaxMemory/2)
	if s.b.memory.room(forQueues) {
		return max(least, s.bounds.MaxMemory/16)
	}
	return least
}

// subscribe enters a subscription of s, which may have had one with its filter. A
// shared one is entered by its share.
func (b *Broker) subscribe(s *session, sub mqtt.Subscription, had bool) {
	if !had {
		b.memory.add(forSubscriptions, costOfFilter(sub.Filter))
	}
	if !isShared(sub.Filter) {
		b.trie.subscribe(s, sub)
	}
	b.wantsLess(s)
}

func (b *Broker) unsubscribe(s *session, filter string) {
	b.memory.add(forSubscriptions, -costOfFilter(filter))
	b.trie.unsubscribe(s, filter)
	b.wantsLess(s)
}

// wantsLess lets those look again who wait for room in the queue of s: it may be that
// their messages do not go to it any more, or at QoS 0.
func (b *Broker) wantsLess(s *session) {
	if s.refuses.Load() {
		b.vacancy.announce()
	}
}

func costOfFilter(filter string) int {
	return subscriptionCost + 2*len(filter) + strings.Count(filter, "/")*levelCost
}

// costOfWill returns what a will takes in memory, 0 if it is nil.
func costOfWill(w *packet.Will) int {
	if w == nil {
		return 0
	}
	return 128 + len(w.Topic) + len(w.Payload) + len(w.Properties)
}
