package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tidegate/broker/auth"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// sessionTable is where the store keeps durable sessions: client identifier to
// version, queue number, place in the journal where the queue begins, seconds to
// live without a connection, user name, and subscriptions. The key of an inbox has a zero byte in front, which no client
// identifier can have.
const sessionTable = "sessions"

const (
	sessionVersion = 1
	sessionHead    = 19 // bytes before the user name
)

var errDamaged = errors.New("it is damaged")

func inboxKey(name string) string { return "\x00" + name }

// open returns the session for a client that connects, and whether the client
// had left it behind (MQTT 3.1.1, section 3.1.2.4). The session belongs to c until
// detach.
func (b *Broker) open(t *turn, c *conn, id string, clean bool, expiry uint32) (s *session, present bool, err error) {
	if err := b.lockFree(t, id); err != nil {
		return nil, false, err
	}
	var last *session // the one that ends now, and with it the delay of its will
	defer func() {
		b.mu.Unlock()
		if last != nil {
			b.publishWill(t, last)
		}
	}()
	if old := b.sessions[id]; old != nil && !clean && old.isFor(c.client.identity()) {
		b.resume(t, old, c, expiry)
		old.save(t.now+lazy, nil)
		return old, true, nil
	} else if old != nil {
		b.forget(t, old, lostEnded)
		last = old
	}
	if len(b.sessions) >= b.cfg.Limits.MaxSessions {
		return nil, false, errTooMany
	}
	if !b.memory.room(forSessions) {
		return nil, false, errNoMemory
	}
	s = b.newSession(id, expiry > 0)
	b.resume(t, s, c, expiry)
	if s.durable() {
		s.save(t.now+lazy, nil)
	}
	return s, false, nil
}

// resume gives the session to c, which is back before the session expired and
// before its will was due [MQTT-3.1.3-9]. The caller holds mu.
func (b *Broker) resume(t *turn, s *session, c *conn, expiry uint32) {
	b.alarms.drop(alarmKey{s, sessionExpires})
	s.user = c
	if s.takeWill() != nil {
		s.eraseWill(t)
	}
	s.identify(c.client.identity())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expiry = expiry
}

// lockFree locks mu once nobody uses the session of id. Whoever does is made to
// go first, and has ended when lockFree returns [MQTT-3.1.4-2]: what the two
// clients do to the session never mixes.
func (b *Broker) lockFree(t *turn, id string) error {
	for {
		b.mu.Lock()
		s := b.sessions[id]
		if s == nil || s.user == nil {
			return nil
		}
		user := s.user
		b.mu.Unlock()
		user.end(errTakenOver)
		t.end()
		select {
		case <-user.left:
			t.begin()
		case <-t.done:
			return mqtt.ErrClosed
		}
	}
}

// openInbox returns the session of an inbox.
func (b *Broker) openInbox(name string) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := inboxKey(name)
	s := b.sessions[key]
	if s == nil {
		return b.newSession(key, true)
	}
	s.claim(true)
	return s
}

// newSession makes a session. The caller holds mu.
func (b *Broker) newSession(key string, durable bool) *session {
	s := &session{b: b, id: key, inbox: key[0] == 0, bounds: b.cfg.Queue.Limits()}
	b.sessions[key] = s
	b.memory.add(forSessions, sessionCost+len(key))
	if durable {
		b.giveQueue(s)
	}
	return s
}

// giveQueue makes s durable. The caller holds mu.
func (b *Broker) giveQueue(s *session) {
	b.nextQueue++
	s.queue = b.nextQueue
	b.queues[s.queue] = s
	s.begin(b.commit.lastSeq())
}

// begin makes the queue of a durable session begin behind from.
func (s *session) begin(from uint64) {
	s.from, s.loaded, s.tail, s.behind, s.sized = from, from, from, true, true
	s.sweepAt = never
}

// detach takes a connection off its session, which ends with it or as much later
// as it is to be kept. will, if not nil, is published with the end of the session
// or when it has been held back for as long as the client wanted, whichever is
// first [MQTT-3.1.2-8].
func (b *Broker) detach(t *turn, s *session, c *conn, will *packet.Will) {
	keep := time.Duration(s.detach(t, c)) * time.Second
	delay := min(willDelayOf(will), int64(keep))
	b.mu.Lock()
	s.user = nil
	if keep == 0 {
		b.forget(t, s, lostEnded)
	} else {
		s.keepReceipts(t.now + lazy)
		b.alarms.put(alarmKey{s, sessionExpires}, t.now+int64(keep), func(t *turn) { b.expire(t, s) })
	}
	if delay > 0 {
		s.holdBack(t, will, delay)
	}
	b.mu.Unlock()
	if delay == 0 && will != nil { // nobody who comes back can stop it
		b.leaveWill(t, s, will)
	}
}

