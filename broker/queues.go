package broker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tidegate/mqtt"
	"tidegate/store"
)

// QueueStatus is what stands in the queue of one durable session or shared
// subscription.
type QueueStatus struct {
	ID        uint32        `json:"id"`   // in the store
	Name      string        `json:"name"` // client id, name of an inbox, or filter of a shared subscription
	Kind      string        `json:"kind"` // client, share, or of an inbox the first level of its name: bridge
	Connected bool          `json:"connected"`
	Unclaimed bool          `json:"unclaimed,omitempty"` // of a bridge that is not configured any more: it collects nothing
	Messages  int64         `json:"messages"`            // not acknowledged
	OnDisk    uint64        `json:"on_disk"`             // those of them that are written
	DiskBytes int64         `json:"disk_bytes"`          // that all of them take on the disk, about
	Oldest    time.Duration `json:"-"`                   // how long ago the first of them was published; -1: not known, or there is none
	Losses    []Loss        `json:"losses"`              // rows of the ledger
}

// Lost is how many messages the queue has lost.
func (q *QueueStatus) Lost() (n uint64) {
	for _, l := range q.Losses {
		n += l.Count
	}
	return n
}

// ErrNoQueue means that no durable session has the name.
var ErrNoQueue = errors.New("there is no such queue")

// Queues returns what stands in the queues, the longest first. It reads the first
// message of each, so it takes longer than [Broker.Sessions]. Like
// [Broker.QueueMessages] it may be called without Serve, also on a store that is
// open for reading only.
func (b *Broker) Queues() []QueueStatus {
	lost := make(map[string][]Loss)
	for _, l := range b.Losses() {
		lost[l.Session] = append(lost[l.Session], l)
	}
	sessions := b.durable()
	list := make([]QueueStatus, 0, len(sessions))
	for _, s := range sessions {
		st := s.status()
		list = append(list, QueueStatus{
			ID: s.queue, Name: st.ID, Kind: s.kind(), Connected: st.Connected, Unclaimed: st.Unclaimed, Messages: st.Queued,
			OnDisk: st.OnDisk, DiskBytes: st.QueuedBytes, Oldest: s.oldest(), Losses: lost[st.ID],
		})
	}
	slices.SortFunc(list, func(x, y QueueStatus) int {
		return cmp.Or(cmp.Compare(y.Messages, x.Messages), cmp.Compare(x.Name, y.Name))
	})
	return list
}

// durable returns the sessions and shares that have a queue.
func (b *Broker) durable() []*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]*session, 0, len(b.queues))
	for _, s := range b.queues {
		list = append(list, s)
	}
	return list
}

func (s *session) kind() string {
	switch {
	case s.share != nil:
		return "share"
	case s.inbox:
		kind, _, _ := strings.Cut(s.name(), "/")
		return kind
	}
	return "client"
}

// oldest returns the age of the first message that is owed.
func (s *session) oldest() time.Duration {
	age := time.Duration(-1)
	if s.owed.Load() == 0 {
		return age
	}
	_ = s.eachQueued(0, func(d mqtt.Delivery) bool { // what cannot be read has no age
		if !d.At.IsZero() {
			age = max(0, s.b.lineAt(s.b.now()).Sub(d.At))
		}
		return false
	})
	return age
}

// QueueMessages calls fn for the messages behind the place after that the queue
// called name holds, in order, until fn returns false. A bridge's queue comes
// before that of a client of the same name. What is acknowledged or published
// meanwhile may be there or not. The error is ErrNoQueue, or says what could not
// be read; then everything else was there.
func (b *Broker) QueueMessages(name string, after uint64, fn func(mqtt.Delivery) bool) error {
	s := b.queueNamed(name)
	if s == nil {
		return fmt.Errorf("%q: %w", name, ErrNoQueue)
	}
	return s.eachQueued(after, fn)
}

func (b *Broker) queueNamed(name string) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[inboxKey(name)]; s != nil {
		return s
	}
	if g := b.shares[name]; g != nil {
		return g.s
	}
	if s := b.sessions[name]; s != nil && s.durable() {
		return s
	}
	return nil
}

