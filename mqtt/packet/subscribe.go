package packet

import (
	"strings"

	"tidegate/mqtt"
)

// Subscribe asks for the messages of topic filters (MQTT 3.1.1, section 3.8).
type Subscribe struct {
	ID            uint16
	Subscriptions []mqtt.Subscription

	Version    Version    // V5 has Properties and all fields of a subscription
	Properties Properties // the subscription identifier is that of all Subscriptions
}

// Suback answers a Subscribe, with one code for each subscription in their order
// [MQTT-3.9.3-1].
type Suback struct {
	ID    uint16
	Codes []mqtt.QoS // granted, or mqtt.QoSFailure; not in MQTT 5

	Version    Version // V5 has Reasons and Properties instead of Codes
	Reasons    []Reason
	Properties Properties
}

// Decode reads a SUBSCRIBE. It uses the slice in s again; the filters are copies.
func (s *Subscribe) Decode(f Frame) error {
	r := newFields(f)
	*s = Subscribe{Version: f.Version, ID: r.id(), Subscriptions: s.Subscriptions[:0]}
	s.Properties = r.properties()
	id, _ := s.Properties.Uint(PropSubscriptionID)
	for len(r.rest) > 0 && r.err == nil {
		sub := mqtt.Subscription{Filter: r.filter(), ID: id}
		r.options(&sub)
		s.Subscriptions = append(s.Subscriptions, sub)
	}
	if len(s.Subscriptions) == 0 {
		r.violation("MQTT-3.8.3-3", "SUBSCRIBE without a topic filter")
	}
	return r.end()
}

// Append appends s as a packet. The subscription identifier of MQTT 5 is taken
// from Properties.
func (s *Subscribe) Append(dst []byte) []byte {
	size := 2
	if s.Version == V5 {
		size += s.Properties.size()
	}
	for _, sub := range s.Subscriptions {
		size += 2 + len(sub.Filter) + 1
	}
	dst = appendHeader(dst, byte(TypeSubscribe)<<4|2, size) // [MQTT-3.8.1-1]
	dst = appendUint16(dst, s.ID)
	if s.Version == V5 {
		dst = appendProperties(dst, s.Properties)
	}
	for i := range s.Subscriptions {
		sub := &s.Subscriptions[i]
		dst = append(appendField(dst, sub.Filter), options(sub, s.Version))
	}
	return dst
}

// Decode reads a SUBACK. It uses the slices in s again.
func (s *Suback) Decode(f Frame) error {
	r := newFields(f)
	*s = Suback{Version: f.Version, ID: r.id(), Codes: s.Codes[:0], Reasons: s.Reasons[:0]}
	s.Properties = r.properties()
	for len(r.rest) > 0 && r.err == nil {
		if f.Version == V5 {
			s.Reasons = append(s.Reasons, r.reason("MQTT-3.9.3-2"))
		} else {
			s.Codes = append(s.Codes, r.grantedQoS())
		}
	}
	if len(s.Codes)+len(s.Reasons) == 0 {
		r.violation("MQTT-3.9.3-1", "SUBACK without a return code")
	}
	return r.end()
}

// Append appends s as a packet.
func (s *Suback) Append(dst []byte) []byte {
	first := byte(TypeSuback) << 4
	if s.Version == V5 {
		return appendReasons(dst, first, s.ID, s.Properties, s.Reasons)
	}
	dst = appendHeader(dst, first, 2+len(s.Codes))
	dst = appendUint16(dst, s.ID)
	for _, code := range s.Codes {
		dst = append(dst, byte(code))
	}
	return dst
}

// appendReasons appends a packet of reasons for the filters of a request.
func appendReasons(dst []byte, first byte, id uint16, p Properties, reasons []Reason) []byte {
	dst = appendHeader(dst, first, 2+p.size()+len(reasons))
	dst = appendUint16(dst, id)
	dst = appendProperties(dst, p)
	for _, reason := range reasons {
		dst = append(dst, byte(reason))
	}
	return dst
}

// The subscription options of MQTT 5 (section 3.8.3.1). Before, there is only the
// QoS.
const (
	optionQoS               = 0x03
	optionNoLocal           = 0x04
	optionRetainAsPublished = 0x08
	optionRetainHandling    = 0x30
	optionReserved          = 0xc0

	optionRetainHandlingShift = 4
	maxRetainHandling         = 2
)

// options reads the options of a subscription.
func (r *fields) options(sub *mqtt.Subscription) {
	if r.version != V5 {
		sub.QoS = r.requestedQoS()
		return
	}
	b := r.byte("subscription options")
	sub.QoS = mqtt.QoS(b & optionQoS)
	sub.NoLocal = b&optionNoLocal != 0
	sub.RetainAsPublished = b&optionRetainAsPublished != 0
	sub.RetainHandling = b & optionRetainHandling >> optionRetainHandlingShift
	switch {
	case b&optionReserved != 0:
		r.fail(malformed("MQTT-3.8.3-5", "SUBSCRIBE with reserved bits in the subscription options 0x%02x", b))
	case !sub.QoS.Valid():
		r.fail(protocolError("MQTT-4.13.1-1", "SUBSCRIBE with the maximum QoS 3"))
	case sub.RetainHandling > maxRetainHandling:
		r.fail(protocolError("MQTT-4.13.1-1", "SUBSCRIBE with the retain handling 3"))
	case sub.NoLocal && strings.HasPrefix(sub.Filter, sharePrefix):
		r.fail(protocolError("MQTT-3.8.3-4", "SUBSCRIBE with no local for the shared subscription %q", sub.Filter))
	}
}

// options is how those of sub travel.
func options(sub *mqtt.Subscription, v Version) byte {
	b := byte(sub.QoS)
	if v != V5 {
		return b
	}
	if sub.NoLocal {
		b |= optionNoLocal
	}
	if sub.RetainAsPublished {
		b |= optionRetainAsPublished
	}
	return b | sub.RetainHandling<<optionRetainHandlingShift
}

// requestedQoS reads the options of a subscription [MQTT-3.8.3-4].
func (r *fields) requestedQoS() mqtt.QoS {
	q := mqtt.QoS(r.byte("requested QoS"))
	if !q.Valid() {
		r.violation("MQTT-3.8.3-4", "SUBSCRIBE with the requested QoS byte 0x%02x, it must be 0, 1 or 2", byte(q))
	}
	return q
}

// grantedQoS reads a return code [MQTT-3.9.3-2].
func (r *fields) grantedQoS() mqtt.QoS {
	q := mqtt.QoS(r.byte("return code"))
	if !q.Valid() && q != mqtt.QoSFailure {
		r.violation("MQTT-3.9.3-2", "SUBACK with the reserved return code 0x%02x", byte(q))
	}
	return q
}
