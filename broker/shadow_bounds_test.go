package broker

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"tidegate/internal/limits"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// shadowKinds are the bounds of queues with which the shadow model is played.
var shadowKinds = []struct {
	name   string
	bounds mqtt.QueueLimits
}{
	{"no bounds", mqtt.QueueLimits{}},
	{"the oldest make way", mqtt.QueueLimits{MaxMessages: 16}},
	{"the oldest of many bytes make way", mqtt.QueueLimits{MaxDisk: 8000}},
	{"the newest go", mqtt.QueueLimits{MaxMessages: 16, Overflow: mqtt.DropNewest}},
	{"every second goes", mqtt.QueueLimits{MaxMessages: 20, Overflow: mqtt.Thin}},
	{"every second of many bytes goes", mqtt.QueueLimits{MaxDisk: 8000, Overflow: mqtt.Thin}},
	{"publishers wait", mqtt.QueueLimits{MaxMessages: 16, Overflow: mqtt.Reject}},
	{"publishers of many bytes wait", mqtt.QueueLimits{MaxDisk: 8000, Overflow: mqtt.Reject}},
	{"all grow old", mqtt.QueueLimits{MaxAge: 5 * time.Second}},
	{"nobody waits for the disk", mqtt.QueueLimits{Relaxed: true}},
}

func setQueue(cfg *limits.Queue, q mqtt.QueueLimits) {
	cfg.MaxMemory, cfg.MaxDisk, cfg.MaxMessages = units.Size(q.MaxMemory), units.Size(q.MaxDisk), int(q.MaxMessages)
	cfg.MaxAge, cfg.Overflow = units.Duration(q.MaxAge), q.Overflow
	if q.Relaxed {
		cfg.Durability = "relaxed"
	}
	cfg.SetDefaults(32 * units.MiB)
}

// anyBound stands for the reasons of bounds and of expiry, of which the first that
// is found counts.
const anyBound = "any bound"

func (x *shadow) reason(of string) string {
	loses := x.bounds.MaxAge > 0 || x.overflows() != ""
	if loses && slices.Contains([]string{lostExpired, lostAge, lostCount, lostDisk, lostThinned}, of) {
		return anyBound
	}
	return of
}

// overflows returns for what reason messages are lost that are too many, "" if
// they are not.
func (x *shadow) overflows() (reason string) {
	switch q := x.bounds; {
	case q.Overflow == mqtt.Reject:
		return ""
	case q.Overflow == mqtt.Thin:
		return lostThinned
	case q.MaxMessages > 0:
		return lostCount
	case q.MaxDisk > 0:
		return lostDisk
	}
	return ""
}

// mayGo returns why the session may have lost it, "" if it must not: what was sent
// stays.
func (o *ower) mayGo(d *debt, at time.Time) (reason string) {
	if d.sent && !d.maybe {
		return ""
	}
	return cmp.Or(o.tooOld(d, at), o.x.overflows())
}

// tooOld returns why the message may be lost because of its age; "" if it may not.
func (o *ower) tooOld(d *debt, at time.Time) (reason string) {
	q := o.x.bounds
	switch {
	case !d.m.expires.IsZero() && !at.Before(d.m.expires):
		return lostExpired
	case q.MaxAge > 0 && at.Sub(d.m.at) >= q.MaxAge:
		return lostAge
	}
	return ""
}

// cost is what the message counts in a queue.
func (d *debt) cost() int64 {
	bytes := 2 + len(d.m.topic) + len(d.m.payload())
	if !d.m.expires.IsZero() {
		bytes += 5 // a property
	}
	return int64(bytes) + diskOverhead
}

// tooMuch reports whether so many messages are more than the bounds allow.
func (x *shadow) tooMuch(list []*debt) bool {
	q := x.bounds
	return q.MaxMessages > 0 && int64(len(list)) > q.MaxMessages || q.MaxDisk > 0 && costOf(list) > q.MaxDisk
}

func costOf(list []*debt) (sum int64) {
	for _, d := range list {
		sum += d.cost()
	}
	return sum
}

// checkBounds expects that the queue is not larger than it may be, but for what was
// sent. What was sent before a power cut is not known well enough for that.
func (o *ower) checkBounds(s *session) {
	if have := s.amount().bytes; have != costOf(o.queue) {
		o.x.t.Errorf("%s is owed %d bytes, want %d", o.id, have, costOf(o.queue))
	}
	if n := len(o.unsent(s)); o.x.tooMuch(o.queue) && n > 0 && o.x.overflows() != "" {
		o.x.t.Errorf("%s is owed %d messages in %d bytes, and %d of them could be given up", o.id, len(o.queue), costOf(o.queue), n)
	}
}

