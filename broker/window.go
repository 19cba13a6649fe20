package broker

import "tidegate/mqtt"

// window is the QoS 1 and 2 messages that were sent to one consumer and not yet
// acknowledged, in the order they were sent (MQTT 3.1.1, section 4.3). It does no
// I/O and knows no lock and no clock.
type window struct {
	slots queue[slot]
}

// slot is one message under way.
type slot struct {
	claim
	sentAt   int64 // broker time in nanoseconds
	released bool  // QoS 2: PUBREC has come, PUBCOMP not
}

func (w *window) len() int { return w.slots.len() }

// uses reports whether the packet identifier is taken.
func (w *window) uses(id uint16) bool { return w.find(id) >= 0 }

// find returns the place of the packet identifier, or -1. Consumers acknowledge
// in order, so it is nearly always the first.
func (w *window) find(id uint16) int {
	for i := range w.slots.len() {
		if w.slots.at(i).id == id {
			return i
		}
	}
	return -1
}

// findSeq is find by place in the journal.
func (w *window) findSeq(seq uint64) int {
	for i := range w.slots.len() {
		if w.slots.at(i).seq == seq {
			return i
		}
	}
	return -1
}

// add notes a message that is being sent. Its body is not kept: should the
// connection end, a durable session reads it again from where it is stored, and
// another ends as well.
func (w *window) add(s slot) { w.slots.push(s) }

// ack answers PUBACK: the message is delivered.
func (w *window) ack(id uint16) (slot, bool) { return w.take(id, mqtt.AtLeastOnce, false) }

// comp answers PUBCOMP: the QoS 2 message is delivered.
func (w *window) comp(id uint16) (slot, bool) { return w.take(id, mqtt.ExactlyOnce, true) }

// refuse answers a PUBREC that says the consumer does not want the message.
func (w *window) refuse(id uint16) (slot, bool) { return w.take(id, mqtt.ExactlyOnce, false) }

// take removes a message if it is in the state that the packet answers to.
func (w *window) take(id uint16, q mqtt.QoS, released bool) (slot, bool) {
	i := w.find(id)
	if i < 0 {
		return slot{}, false
	}
	if s := w.slots.at(i); s.qos != q || s.released != released {
		return slot{}, false
	}
	return w.slots.remove(i), true
}

// rec answers PUBREC: the consumer has the QoS 2 message. It returns the slot,
// which stays, or nil if nothing of that kind is under way.
func (w *window) rec(id uint16) *slot {
	i := w.find(id)
	if i < 0 || w.slots.at(i).qos != mqtt.ExactlyOnce {
		return nil
	}
	s := w.slots.at(i)
	s.released = true
	return s
}

// newest returns the place in the journal of what was sent last; 0: nothing is under
// way.
func (w *window) newest() uint64 {
	if n := w.slots.len(); n > 0 {
		return w.slots.at(n - 1).seq
	}
	return 0
}

// oldest returns the lowest place in the journal of what is under way.
func (w *window) oldest() (seq uint64, ok bool) {
	for i := range w.slots.len() {
		if seq := w.slots.at(i).seq; seq > 0 {
			return seq, true
		}
	}
	return 0, false
}
