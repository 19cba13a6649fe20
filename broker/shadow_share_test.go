package broker

import (
	"slices"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// shadowShare is the shared subscription of the model, sharedFilter its filter.
const (
	shadowShare  = "$share/g/" + sharedFilter
	sharedFilter = "+/x"
)

// handed is a QoS 2 message on its way from the share to a member.
type handed struct {
	to  *ower
	n   int
	seq uint64 // its new place

	old, own *debt // of the share and of the member
}

// newPool makes a share with three members. Its queue is that of an ower without a
// client.
func (x *shadow) newPool() {
	x.pool = newOwer(x, shadowShare)
	for i, id := range []string{"mem0", "mem1", "mem2"} {
		o := newOwer(x, id)
		o.member = true
		x.owners = append(x.owners, o)
		o.come()
		o.subscribe(shadowShare, mqtt.QoS(1+min(i, 1)))
	}
	x.pool.subs = map[string]mqtt.QoS{sharedFilter: mqtt.ExactlyOnce}
	x.pool.past = []map[string]mqtt.QoS{x.pool.subs}
}

// queues are all who can be owed messages.
func (x *shadow) queues() []*ower {
	if x.pool == nil {
		return x.owners
	}
	return append(slices.Clone(x.owners), x.pool)
}

// look takes notice of new places in the journal: of what members have been handed,
// and of what was published.
func (x *shadow) look() {
	last, own := x.d.b.commit.lastSeq(), make(map[uint64]bool)
	for _, o := range x.owners {
		s := x.session(o.id)
		if !o.member || s == nil {
			continue
		}
		_ = s.eachQueued(0, func(d mqtt.Delivery) bool {
			if d.Seq > x.last {
				own[d.Seq] = true
				x.handed = append(x.handed, handed{to: o, n: numberIn(d.Payload), seq: d.Seq})
			}
			return true
		})
	}
	for seq := x.last + 1; seq <= last; seq++ {
		if !own[seq] {
			x.fresh = append(x.fresh, seq)
		}
	}
	x.last = last
}

// handOver moves what members have been handed into their queues.
func (x *shadow) handOver() {
	slices.SortFunc(x.handed, func(a, b handed) int { return int(a.seq) - int(b.seq) })
	for _, h := range x.handed {
		i := slices.IndexFunc(x.pool.queue, func(d *debt) bool { return d.m.n == h.n && d.qos == mqtt.ExactlyOnce && d.lentTo == nil })
		if i < 0 {
			x.t.Errorf("%s was handed message %d, which is not with the share", h.to.id, h.n)
			continue
		}
		h.old = x.pool.queue[i]
		x.diary.note("%s was handed %d, to place %d", h.to.id, h.n, h.seq)
		x.pool.queue = slices.Delete(x.pool.queue, i, i+1)
		x.passed = max(x.passed, h.old.m.seq)
		m := &shadowMsg{said: h.old.m.said, seq: h.seq, at: h.old.m.at, before: h.old.m}
		h.to.owe(m, mqtt.ExactlyOnce)
		h.own = h.to.queue[len(h.to.queue)-1]
		x.moved = append(x.moved, h)
		x.count["handed over"]++
	}
	x.handed = nil
}

// borrow takes a message that the share has lent to the member.
func (o *ower) borrow(p *packet.Publish, at time.Time) {
	n, pool, seq := numberIn(p.Payload), o.x.pool, o.x.session(o.id).loanAs(p.ID)
	i := slices.IndexFunc(pool.queue, func(d *debt) bool { return d.m.n == n && d.m.seq == seq && d.lentTo == nil })
	if i < 0 {
		o.x.t.Errorf("%s was lent message %d, which the share has not, or somebody else has", o.id, n)
		return
	}
	d := pool.queue[i]
	switch {
	case string(p.Topic) != d.m.topic || string(p.Payload) != string(d.m.payload()):
		o.x.t.Errorf("%s was lent message %d on %s with %d bytes, want %+v", o.id, n, p.Topic, len(p.Payload), d.m.said)
	case p.Dup && !d.sent && !d.maybe:
		o.x.t.Errorf("%s was lent message %d with DUP for the first time", o.id, n)
	case !d.sent && !d.maybe && !d.m.expires.IsZero() && at.After(d.m.expires):
		o.x.t.Errorf("%s was lent message %d, which has expired", o.id, n)
	}
	d.lentTo, d.sent = o, true
	o.x.count["lent"]++
	o.loans[p.ID] = d
	o.x.passed = max(o.x.passed, d.m.seq)
	o.puback = append(o.puback, p.ID)
}

// loanAs returns the place of what a share has lent the session with the packet
// identifier, 0 if nothing.
func (s *session) loanAs(id uint16) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.window.find(id); i >= 0 && s.window.slots.at(i).loan != nil {
		return s.window.slots.at(i).loan.seq
	}
	return 0
}

// repay acknowledges a loan.
func (o *ower) repay(id uint16) {
	d := o.loans[id]
	d.lentTo = nil
	delete(o.loans, id)
	o.x.pool.settled(d)
}

// giveBack returns all loans: their messages go to the next who has room.
func (o *ower) giveBack() {
	for _, d := range o.loans {
		d.lentTo = nil
	}
	clear(o.loans)
}

// checkShare expects that the share has passed its messages on in their order: since
// the last time nothing was, while an older one stayed.
func (x *shadow) checkShare() {
	if x.pool == nil {
		return
	}
	for _, o := range x.owners {
		if o.member && o.c != nil {
			o.take()
		}
	}
	for _, d := range x.pool.queue {
		if d.lentTo == nil && d.m.seq < x.passed {
			x.t.Errorf("message %d at place %d stays with the share, and what is at place %d was passed on", d.m.n, d.m.seq, x.passed)
		}
	}
	x.passed = 0
}

// undoHanded gives back to the share what a power cut has taken from members. What a
// member has is not with the share any more.
func (x *shadow) undoHanded(moved []handed) {
	if x.pool == nil {
		return
	}
	holds := x.session(shadowShare).holds()
	for _, h := range moved {
		_, back := holds[h.old.m.seq]
		_, here := x.session(h.to.id).holds()[h.seq]
		switch {
		case back && (here || h.own.sent):
			x.t.Errorf("message %d is with the share and with %s", h.n, h.to.id)
		case back:
			x.pool.queue = append(x.pool.queue, h.old)
			h.to.queue = slices.DeleteFunc(h.to.queue, func(d *debt) bool { return d == h.own })
		}
	}
}