// expire ends a session that stayed away for too long.
func (b *Broker) expire(t *turn, s *session) {
	b.mu.Lock()
	expired := s.user == nil && b.sessions[s.id] == s
	if expired {
		b.forget(t, s, lostAway)
	}
	b.mu.Unlock()
	if expired {
		b.log.Info("session expired", "client", s.id)
		b.publishWill(t, s)
	}
}

// leaveWill publishes the will w of a client of s, if it still may.
func (b *Broker) leaveWill(t *turn, s *session, w *packet.Will) {
	if !s.mayLeave(w) {
		return
	}
	p := publication{topic: []byte(w.Topic), payload: w.Payload, props: w.Properties, qos: w.QoS, retain: w.Retain, from: s, will: true}
	if err := b.route(t, &p); err != nil {
		b.log.Error("cannot publish a will", "client", s.id, "topic", w.Topic, "error", err)
	}
}

// forget ends a session for good. What it is still owed is lost for reason. The
// caller holds mu.
func (b *Broker) forget(t *turn, s *session, reason string) {
	b.alarms.drop(alarmKey{s, sessionExpires})
	b.alarms.drop(alarmKey{s, willIsDue})
	delete(b.sessions, s.id)
	b.memory.add(forSessions, -sessionCost-len(s.id))
	if s.durable() {
		delete(b.queues, s.queue)
	}
	s.finish(t, reason)
	b.leaveShares(t, s)
}

// restore takes over what the store holds.
func (b *Broker) restore() error {
	if err := b.restoreLosses(); err != nil {
		return err
	}
	damaged, err := b.restoreRows()
	if err != nil {
		return err
	}
	for _, q := range b.commit.store.Queues() {
		b.nextQueue = max(b.nextQueue, q.ID)
		b.commit.notBefore(q.Acked)
		if s := b.queues[q.ID]; s != nil {
			s.restore(q)
			b.commit.notBefore(s.newest())
		} else {
			b.orphan(q, damaged)
		}
	}
	b.restoreMembers()
	if b.commit.store.Stats().TailLost {
		b.loseTail()
	}
	if err := b.commit.store.Marks(func(key, _ []byte) error { return b.restoreReceipt(key) }); err != nil {
		return err
	}
	if err := b.restoreWills(); err != nil {
		return err
	}
	return b.loadRetained()
}

