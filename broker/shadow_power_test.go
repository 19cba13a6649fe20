package broker

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
)

// gone makes all clients lose their connections. takes says that each still gets what
// the others' leaving brings it.
func (x *shadow) gone(takes bool) {
	if x.guest != nil {
		_ = x.guest.Close()
		x.guest = nil
	}
	for _, p := range x.tells {
		if p.c != nil {
			p.leave()
		}
	}
	for _, o := range x.owners {
		if o.c != nil && takes {
			x.rest()
			o.take()
		}
		if o.c != nil {
			o.hangUp()
		}
	}
}

// restart ends the broker in an orderly way and starts it: nothing changes.
func (x *shadow) restart() {
	x.count["restarts"]++
	x.gone(true)
	x.rest()
	x.d.stop()
	x.guestLosses()
	x.d.start()
	x.begin()
	for _, o := range x.queues() {
		o.resume(time.Time{})
	}
	x.compareLosses(false)
	x.inbox().peek()
}

// cut starts the broker with what the disk has now: what was not committed is gone.
func (x *shadow) cut() {
	x.count["power cuts"]++
	x.life.Store(true)
	for _, o := range x.owners {
		if o.c != nil {
			o.take()
		}
	}
	at, dir := time.Now(), x.d.snapshot()
	x.gone(false)
	x.d.goBack(dir)
	moved := x.moved
	x.begin()
	x.undoHanded(moved)
	for _, o := range x.queues() {
		o.resume(at)
	}
	x.compareLosses(true)
	x.inbox().peek()
}

// begin takes notice of a broker that was started.
func (x *shadow) begin() {
	synctest.Wait()
	x.life, x.moved = new(atomic.Bool), nil
	x.last, x.passed, x.fresh, x.handed = x.d.b.commit.lastSeq(), 0, nil, nil
	for _, o := range x.queues() {
		o.ordinals = make(map[string]int)
	}
}

// compareLosses expects the ledger to have what the model has. A power cut may
// have taken back what was not on the disk, with the messages, and losses of
// messages that nobody was promised: see goBack.
func (x *shadow) compareLosses(afterCut bool) {
	have := make(map[lossKey]uint64)
	for _, l := range x.d.b.Losses() {
		have[lossKey{l.Session, l.Filter, x.reason(l.Reason)}] += l.Count
	}
	x.guestLosses()
	if afterCut {
		for key, n := range x.losses {
			if have[key] > n || have[key] < n-x.unsure[key] {
				x.t.Errorf("the ledger has %d %v, should have %d, of which %d need not be there", have[key], key, n, x.unsure[key])
			}
		}
		clear(x.unsure)
		x.losses = have
		return
	}
	if !maps.Equal(x.losses, have) {
		x.t.Errorf("the ledger has\n%v, want\n%v", have, x.losses)
	}
}

// guestLosses takes over what the guest has lost: the balance of the bed is the
// check.
func (x *shadow) guestLosses() {
	maps.DeleteFunc(x.losses, func(k lossKey, _ uint64) bool { return k.session == "guest" })
	for _, l := range x.d.b.Losses() {
		if l.Session == "guest" {
			x.losses[lossKey{l.Session, l.Filter, x.reason(l.Reason)}] += l.Count
		}
	}
}

// known expects that nobody lost the message, as the broker does not take it again.
func (x *shadow) known(what said) {
	for _, o := range x.queues() {
		if o.missed[what.n] {
			x.t.Errorf("the receipt of message %d is on the disk, but %s has lost the message", what.n, o.id)
		}
	}
}

// resume compares the session after a start with the model. After a power cut what
// nobody was promised may be missing, and what was acknowledged, or lost, without
// the disk may be owed again.
func (o *ower) resume(cut time.Time) {
	s := o.x.session(o.id)
	if s == nil {
		o.x.t.Fatalf("the session of %s is gone", o.id)
	}
	if !cut.IsZero() {
		o.goBack(s, cut)
	}
	o.compare(s)
	for _, d := range o.queue {
		d.m.stored = true
	}
	o.acked, o.lost = nil, nil
	subs := make(map[string]mqtt.QoS)
	for _, sub := range s.subs {
		subs[sub.Filter] = sub.QoS
	}
	if !slices.ContainsFunc(o.past, func(past map[string]mqtt.QoS) bool { return maps.Equal(past, subs) }) {
		o.x.t.Errorf("%s has the subscriptions %v, want one of %v", o.id, subs, o.past)
	}
	o.subs = subs
	o.past = []map[string]mqtt.QoS{subs}
}

// latest is how long a message may stay in memory only, with what a commit takes.
const latest = time.Duration(lazy) + 10*time.Millisecond

// mustStay reports whether the message has to be on the disk when the power is cut.
func (o *ower) mustStay(d *debt, cut time.Time) bool {
	return o.assured(d) || cut.Sub(d.m.at) > latest
}

// assured reports whether somebody was promised that the message is safe.
func (o *ower) assured(d *debt) bool {
	for m := d.m; m != nil; m = m.before {
		if m.stored || m.promised.Load() && !o.x.bounds.Relaxed {
			return true
		}
	}
	return false
}

// goBack makes the queue what the disk had when the power was cut, as far as that is
// lawful.
func (o *ower) goBack(s *session, cut time.Time) {
	holds, lost := s.holds(), o.lost
	o.queue = slices.DeleteFunc(o.queue, func(d *debt) bool {
		if _, here := holds[d.m.seq]; here || o.mustStay(d, cut) {
			return false
		}
		o.missed[d.m.n] = !o.losesOld(d)
		return true
	})
	back := 0
	for _, d := range o.acked {
		if _, here := holds[d.m.seq]; here {
			back++
			o.queue = append(o.queue, d)
		} else {
			o.losesOld(d)
		}
	}
	if back > o.mayComeBack() {
		o.x.t.Errorf("%s is owed %d messages again that it has acknowledged, at most %d may be", o.id, back, o.mayComeBack())
	}
	for _, l := range lost {
		switch _, here := holds[l.m.seq]; {
		case here:
			o.x.losses[l.key]--
			o.queue = append(o.queue, l.debt)
		case !o.assured(l.debt):
			o.x.unsure[l.key]++
		}
	}
	slices.SortFunc(o.queue, func(a, b *debt) int { return int(a.m.seq) - int(b.m.seq) })
	for _, d := range o.queue { // what is known of sending it may be old
		d.maybe, d.unsure, d.released = true, d.released || d.unsure, false
	}
}

// losesOld notes that the message, which is not there, may have come back and have
// been too old then.
func (o *ower) losesOld(d *debt) bool {
	reason := o.tooOld(d, time.Now())
	if reason != "" {
		o.lose(d, reason)
		o.x.unsure[o.lost[len(o.lost)-1].key]++
	}
	return reason != ""
}

// mayComeBack is how many acknowledged messages a power cut may make come again.
func (o *ower) mayComeBack() int {
	most := o.x.d.cfg.Limits.MaxInflight
	if o == o.x.pool {
		return 3 * most // there are so many members
	}
	return most
}
