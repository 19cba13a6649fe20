package packet

import (
	"strings"

	"tidegate/mqtt"
)

// Subscribe asks for the messages of topic filters (MQTT 3.1.1, section 3.8).
type Subscribe struct {
	ID            uint16
	Subscriptions []mqtt.Subscription
}

// Suback answers a Subscribe, with one code for each subscription in their order
// [MQTT-3.9.3-1].
type Suback struct {
	ID    uint16
	Codes []mqtt.QoS // granted, or mqtt.QoSFailure
}

// Unsubscribe gives subscriptions back (MQTT 3.1.1, section 3.10). An [Ack]
// answers it.
type Unsubscribe struct {
	ID      uint16
	Filters []string
}

// Decode reads a SUBSCRIBE. It uses the slice in s again; the filters are copies.
func (s *Subscribe) Decode(f Frame) error {
	r := newFields(f)
	s.ID = r.id()
	s.Subscriptions = s.Subscriptions[:0]
	for len(r.rest) > 0 && r.err == nil {
		s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: r.filter(), QoS: r.requestedQoS()})
	}
	if len(s.Subscriptions) == 0 {
		r.fail(violation("MQTT-3.8.3-3", "SUBSCRIBE without a topic filter"))
	}
	return r.end()
}

// Append appends s as a packet.
func (s *Subscribe) Append(dst []byte) []byte {
	size := 2
	for _, sub := range s.Subscriptions {
		size += 2 + len(sub.Filter) + 1
	}
	dst = appendHeader(dst, byte(TypeSubscribe)<<4|2, size) // [MQTT-3.8.1-1]
	dst = appendUint16(dst, s.ID)
	for _, sub := range s.Subscriptions {
		dst = append(appendField(dst, sub.Filter), byte(sub.QoS))
	}
	return dst
}

// Decode reads a SUBACK. It uses the slice in s again.
func (s *Suback) Decode(f Frame) error {
	r := newFields(f)
	s.ID = r.id()
	s.Codes = s.Codes[:0]
	for len(r.rest) > 0 && r.err == nil {
		s.Codes = append(s.Codes, r.grantedQoS())
	}
	if len(s.Codes) == 0 {
		r.fail(violation("MQTT-3.9.3-1", "SUBACK without a return code"))
	}
	return r.end()
}

// Append appends s as a packet.
func (s *Suback) Append(dst []byte) []byte {
	dst = appendHeader(dst, byte(TypeSuback)<<4, 2+len(s.Codes))
	dst = appendUint16(dst, s.ID)
	for _, code := range s.Codes {
		dst = append(dst, byte(code))
	}
	return dst
}

// Decode reads an UNSUBSCRIBE. It uses the slice in u again; the filters are
// copies.
func (u *Unsubscribe) Decode(f Frame) error {
	r := newFields(f)
	u.ID = r.id()
	u.Filters = u.Filters[:0]
	for len(r.rest) > 0 && r.err == nil {
		u.Filters = append(u.Filters, r.filter())
	}
	if len(u.Filters) == 0 {
		r.fail(violation("MQTT-3.10.3-2", "UNSUBSCRIBE without a topic filter"))
	}
	return r.end()
}

// Append appends u as a packet.
func (u *Unsubscribe) Append(dst []byte) []byte {
	size := 2
	for _, filter := range u.Filters {
		size += 2 + len(filter)
	}
	dst = appendHeader(dst, byte(TypeUnsubscribe)<<4|2, size) // [MQTT-3.10.1-1]
	dst = appendUint16(dst, u.ID)
	for _, filter := range u.Filters {
		dst = appendField(dst, filter)
	}
	return dst
}

// filter reads a topic filter [MQTT-3.8.3-1] [MQTT-3.10.3-1].
func (r *fields) filter() string {
	s := string(r.text("topic filter"))
	if r.err != nil {
		return ""
	}
	if err := mqtt.ValidFilter(s); err != nil {
		r.fail(violation(filterStatement(s), "%s with an %s", r.packet, err))
	}
	return s
}

// filterStatement is the statement that the unlawful filter s breaks.
func filterStatement(s string) string {
	switch {
	case s == "":
		return "MQTT-4.7.3-1"
	case mqtt.ValidFilter(strings.ReplaceAll(s, "#", "x")) == nil:
		return "MQTT-4.7.1-2" // misplaced #
	default:
		return "MQTT-4.7.1-3" // misplaced +
	}
}

// requestedQoS reads the options of a subscription [MQTT-3.8.3-4].
func (r *fields) requestedQoS() mqtt.QoS {
	q := mqtt.QoS(r.byte("requested QoS"))
	if !q.Valid() {
		r.fail(violation("MQTT-3.8.3-4", "SUBSCRIBE with the requested QoS byte 0x%02x, it must be 0, 1 or 2", byte(q)))
	}
	return q
}

// grantedQoS reads a return code [MQTT-3.9.3-2].
func (r *fields) grantedQoS() mqtt.QoS {
	q := mqtt.QoS(r.byte("return code"))
	if !q.Valid() && q != mqtt.QoSFailure {
		r.fail(violation("MQTT-3.9.3-2", "SUBACK with the reserved return code 0x%02x", byte(q)))
	}
	return q
}