// unsent returns what may be given up, if that is known.
func (o *ower) unsent(s *session) (list []*debt) {
	s.mu.Lock()
	sent := s.head()
	s.mu.Unlock()
	for _, d := range o.queue {
		if d.maybe {
			return nil
		}
		if d.m.seq > sent {
			list = append(list, d)
		}
	}
	return list
}

// checkPolicy expects that those were given up for the queue's size whom the policy
// names, and, if nobody has gone for another reason, no more than need be.
func (o *ower) checkPolicy(s *session, over []*debt, others bool) {
	q, bytes := o.x.bounds, costOf(o.queue)
	last := slices.MaxFunc(over, func(a, b *debt) int { return int(a.cost() - b.cost()) })
	if !others && (int64(len(o.queue)) < q.MaxMessages-q.MaxMessages/16 || bytes+last.cost() < q.MaxDisk-q.MaxDisk/16) {
		o.x.t.Errorf("%s is owed %d messages in %d bytes after %d have made way, which is less than need be", o.id, len(o.queue), bytes, len(over))
	}
	if newest := o.queue[len(o.queue)-1]; q.Overflow == mqtt.DropNewest && newest.m.seq > over[0].m.seq {
		o.x.t.Errorf("%s has lost message %d and not %d, which is newer", o.id, over[0].m.n, newest.m.n)
	}
	for _, d := range o.unsent(s) {
		for _, lost := range over {
			o.checkPair(d, lost)
		}
	}
}

// checkPair looks at a message that is owed and one that had to make way.
func (o *ower) checkPair(d, lost *debt) {
	q := o.x.bounds
	switch {
	case d.m.seq > lost.m.seq || q.Overflow == mqtt.DropNewest:
	case q.Overflow != mqtt.Thin:
		o.x.t.Errorf("%s has lost message %d and not %d, which is older", o.id, lost.m.n, d.m.n)
	case coarseness(d) <= coarseness(lost):
		o.x.t.Errorf("%s has lost message %d, number %d of its topic, and not %d, number %d, which is older", o.id, lost.m.n, lost.ordinal, d.m.n, d.ordinal)
	}
}

// coarseness is how often a queue can be thinned before it loses the message.
func coarseness(d *debt) int { return bits.TrailingZeros16(uint16(d.ordinal) | 1<<thinnest) }

// checkRefusal expects that a queue refuses messages while it is full, and not once
// it has room for some.
func (o *ower) checkRefusal(s *session) {
	q, refuses := o.x.bounds, s.refuses.Load()
	n, bytes := int64(len(o.queue)), costOf(o.queue)
	full := q.MaxMessages > 0 && n >= q.MaxMessages || q.MaxDisk > 0 && bytes >= q.MaxDisk
	room := (q.MaxMessages == 0 || n < q.MaxMessages-q.MaxMessages/16) && (q.MaxDisk == 0 || bytes <= q.MaxDisk-q.MaxDisk/16)
	switch {
	case q.Overflow == mqtt.Reject && full && !refuses:
		o.x.t.Errorf("%s is owed %d messages in %d bytes and refuses none", o.id, n, bytes)
	case refuses && (room || q.Overflow != mqtt.Reject):
		o.x.t.Errorf("%s is owed %d messages in %d bytes and refuses more", o.id, n, bytes)
	}
}

// refuses reports whether a queue that a message would go to is full.
func (x *shadow) refuses(what said) bool {
	return slices.ContainsFunc(x.queues(), func(o *ower) bool {
		return o.wants(what) > mqtt.AtMostOnce && x.session(o.id).refuses.Load()
	})
}

// admit notes which messages that waited for room have been taken.
func (x *shadow) admit() {
	for _, p := range x.tells {
		for len(p.waits) > 0 && (len(x.fresh) > 0 || !x.wanted(p.waits[0].said)) {
			u := p.waits[0]
			p.waits = p.waits[1:]
			u.m = x.accept(u.said, time.Time{})
			x.diary.note("message %d of %s was taken", u.n, p.id)
		}
		if len(p.waits) > 0 && !x.refuses(p.waits[0].said) {
			x.t.Errorf("message %d of %s waits, and no queue that it goes to is full", p.waits[0].n, p.id)
		}
	}
}

// wanted reports whether a queue would be owed the message.
func (x *shadow) wanted(what said) bool {
	return slices.ContainsFunc(x.queues(), func(o *ower) bool { return o.wants(what) > mqtt.AtMostOnce })
}