// eachQueued calls fn, without a lock, for what the session is owed: what is on
// disk, then what is still on its way there.
func (s *session) eachQueued(after uint64, fn func(mqtt.Delivery) bool) error {
	from, done := s.outstanding()
	after = max(after, from)
	var damage error
	for {
		upTo := s.b.commit.committedSeq()
		last, more, err := s.eachStored(after, upTo, done, fn)
		if after = last; err != nil {
			if !goesOn(damage, err) {
				return errors.Join(damage, err)
			}
			damage = errors.Join(damage, err)
			continue
		}
		if rest, current := s.unwritten(after, upTo, done); current || !more {
			for i := 0; more && i < len(rest); i++ {
				now := s.b.now()
				more = fn(s.b.deliveryOf(&rest[i], string(rest[i].body.topic()), now, s.b.lineAt(now)))
			}
			return damage
		}
	}
}

// goesOn reports whether there may be more to read behind the damage err: of the
// newest segment it is met again.
func goesOn(before, err error) bool {
	var damage *store.CorruptError
	return errors.As(err, &damage) && (before == nil || !strings.Contains(before.Error(), err.Error()))
}

// unwritten returns what is owed and not on disk. current is false if the journal
// has grown beyond upTo.
func (s *session) unwritten(after, upTo uint64, done func(*item) bool) (list []item, current bool) {
	current = s.b.commit.eachOwed(s, func(r *record, o *owner) bool {
		it := itemFromTag(o.tag)
		it.body, it.seq = r.body, r.seq
		if r.seq > after && !done(&it) {
			list = append(list, it)
		}
		return true
	}, upTo)
	return list, current
}

// outstanding returns the place behind which messages are owed, and which of those
// behind it are not, as of now.
func (s *session) outstanding() (from uint64, done func(*item) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cut := slices.Clone(s.cuts)
	beyond := slices.Clone(s.beyond)
	if s.share == nil {
		return s.cursor(), func(it *item) bool { return inAny(beyond, it.seq) || !cut.keep(it.seq, it.ordinal) }
	}
	out := make(map[uint64]bool) // with a member, or to be passed on again
	for i := range s.window.len() {
		out[s.window.slots.at(i).seq] = true
	}
	from, drawn := s.cursor(), s.share.drawn
	for seq := range s.share.again {
		out[seq] = true
		from = min(from, seq-1)
	}
	return from, func(it *item) bool {
		return it.seq <= drawn && !out[it.seq] || !out[it.seq] && !cut.keep(it.seq, it.ordinal)
	}
}

// eachStored calls fn for what is on disk up to upTo. It returns the place of the
// last one, and whether fn wants more.
func (s *session) eachStored(after, upTo uint64, done func(*item) bool, fn func(mqtt.Delivery) bool) (last uint64, more bool, err error) {
	more = true
	now := s.b.now()
	line := s.b.lineAt(now)
	err = s.b.commit.store.Read(s.queue, after, upTo, func(seq uint64, tag uint32, data []byte) bool {
		after = seq
		it := itemFromTag(tag)
		it.seq = seq
		if !validQoS(it.qos) || done(&it) {
			return true
		}
		var err error
		if it.body, err = parseBody(data, now, line); err != nil {
			return true // whoever it is sent to says so
		}
		more = fn(s.b.deliveryOf(&it, string(it.body.topic()), now, line))
		return more
	})
	return after, more, err
}

// deliveryOf is the message as those inside the process know it, at broker time now,
// when [Options.Line] says line. topic is that of the message.
func (b *Broker) deliveryOf(it *item, topic string, now int64, line time.Time) mqtt.Delivery {
	m := mqtt.Message{Topic: topic, Payload: it.body.payload(), QoS: it.qos, Retain: it.retain}
	it.body.describe(&m, now)
	d := mqtt.Delivery{Seq: it.seq, Relayed: it.relay, Message: m}
	if it.body.at != 0 {
		d.At = line.Add(time.Duration(it.body.at - now))
	}
	return d
}
