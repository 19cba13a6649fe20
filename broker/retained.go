package broker

import (
	"errors"
	"sync"
	"sync/atomic"

	"tidegate/mqtt"
	"tidegate/store"
)

// maxRetainedTopic is the longest topic that the store can keep, in bytes.
const maxRetainedTopic = 32 << 10

// retainedTable is where the store keeps retained messages: topic to version,
// QoS and body.
const retainedTable = "retained"

const retainedVersion = 1

// retained holds the last retained message of each topic (MQTT 3.1.1, section
// 3.3.1.3).
type retained struct {
	changes atomic.Uint64 // how often list has changed; written with mu held

	mu     sync.RWMutex
	list   map[string]retainedMessage
	bytes  int
	full   bool  // said so, and it has not changed since
	sweep  int64 // broker time before which expired messages are not looked for again
	limits Limits
	memory *budget // nil: it is not the clients' affair
}

type retainedMessage struct {
	body body
	qos  mqtt.QoS
}

// set stores, replaces or, if the payload is empty, removes the message of a
// topic. It reports whether anything has changed, and false for ok if there is
// no room for it. The caller holds mu.
func (r *retained) set(m retainedMessage) (changed, ok bool) {
	old, had := r.list[string(m.body.topic())]
	if len(m.body.payload()) == 0 {
		if had {
			delete(r.list, string(m.body.topic()))
			r.grow(-1, -old.body.size())
			r.full = false
			r.changes.Add(1)
		}
		return had, true
	}
	bytes := r.bytes - old.body.size() + m.body.size()
	if len(m.body.topic()) > maxRetainedTopic || bytes > int(r.limits.MaxRetainedSize) || !had && (len(r.list) >= r.limits.MaxRetained || !r.room()) {
		return false, false
	}
	more := 0
	if !had {
		more = 1
	}
	r.grow(more, bytes-r.bytes)
	r.list[string(m.body.topic())] = m
	r.changes.Add(1)
	return true, true
}

// room reports whether memory_limit leaves room for one more.
func (r *retained) room() bool { return r.memory == nil || r.memory.room(forRetained) }

// grow notes that there are so many messages and bytes more.
func (r *retained) grow(messages, bytes int) {
	r.bytes += bytes
	if r.memory != nil {
		r.memory.add(forRetained, messages*retainedCost+bytes)
	}
}

// match returns the messages that filter matches.
func (r *retained) match(filter string, now int64) []retainedMessage {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found []retainedMessage
	if m, ok := r.list[filter]; ok {
		if !m.body.expired(now) {
			found = append(found, m)
		}
		return found
	}
	if filter == "#" {
		found = make([]retainedMessage, 0, len(r.list))
	}
	for topic, m := range r.list {
		if mqtt.Match(filter, topic) && !m.body.expired(now) {
			found = append(found, m)
		}
	}
	return found
}

func (r *retained) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.list)
}

// has reports whether b is what is retained for its topic now.
func (r *retained) has(b *body) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, ok := r.list[string(b.topic())]
	return ok && &m.body.buf[0] == &b.buf[0]
}

// retainedState counts the changes of all that is retained.
func (b *Broker) retainedState() uint64 {
	return b.retained.changes.Load() + b.sysRetained.changes.Load()
}

// isRetained reports whether r is what is retained for its topic now.
func (b *Broker) isRetained(r *replay) bool {
	return r.state == b.retainedState() || b.retained.has(&r.body) || b.sysRetained.has(&r.body)
}

// errRetained is for a publisher that can be told about it.
var errRetained = errors.New("no room for another retained message: it was neither kept nor delivered")

// keepRetained keeps the message of p for later subscribers. Who waits for a QoS
// 1 or 2 message is told once that is on disk. Without room for it, a publisher
// that can be told is refused the message; that of any other is only delivered.
func (b *Broker) keepRetained(t *turn, p *publication, kept body) error {
	if b.keepSys(p, kept) {
		return nil
	}
	ok, first := b.storeRetained(t, p, kept)
	if !ok {
		b.stats.retainedRefused.Add(1)
		b.stats.refusals.count(becauseRetained)
	}
	if first {
		b.log.Warn("no room for another retained message; it was not kept", "topic", string(p.topic[:min(len(p.topic), 100)]),
			"max_retained", b.cfg.Limits.MaxRetained, "max_retained_size", b.cfg.Limits.MaxRetainedSize)
	}
	if !ok && p.tellable() {
		return errRetained
	}
	return nil
}

