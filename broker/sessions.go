package broker

import (
	"encoding/binary"
	"errors"
	"fmt"

	"tidegate/mqtt"
	"tidegate/store"
)

// sessionTable is where the store keeps durable sessions: client identifier to
// version, queue number, place in the journal where the queue begins, and
// subscriptions. The key of an inbox has a zero byte in front, which no client
// identifier can have.
const sessionTable = "sessions"

const sessionVersion = 1

var errDamaged = errors.New("it is damaged")

func inboxKey(name string) string { return "\x00" + name }

// open returns the session for a client that connects, and whether the client
// had left it behind (MQTT 3.1.1, section 3.1.2.4). The session belongs to c until
// detach.
func (b *Broker) open(t *turn, c *conn, id string, clean bool) (s *session, present bool, err error) {
	if err := b.lockFree(t, id); err != nil {
		return nil, false, err
	}
	defer b.mu.Unlock()
	if old := b.sessions[id]; old != nil && !clean {
		old.user = c
		return old, true, nil
	} else if old != nil {
		b.forget(t, old)
	}
	if len(b.sessions) >= b.cfg.Limits.MaxSessions {
		return nil, false, errTooMany
	}
	s = b.newSession(id, !clean)
	s.user = c
	if !clean {
		s.save(t.now+lazy, nil)
	}
	return s, false, nil
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
	if s := b.sessions[key]; s != nil {
		return s
	}
	return b.newSession(key, true)
}

// newSession makes a session. The caller holds mu.
func (b *Broker) newSession(key string, durable bool) *session {
	s := &session{b: b, id: key, inbox: key[0] == 0}
	b.sessions[key] = s
	if durable {
		b.nextQueue++
		s.queue = b.nextQueue
		b.queues[s.queue] = s
		s.begin(b.commit.lastSeq())
	}
	return s
}

// begin makes the queue of a durable session begin behind from.
func (s *session) begin(from uint64) {
	s.from, s.loaded, s.tail, s.behind = from, from, from, true
}

// detach takes a connection off its session, which ends with it if it is not
// durable.
func (b *Broker) detach(t *turn, s *session, c *conn) {
	s.detach(t, c)
	b.mu.Lock()
	defer b.mu.Unlock()
	s.user = nil
	if !s.durable() {
		b.forget(t, s)
	}
}

// forget ends a session for good. The caller holds mu.
func (b *Broker) forget(t *turn, s *session) {
	delete(b.sessions, s.id)
	if s.durable() {
		delete(b.queues, s.queue)
	}
	s.finish(t)
}

// restore takes over what the store holds.
func (b *Broker) restore() error {
	err := b.commit.store.Rows(sessionTable, func(key, value []byte) error {
		if err := b.restoreSession(string(key), value); err != nil {
			b.log.Error("skipped a session in the store", "session", string(key), "error", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, q := range b.commit.store.Queues() {
		b.nextQueue = max(b.nextQueue, q.ID)
		b.commit.notBefore(q.Acked)
		if s := b.queues[q.ID]; s != nil {
			s.restore(q)
		} else { // a crash came between the end of its session and its own
			b.commit.orphans = append(b.commit.orphans, q.ID)
			b.commit.due, b.commit.rowsDue = lazy, lazy
		}
	}
	if err := b.commit.store.Marks(func(key, _ []byte) error { return b.restoreReceipt(key) }); err != nil {
		return err
	}
	return b.loadRetained()
}

func (b *Broker) restoreSession(key string, row []byte) error {
	if len(key) == 0 || len(row) < 13 || row[0] != sessionVersion {
		return errDamaged
	}
	s := &session{b: b, id: key, inbox: key[0] == 0, queue: binary.BigEndian.Uint32(row[1:])}
	s.begin(binary.BigEndian.Uint64(row[5:]))
	b.commit.notBefore(s.from)
	subs, err := parseSubs(row[13:])
	if err != nil {
		return err
	}
	s.subs = subs
	b.sessions[key], b.queues[s.queue] = s, s
	b.nextQueue = max(b.nextQueue, s.queue)
	for filter, q := range subs {
		b.trie.subscribe(s, filter, q)
	}
	return nil
}

func (s *session) rowKey() []byte { return []byte(s.id) }

// row returns what sessionTable keeps. The caller holds mu.
func (s *session) row() store.Row {
	v := []byte{sessionVersion}
	v = binary.BigEndian.AppendUint32(v, s.queue)
	v = binary.BigEndian.AppendUint64(v, s.from)
	for filter, q := range s.subs {
		v = binary.BigEndian.AppendUint16(v, uint16(len(filter)))
		v = append(v, filter...)
		v = append(v, byte(q))
	}
	return store.Row{Table: sessionTable, Key: s.rowKey(), Value: v}
}

func parseSubs(b []byte) (map[string]mqtt.QoS, error) {
	subs := make(map[string]mqtt.QoS)
	for len(b) > 0 {
		if len(b) < 3 || len(b) < 3+int(binary.BigEndian.Uint16(b)) {
			return nil, errDamaged
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		filter, q := string(b[2:n]), mqtt.QoS(b[n])
		if err := mqtt.ValidFilter(filter); err != nil || !q.Valid() {
			return nil, fmt.Errorf("subscription %q at QoS %d: %w", filter, q, errDamaged)
		}
		subs[filter] = q
		b = b[n+1:]
	}
	return subs, nil
}
