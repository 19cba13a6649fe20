package bridge

import (
	"context"
	"errors"
	"sync"
	"time"

	"tidegate/mqtt"
)

// owed is a message that the server has not acknowledged.
type owed struct {
	u     *uplink
	d     mqtt.Delivery
	from  stream
	at    time.Time // when it was sent; zero: nobody acknowledges it
	done  bool
	err   error // why the server does not take it; if it is done
	later *owed // that was sent next
}

func (o *owed) acknowledged(err error) { o.u.flight.land(o, err) }

// rest has those look again who wait for room in the window, for all that was
// acknowledged, so that what gets the places goes out together.
func (o *owed) rest() { o.u.window.wake() }

// flight is what was sent over one link and is not confirmed, in the order in which it
// was sent. Acknowledgements may come in another one, and are confirmed in this.
type flight struct {
	mu          sync.Mutex
	changed     sync.Cond
	first, last *owed
	spare       *owed     // those that are confirmed, to be used again
	confirming  bool      // somebody does, without the lock
	moved       time.Time // something was confirmed last; zero: nothing was
}

func newFlight() *flight {
	f := &flight{}
	f.changed.L = &f.mu
	return f
}

// add appends a message of u, which is sent now.
func (f *flight) add(u *uplink, d mqtt.Delivery, from stream) *owed {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.spare
	if o == nil {
		o = &owed{u: u}
	} else {
		f.spare = o.later
	}
	o.d, o.from, o.at, o.later = d, from, time.Now(), nil
	if f.first == nil {
		f.first, f.last = o, o
	} else {
		f.last.later, f.last = o, o
	}
	return o
}

// drop takes the first away. Who has still to hear of a rest may be it, so it keeps its
// uplink. The caller holds mu.
func (f *flight) drop() {
	o := f.first
	f.first = o.later
	o.d, o.done, o.err = mqtt.Delivery{}, false, nil
	o.later, f.spare = f.spare, o
}

// land takes note of an acknowledgement, and confirms what is first and acknowledged
// until there is nothing of that, or the link is lost. Who finds another at it leaves it
// to that one.
func (f *flight) land(o *owed, err error) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	o.done, o.err = true, err
	for !f.confirming && f.first != nil && f.first.done {
		if !f.confirmFirst(now) {
			return
		}
	}
}

// confirmFirst reports whether the first is confirmed. The caller holds mu, which is free meanwhile.
func (f *flight) confirmFirst(now time.Time) bool {
	o := f.first
	f.confirming = true
	f.mu.Unlock()
	ok := o.u.confirm(o, now)
	f.mu.Lock()
	f.confirming = false
	if ok {
		f.drop()
		f.moved = now
	}
	f.changed.Broadcast()
	return ok
}

// head returns the first message that is not confirmed, 0 if there is none, and since
// when it is waited for.
func (f *flight) head() (seq uint64, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch o := f.first; {
	case o == nil:
		return 0, time.Time{}
	case f.confirming: // which may take its time
		return o.d.Seq, time.Now()
	case o.at.Before(f.moved):
		return o.d.Seq, f.moved
	default:
		return o.d.Seq, o.at
	}
}

// proven reports whether the server acknowledged anything.
func (f *flight) proven() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.moved.IsZero()
}

// wait returns when all is confirmed, or the link is lost and nobody is at it any more.
func (f *flight) wait(alive context.Context) {
	defer context.AfterFunc(alive, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.confirming || f.first != nil && alive.Err() == nil {
		f.changed.Wait()
	}
}

// confirm acknowledges o to the inbox, or puts it aside, and reports whether the link
// still stands then. What comes over a lost link does not count.
func (u *uplink) confirm(o *owed, now time.Time) bool {
	switch {
	case u.link.alive().Err() != nil:
		return false
	case o.err != nil && !u.refused(o):
		return false
	case o.err == nil:
		u.monitor.acknowledged(now) // first: who sees an empty queue sees it counted
		u.inbox.Ack(o.d.Seq)
	}
	u.window.leave(o.from, o.at, now)
	return true
}

// refused puts o aside if its error says that the server never takes it, and else
// aborts the link.
func (u *uplink) refused(o *owed) bool {
	var why *refusal
	if !errors.As(o.err, &why) || !why.final() {
		u.link.abort(o.err)
		return false
	}
	u.monitor.update(func(s *Status) { s.InFlight-- })
	u.bury(o.d, why)
	return true
}

// patrol aborts the link when an acknowledgement takes longer than StallTimeout.
func (u *uplink) patrol(finished <-chan struct{}) {
	most := time.Duration(u.cfg.StallTimeout)
	look := time.NewTimer(most)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-finished:
			return
		}
		left := most
		if seq, since := u.flight.head(); seq != 0 {
			left -= time.Since(since)
		}
		if left <= 0 {
			u.link.abort(&stallError{u.server, most})
			return
		}
		look.Reset(left)
	}
}