// storeRetained does so. It reports whether there is room for the message, and
// whether it is the first for which there is not. One lock stands over memory
// and disk, so that both get the same last message.
func (b *Broker) storeRetained(t *turn, p *publication, kept body) (ok, first bool) {
	r := &b.retained
	r.mu.Lock()
	defer r.mu.Unlock()
	changed, ok := r.set(retainedMessage{kept, p.qos})
	if !ok && b.dropExpired(t) {
		changed, ok = r.set(retainedMessage{kept, p.qos})
	}
	if !ok {
		first, r.full = !r.full, true
	}
	if !changed {
		return ok, first
	}
	row := store.Row{Table: retainedTable, Key: kept.topic()}
	if len(kept.payload()) > 0 {
		row.Value = kept.appendStored([]byte{retainedVersion, byte(p.qos)}, t.now, b.line())
	}
	if p.qos == mqtt.AtMostOnce || p.unconfirmed() {
		b.commit.put(row, t.now+lazy, nil)
	} else {
		b.commit.put(row, b.commit.soon(t.now), p.waiter.also().stored)
	}
	return ok, first
}

// dropExpired removes what has expired, at most once in a while, and reports
// whether there was any. The caller holds retained.mu.
func (b *Broker) dropExpired(t *turn) (some bool) {
	r := &b.retained
	if t.now < r.sweep {
		return false
	}
	r.sweep = t.now + lazy
	for topic, m := range r.list {
		if m.body.expired(t.now) {
			delete(r.list, topic)
			r.grow(-1, -m.body.size())
			b.commit.put(store.Row{Table: retainedTable, Key: []byte(topic)}, t.now+lazy, nil)
			some = true
		}
	}
	return some
}

// sendRetained sends a new subscription the messages it matches.
func (b *Broker) sendRetained(t *turn, s *session, sub mqtt.Subscription) {
	var ids []uint32
	if sub.ID != 0 {
		ids = []uint32{sub.ID} // [MQTT-3.3.4-3]
	}
	state := b.retainedState()
	found := b.retained.match(sub.Filter, t.now)
	if sub.Filter[0] == '$' {
		found = append(found, b.sysRetained.match(sub.Filter, t.now)...)
	}
	offered := found[:0]
	for _, m := range found {
		m.qos = min(m.qos, sub.QoS)
		if m.body.at != 0 {
			m.body.at = max(t.now, 1) // it is owed from now on
		}
		it := item{claim: claim{qos: m.qos}, body: m.body, retain: true, ids: ids}
		switch {
		case !s.mayRead(string(m.body.topic())):
		case m.qos != mqtt.AtMostOnce && s.refuses.Load():
			s.turnAway(&it)
		case m.qos != mqtt.AtMostOnce && s.durable():
			b.oweOne(t, s, it)
		default:
			offered = append(offered, m)
		}
	}
	s.offerRetained(t, offered, ids, state)
}

// oweOne owes one durable session a message that others have got before.
func (b *Broker) oweOne(t *turn, s *session, it item) {
	b.commit.order.Lock()
	defer b.commit.order.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oweLocked(t, it)
}

// oweLocked is oweOne. The caller holds committer.order and mu.
func (s *session) oweLocked(t *turn, it item) {
	c := s.b.commit
	rec := c.begin(it.body)
	if rec.must = it.qos == mqtt.ExactlyOnce; rec.must {
		it.gate = rec
	}
	s.offerLocked(t, it, rec, false)
	c.settle(t, rec, waiter{})
}

// offerRetained queues retained messages that are not owed durably. The list
// holds no copies, and the session takes from it as its window and its connection
// allow.
func (s *session) offerRetained(t *turn, list []retainedMessage, ids []uint32, state uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.link == nil {
		return
	}
	s.replay.grow(len(list))
	for _, m := range list {
		s.replay.push(replay{m.body, m.qos, ids, state})
	}
	if s.replay.len() > 2*s.b.retained.count()+100 {
		s.thinReplay()
	}
	s.tally()
	s.pump(t)
}

// thinReplay keeps the newest message of each topic: a client that subscribes
// again and again and does not read must not pile them up. The caller holds mu.
func (s *session) thinReplay() {
	newest := make(map[string]int)
	for i := range s.replay.len() {
		newest[string(s.replay.at(i).body.topic())] = i
	}
	var kept queue[replay]
	for i := range s.replay.len() {
		if r := *s.replay.at(i); newest[string(r.body.topic())] == i {
			kept.push(r)
		}
	}
	s.replay = kept
}

// loadRetained takes over what the store keeps.
func (b *Broker) loadRetained() error {
	return b.commit.store.Rows(retainedTable, func(key, value []byte) error {
		var kept body
		err := errBody
		if len(value) > 2 && value[0] == retainedVersion && value[1] <= byte(mqtt.ExactlyOnce) {
			kept, err = parseBody(value[2:], b.now(), b.line())
		}
		if err != nil {
			b.log.Error("skipped a retained message in the store that makes no sense", "topic", string(key))
			return nil
		}
		b.retained.set(retainedMessage{kept, mqtt.QoS(value[1])})
		return nil
	})
}
