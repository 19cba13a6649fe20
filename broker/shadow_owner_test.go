package broker

import (
	"maps"
	"slices"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// ower is a durable session with its client, which keeps its half, or an inbox.
type ower struct {
	x      *shadow
	id     string
	inbox  bool
	member bool             // of the share, of which it is owed all that it gets
	loans  map[uint16]*debt // of the share, by packet identifier
	c      reader           // nil: absent
	subs   map[string]mqtt.QoS
	past   []map[string]mqtt.QoS // what subs may be after a power cut, the newest last
	asked  uint16                // packet identifier of the newest
	queue  []*debt               // in order
	pos    uint64                // the newest that was sent over this connection
	held   map[uint16]int        // QoS 2, received and not released: its number
	once   map[int]bool          // numbers delivered at QoS 2

	missed map[int]bool // numbers that a power cut has taken, and that were not published again

	puback, pubrec, pubcomp []uint16 // owed to the broker, of this connection

	// Since the broker was started:
	acked    []*debt
	lost     []loss
	ordinals map[string]int // of the next message of a topic
}

// reader is a client's connection, or an inbox.
type reader interface {
	take() []arrived
	send(packet []byte)
	ack(t packet.Type, id uint16)
	Close() error
}

type loss struct {
	*debt
	key lossKey
}

func newOwer(x *shadow, id string) *ower {
	o := &ower{x: x, id: id, subs: make(map[string]mqtt.QoS), missed: make(map[int]bool)}
	o.held, o.once, o.ordinals = make(map[uint16]int), make(map[int]bool), make(map[string]int)
	o.past, o.loans = []map[string]mqtt.QoS{o.subs}, make(map[uint16]*debt)
	return o
}

// wants returns at which QoS the session is owed a message.
func (o *ower) wants(what said) (q mqtt.QoS) {
	for filter, most := range o.subs {
		if mqtt.Match(filter, what.topic) {
			q = max(q, most)
		}
	}
	return min(q, what.qos)
}

// owe notes that the session is owed a message.
func (o *ower) owe(m *shadowMsg, q mqtt.QoS) {
	if q == mqtt.ExactlyOnce && o.had(m.n) {
		o.x.t.Errorf("%s is owed message %d twice at QoS 2", o.id, m.n)
	}
	o.queue = append(o.queue, &debt{m: m, qos: q, ordinal: o.ordinals[m.topic] % ordinals})
	o.ordinals[m.topic]++
}

// had reports whether the session was owed message n before, at QoS 2.
func (o *ower) had(n int) bool {
	is := func(d *debt) bool { return d.m.n == n && d.qos == mqtt.ExactlyOnce }
	return o.once[n] || slices.ContainsFunc(o.queue, is) || slices.ContainsFunc(o.acked, is) ||
		slices.ContainsFunc(o.lost, func(l loss) bool { return is(l.debt) })
}

func (o *ower) come() {
	o.pos = 0
	if o.inbox {
		o.c = o.openInbox()
		o.x.rest()
		return
	}
	exists := o.x.session(o.id) != nil
	c := o.x.call(kept(o.id))
	if c.present != exists {
		o.x.t.Errorf("%s: session present is %v", o.id, c.present)
	}
	o.c = c
	o.x.rest()
}

// leave ends the connection; what has come and was not looked at is lost.
func (o *ower) leave() {
	if o.x.rnd.IntN(2) == 0 && !o.inbox {
		o.c.send(packet.Disconnect{}.Append(nil))
	}
	o.drop()
}

func (o *ower) drop() {
	o.take()
	o.hangUp()
}

// hangUp ends the connection; what has come since take is lost.
func (o *ower) hangUp() {
	_ = o.c.Close()
	o.giveBack()
	o.c, o.pos = nil, 0
	o.puback, o.pubrec, o.pubcomp = nil, nil, nil
}

func (o *ower) subscribe(filter string, q mqtt.QoS) {
	o.subs = maps.Clone(o.subs)
	o.subs[filter] = q
	s := packet.Subscribe{ID: o.ask(), Subscriptions: []mqtt.Subscription{{Filter: filter, QoS: q}}}
	o.c.send(s.Append(nil))
	o.x.rest()
}

// ask notes that subs changes with a packet, whose identifier it returns.
func (o *ower) ask() uint16 {
	o.past = append(o.past, o.subs)
	o.asked++
	return o.asked
}

// unsubscribe ends a subscription, if there are several.
func (o *ower) unsubscribe() {
	if len(o.subs) < 2 {
		return
	}
	filters := slices.Sorted(maps.Keys(o.subs))
	filter := filters[o.x.rnd.IntN(len(filters))]
	o.subs = maps.Clone(o.subs)
	delete(o.subs, filter)
	u := packet.Unsubscribe{ID: o.ask(), Filters: []string{filter}}
	o.c.send(u.Append(nil))
	o.x.rest()
}

// serve takes what has come and acknowledges some of it, out of order.
func (o *ower) serve() {
	if o.c == nil {
		return
	}
	o.take()
	for n := o.x.rnd.IntN(8); n > 0; n-- {
		o.acknowledge(o.x.rnd.IntN)
	}
	o.x.rest()
}

// acknowledge does one of the things that are owed to the broker, of those that are
// left. It reports whether there was one.
func (o *ower) acknowledge(pick func(int) int) bool {
	n := len(o.puback) + len(o.pubrec) + len(o.pubcomp)
	if n == 0 {
		return false
	}
	i := pick(n)
	if i < len(o.puback) {
		id := o.puback[i]
		o.puback = slices.Delete(o.puback, i, i+1)
		if in, ok := o.c.(*insider); ok && o.x.rnd.IntN(4) == 0 {
			o.giveUp(in, id)
			return true
		}
		o.settle(id, false)
		o.c.ack(packet.TypePuback, id)
		return true
	}
	if i -= len(o.puback); i < len(o.pubrec) {
		id := o.pubrec[i]
		o.pubrec = slices.Delete(o.pubrec, i, i+1)
		if d := o.under(id); d != nil {
			d.released = true
		}
		o.c.ack(packet.TypePubrec, id)
		return true
	}
	i -= len(o.pubrec)
	id := o.pubcomp[i]
	o.pubcomp = slices.Delete(o.pubcomp, i, i+1)
	o.settle(id, true)
	o.c.ack(packet.TypePubcomp, id)
	return true
}

// under returns what was sent with the identifier.
func (o *ower) under(id uint16) *debt {
	for _, d := range o.queue {
		if d.id == id && d.m.seq <= o.pos {
			return d
		}
	}
	return nil
}

// settle takes what is acknowledged out of the queue.
func (o *ower) settle(id uint16, once bool) {
	if o.loans[id] != nil && !once {
		o.repay(id)
		return
	}
	d := o.under(id)
	if d == nil || once != (d.qos == mqtt.ExactlyOnce) && !o.inbox {
		o.x.t.Errorf("%s acknowledges %d, under which it was sent nothing", o.id, id)
		return
	}
	o.settled(d)
}

func (o *ower) settled(d *debt) {
	o.x.diary.note("%s is rid of %d", o.id, d.m.n)
	o.acked = append(o.acked, d)
	o.queue = slices.DeleteFunc(o.queue, func(other *debt) bool { return other == d })
}

// drain takes all that the session is owed.
func (o *ower) drain() {
	if o.c == nil {
		o.come()
	}
	for range 1000 {
		o.take()
		for o.acknowledge(func(n int) int { return 0 }) {
		}
		o.x.pass(2 * time.Millisecond) // PUBREL waits for the disk
		if o.x.check(false); len(o.queue)+len(o.loans) == 0 || o.x.t.Failed() {
			return
		}
	}
	o.x.t.Errorf("%s is still owed %d messages", o.id, len(o.queue))
}

// take handles what has come.
func (o *ower) take() {
	for _, f := range o.c.take() {
		switch f.Type() {
		case packet.TypeSuback, packet.TypeUnsuback:
			later := int(o.asked - (uint16(f.Body[0])<<8 | uint16(f.Body[1])))
			o.past = o.past[max(0, len(o.past)-1-later):] // what was asked for before is over
		case packet.TypePubrel:
			var a packet.Ack
			if err := a.Decode(f.Frame); err != nil {
				o.x.t.Fatal(err)
			}
			o.release(a.ID)
		case packet.TypePublish:
			var p packet.Publish
			if err := p.Decode(f.Frame); err != nil {
				o.x.t.Fatal(err)
			}
			if p.QoS != mqtt.AtMostOnce {
				o.deliver(&p, f.at)
			}
		default:
			o.x.t.Errorf("%s got %s", o.id, f.Type())
		}
	}
}

func (o *ower) release(id uint16) {
	delete(o.held, id)
	for _, d := range o.queue {
		if d.id == id && (d.released || d.unsure) { // after a new connection it comes without its PUBLISH
			d.released = true
			o.pos = max(o.pos, d.m.seq)
		}
	}
	if !slices.Contains(o.pubcomp, id) {
		o.pubcomp = append(o.pubcomp, id)
	}
}

// deliver takes a message, which has to be the next one.
func (o *ower) deliver(p *packet.Publish, at time.Time) {
	n := numberIn(p.Payload)
	o.x.diary.note("%s got %d as packet %d, DUP %v, at %v", o.id, n, p.ID, p.Dup, at)
	if o.member && p.QoS == mqtt.AtLeastOnce {
		o.borrow(p, at)
		return
	}
	d := o.next(n, at)
	switch {
	case d == nil:
		o.x.t.Errorf("%s got message %d at QoS %d behind place %d, which is not its turn", o.id, n, p.QoS, o.pos)
		return
	case string(p.Topic) != d.m.topic || string(p.Payload) != string(d.m.payload()) || p.QoS != d.qos:
		o.x.t.Errorf("%s got message %d on %s with %d bytes at QoS %d, want %+v at QoS %d", o.id, n, p.Topic, len(p.Payload), p.QoS, d.m.said, d.qos)
	case p.Dup != d.sent && !d.maybe && !o.inbox:
		o.x.t.Errorf("%s got message %d with DUP %v", o.id, n, p.Dup)
	case !d.sent && !d.maybe && !d.m.expires.IsZero() && at.After(d.m.expires):
		o.x.t.Errorf("%s got message %d, which has expired", o.id, n)
	case d.qos == mqtt.ExactlyOnce && d.sent && p.ID != d.id && !o.inbox:
		o.x.t.Errorf("%s got message %d as packet %d, it was %d [MQTT-4.4.0-1]", o.id, n, p.ID, d.id)
	}
	o.pos, d.sent, d.id = d.m.seq, true, p.ID
	if p.QoS == mqtt.AtLeastOnce || o.inbox {
		o.puback = append(o.puback, p.ID)
		return
	}
	if before, again := o.held[p.ID]; again && before != n {
		o.x.t.Errorf("%s got message %d with the identifier of %d, which is not released", o.id, n, before)
	} else if !again && o.once[n] {
		o.x.t.Errorf("%s got message %d twice at QoS 2", o.id, n)
	}
	o.held[p.ID], o.once[n] = n, true
	o.pubrec = append(o.pubrec, p.ID)
}

// next returns the debt that is to be sent next, if it has the number n.
func (o *ower) next(n int, at time.Time) *debt {
	for _, d := range o.queue {
		switch {
		case d.m.seq <= o.pos || d.released:
		case d.m.n == n && o.mayGo(d, at) == "":
			return d
		case d.m.n == n: // perhaps it is gone, and this is a copy that was published again
			if _, here := o.x.session(o.id).holds()[d.m.seq]; here {
				return d
			}
		case o.mayGo(d, at) == "" && !d.unsure:
			return nil
		}
	}
	return nil
}

// startAnew ends the session and begins another one, which is on the disk when it
// returns.
func (o *ower) startAnew() {
	o.x.count["new sessions"]++
	if o.c == nil {
		o.come()
	}
	if slices.ContainsFunc(o.queue, func(d *debt) bool { return d.unsure }) {
		o.drain()
	}
	o.drop()
	o.x.rest()
	o.compare(o.x.session(o.id))
	o.loseAll()
	subs := o.subs
	o.subs, o.ordinals = make(map[string]mqtt.QoS), make(map[string]int)
	o.queue, o.held, o.once = nil, make(map[uint16]int), make(map[int]bool)
	_ = o.x.call(clean(o.id)).Close()
	o.x.rest()
	o.come()
	for _, filter := range slices.Sorted(maps.Keys(subs)) {
		o.subscribe(filter, subs[filter])
	}
	o.x.pass(2 * time.Second)
	o.take()
	o.acked, o.lost = nil, nil
}

// loseAll notes what the session is owed when it ends. What the client has answered
// with PUBREC has arrived.
func (o *ower) loseAll() {
	key := lossKey{o.id, lossOther, lostEnded}
	if len(o.subs) == 1 {
		for key.filter = range o.subs {
		}
	}
	for _, d := range o.queue {
		if !d.released {
			o.x.losses[key]++
			o.x.count[lostEnded]++
		}
	}
}

// compare expects the session to hold exactly what the model has. What has expired
// may be in the ledger instead.
func (o *ower) compare(s *session) {
	holds := s.holds()
	o.x.diary.note("%s holds %v", o.id, slices.Sorted(maps.Keys(holds)))
	now := time.Now()
	var over []*debt
	others := false
	o.queue = slices.DeleteFunc(o.queue, func(d *debt) bool {
		reason := o.mayGo(d, now)
		if _, here := holds[d.m.seq]; here || reason == "" {
			return false
		}
		if reason == o.x.overflows() {
			over = append(over, d)
		}
		others = others || reason != o.x.overflows()
		o.lose(d, reason)
		return true
	})
	if o.checkBounds(s); len(over) > 0 {
		o.checkPolicy(s, over, others)
	}
	want := make(map[uint64]bool)
	for _, d := range o.queue {
		want[d.m.seq] = true
		if _, here := holds[d.m.seq]; !here {
			o.x.t.Errorf("%s is not owed message %d at place %d any more", o.id, d.m.n, d.m.seq)
		}
	}
	for seq := range holds {
		if !want[seq] {
			o.x.t.Errorf("%s is owed what is at place %d, and should not be", o.id, seq)
		}
	}
	if s.owed.Load() != int64(len(holds)) {
		o.x.t.Errorf("%s is owed %d messages, and holds %d", o.id, s.owed.Load(), len(holds))
	}
}

func (o *ower) lose(d *debt, reason string) {
	key := lossKey{o.id, lossOther, o.x.reason(reason)}
	for filter := range o.subs {
		if mqtt.Match(unshared(filter), d.m.topic) && (key.filter == lossOther || filter < key.filter) {
			key.filter = filter
		}
	}
	o.x.losses[key]++
	o.x.count[reason]++
	o.lost = append(o.lost, loss{d, key})
}

// holds returns the places of all that the session is owed, while the broker
// rests.
func (s *session) holds() map[uint64]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	holds := make(map[uint64]struct{})
	for i := range s.window.len() {
		if sl := s.window.slots.at(i); sl.seq > 0 {
			holds[sl.seq] = struct{}{}
		}
	}
	for i := range s.ram.len() {
		holds[s.ram.at(i).seq] = struct{}{}
	}
	if !s.behind {
		return holds
	}
	_ = s.b.commit.store.Read(s.queue, s.loaded, s.b.commit.store.LastSeq(), func(seq uint64, tag uint32, _ []byte) bool {
		if !s.isDone(seq) && s.cuts.keep(seq, itemFromTag(tag).ordinal) {
			holds[seq] = struct{}{}
		}
		return true
	})
	s.b.commit.eachOwed(s, func(r *record, _ *owner) bool {
		if r.seq > s.loaded {
			holds[r.seq] = struct{}{}
		}
		return true
	})
	return holds
}
