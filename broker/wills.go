package broker

import (
	"encoding/binary"
	"time"

	"tidegate/mqtt/packet"
	"tidegate/store"
)

// willTable is where the store keeps wills that are held back: client identifier to
// version, seconds that it is held back, and the will as a PUBLISH of MQTT 5. Wills of
// clients that are connected are not there, since each CONNECT and each DISCONNECT
// would cost a write: they are published if the gateway stops, and lost if it crashes.
const willTable = "wills"

const (
	willVersion = 1
	willHead    = 5 // bytes before the PUBLISH
)

// holdBack keeps a will for so many nanoseconds from now, and after a restart from
// then. The caller holds Broker.mu.
func (s *session) holdBack(t *turn, w *packet.Will, delay int64) {
	s.b.memory.add(forSessions, costOfWill(w))
	s.will, s.willDelay = w, uint32(delay/int64(time.Second))
	s.b.commit.put(s.willRow(), t.now+lazy, nil)
	s.b.alarms.put(alarmKey{s, willIsDue}, t.now+delay, func(t *turn) { s.b.publishWill(t, s) })
}

// takeWill returns the will that is held back, nil if there is none, and holds it no
// longer. The caller holds Broker.mu, and calls eraseWill.
func (s *session) takeWill() *packet.Will {
	w := s.will
	s.b.memory.add(forSessions, -costOfWill(w))
	s.b.alarms.drop(alarmKey{s, willIsDue})
	s.will = nil
	return w
}

// eraseWill has the store forget the will that was taken.
func (s *session) eraseWill(t *turn) {
	s.b.commit.put(store.Row{Table: willTable, Key: s.rowKey()}, s.b.commit.soon(t.now), nil)
}

// publishWill publishes the will that the session's last connection has left, if
// it still stands. The store forgets it afterwards: rather twice than never.
func (b *Broker) publishWill(t *turn, s *session) {
	b.mu.Lock()
	w := s.takeWill()
	b.mu.Unlock()
	if w == nil {
		return
	}
	b.leaveWill(t, s, w)
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.will == nil { // or it is another one by now
		s.eraseWill(t)
	}
}

// willRow is what willTable keeps. The caller holds Broker.mu.
func (s *session) willRow() store.Row {
	w := s.will
	p := packet.Publish{
		Version: packet.V5, Topic: []byte(w.Topic), Payload: w.Payload, QoS: w.QoS, ID: 1, Retain: w.Retain,
		Properties: w.Properties.AppendForwarded(nil),
	}
	v := binary.BigEndian.AppendUint32([]byte{willVersion}, s.willDelay)
	return store.Row{Table: willTable, Key: s.rowKey(), Value: p.Append(v)}
}

// restoreWills takes over what the store keeps. A will is held back anew: how long its
// client was away is not known, and it could not come back.
func (b *Broker) restoreWills() error {
	t := turn{b: b}
	return b.commit.store.Rows(willTable, func(key, value []byte) error {
		s := b.sessions[string(key)]
		w, delay, ok := parseWill(value)
		switch {
		case s == nil: // a crash came between the end of its session and its own
			b.commit.put(store.Row{Table: willTable, Key: append([]byte(nil), key...)}, lazy, nil)
		case !ok:
			b.log.Error("skipped a will in the store that makes no sense", "client", brief(s.id))
		default:
			s.holdBack(&t, w, int64(min(delay, s.expiry))*int64(time.Second))
		}
		return nil
	})
}

// parseWill is the reverse of willRow, in whose seconds delay is.
func parseWill(value []byte) (w *packet.Will, delay uint32, ok bool) {
	if len(value) < willHead || value[0] != willVersion {
		return nil, 0, false
	}
	f, n, _, err := packet.V5.Split(value[willHead:], packet.MaxSize)
	if err != nil || n == 0 || f.Type() != packet.TypePublish {
		return nil, 0, false
	}
	var p packet.Publish
	if err := p.Decode(f); err != nil || len(p.Topic) == 0 {
		return nil, 0, false
	}
	return &packet.Will{
		Topic: string(p.Topic), Payload: append([]byte(nil), p.Payload...), QoS: p.QoS, Retain: p.Retain,
		Properties: append(packet.Properties(nil), p.Properties...),
	}, binary.BigEndian.Uint32(value[1:]), true
}