// restoreRows takes over sessions and shares. Those whose rows are lost may be in
// their mirror. damaged says that some may be in neither.
func (b *Broker) restoreRows() (damaged bool, err error) {
	before, skipped := b.commit.store.Stats(), 0
	if err := b.restoreShares(); err != nil {
		return false, err
	}
	err = b.commit.store.Rows(sessionTable, func(key, value []byte) error {
		if err := b.restoreSession(string(key), value); err != nil {
			skipped++
			b.log.Error("skipped a session in the store", "session", string(key), "error", err)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	now := b.commit.store.Stats()
	err = b.restoreMirror(now.StateLost || now.StateRebuilt > 0 || now.CorruptRows > before.CorruptRows || skipped > 0)
	return skipped > 0 || b.damagedRows(), err
}

// damagedRows reports whether the store has found damage that may have cost rows.
func (b *Broker) damagedRows() bool {
	st := b.commit.store.Stats()
	return st.CorruptRows+st.FilesQuarantined+st.FilesMissing > 0 || st.Unrepaired
}

// orphan ends a queue that belongs to no session: its session's row is damaged,
// or a crash came between the end of the session and its own.
func (b *Broker) orphan(q store.Queue, damaged bool) {
	if damaged && q.Pending > 0 {
		b.enterLoss(lossKey{lossOther, lossOther, lostDamaged}, q.Pending, 0)
	}
	b.commit.orphans = append(b.commit.orphans, q.ID)
	b.commit.due, b.commit.rowsDue = lazy, lazy
}

func (b *Broker) restoreSession(key string, row []byte) error {
	if len(key) == 0 || len(row) < sessionHead || row[0] != sessionVersion {
		return errDamaged
	}
	s := &session{b: b, id: key, inbox: key[0] == 0, queue: binary.BigEndian.Uint32(row[1:]), bounds: b.cfg.Queue.Limits()}
	if s.inbox {
		s.bounds = b.withDefaults(mqtt.QueueLimits{MaxDisk: int64(b.cfg.Queue.MaxDisk)}) // until somebody opens it, who knows
	}
	s.begin(binary.BigEndian.Uint64(row[5:]))
	b.commit.notBefore(s.from)
	s.expiry = binary.BigEndian.Uint32(row[13:])
	userEnd := sessionHead + int(binary.BigEndian.Uint16(row[sessionHead-2:]))
	if userEnd > len(row) {
		return errDamaged
	}
	s.identity = auth.Identity{User: string(row[sessionHead:userEnd]), ClientID: key}
	subs, err := parseSubs(row[userEnd:])
	if err != nil {
		return err
	}
	s.subs, s.unclaimed = subs, s.inbox && len(subs) == 0
	for _, sub := range subs {
		s.identified = s.identified || sub.ID != 0
	}
	b.sessions[key], b.queues[s.queue] = s, s
	b.memory.add(forSessions, sessionCost+len(key))
	if !s.inbox { // how long it was away before is not known: the clock may have jumped
		b.alarms.put(alarmKey{s, sessionExpires}, int64(s.expiry)*int64(time.Second), func(t *turn) { b.expire(t, s) })
	}
	b.nextQueue = max(b.nextQueue, s.queue)
	for _, sub := range subs {
		b.subscribe(s, sub, false)
	}
	return nil
}

func (s *session) rowKey() []byte { return []byte(s.id) }

// erased returns the row that removes what the store keeps.
func (s *session) erased() store.Row {
	if s.share != nil {
		return store.Row{Table: shareTable, Key: s.share.rowKey()}
	}
	return store.Row{Table: sessionTable, Key: s.rowKey()}
}

// row returns what sessionTable keeps. The caller holds mu.
func (s *session) row() store.Row {
	v := []byte{sessionVersion}
	v = binary.BigEndian.AppendUint32(v, s.queue)
	v = binary.BigEndian.AppendUint64(v, s.from)
	v = binary.BigEndian.AppendUint32(v, s.expiry)
	v = binary.BigEndian.AppendUint16(v, uint16(len(s.identity.User)))
	v = append(v, s.identity.User...)
	for _, filter := range slices.Sorted(maps.Keys(s.subs)) {
		v = appendSub(v, s.subs[filter])
	}
	return store.Row{Table: sessionTable, Key: s.rowKey(), Value: v}
}

// appendSub appends a subscription: the length of its filter in two bytes, the
// filter, its options as in a SUBSCRIBE of MQTT 5 (section 3.8.3.1), and its
// identifier in four bytes.
func appendSub(dst []byte, sub mqtt.Subscription) []byte {
	options := byte(sub.QoS) | sub.RetainHandling<<4
	if sub.NoLocal {
		options |= 1 << 2
	}
	if sub.RetainAsPublished {
		options |= 1 << 3
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(sub.Filter)))
	dst = append(dst, sub.Filter...)
	dst = append(dst, options)
	return binary.BigEndian.AppendUint32(dst, sub.ID)
}

func parseSubs(b []byte) (map[string]mqtt.Subscription, error) {
	subs := make(map[string]mqtt.Subscription)
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 7+int(binary.BigEndian.Uint16(b)) {
			return nil, errDamaged
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		sub := parseSub(string(b[2:n]), b[n], binary.BigEndian.Uint32(b[n+1:]))
		if err := mqtt.ValidFilter(sub.Filter); err != nil || !sub.QoS.Valid() {
			return nil, fmt.Errorf("subscription %q at QoS %d: %w", sub.Filter, sub.QoS, errDamaged)
		}
		subs[sub.Filter] = sub
		b = b[n+5:]
	}
	return subs, nil
}

func parseSub(filter string, options byte, id uint32) mqtt.Subscription {
	return mqtt.Subscription{
		Filter: filter, QoS: mqtt.QoS(options & 3), ID: id,
		NoLocal: options&(1<<2) != 0, RetainAsPublished: options&(1<<3) != 0, RetainHandling: options >> 4 & 3,
	}
}
