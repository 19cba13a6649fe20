package packet

// Ack is any packet that consists of a packet identifier: PUBACK, PUBREC,
// PUBREL, PUBCOMP and UNSUBACK (MQTT 3.1.1, sections 3.4 to 3.7 and 3.11). In
// MQTT 5 the first four may say more, and UNSUBACK is an [Unsuback].
type Ack struct {
	Type       Type
	Reason     Reason // MQTT 5 only
	ID         uint16
	Properties Properties // MQTT 5 only
}

// Decode reads one of the five packets; Type is the frame's.
func (a *Ack) Decode(f Frame) error {
	r := newFields(f)
	*a = Ack{Type: f.Type(), ID: r.id()}
	if f.Version == V5 && len(r.rest) > 0 {
		a.Reason, a.Properties = r.outcome(ackStatement(a.Type))
	}
	return r.end()
}

// outcome reads the reason code and the properties behind it, which may be left
// out if there are none; id is the statement about the former.
func (r *fields) outcome(id string) (Reason, Properties) {
	reason := r.reason(id)
	if len(r.rest) == 0 {
		return reason, nil
	}
	return reason, r.properties()
}

// ackStatement is the statement about the reason codes of the packet.
func ackStatement(t Type) string {
	switch t {
	case TypePuback:
		return "MQTT-3.4.2-1"
	case TypePubrec:
		return "MQTT-3.5.2-1"
	case TypePubrel:
		return "MQTT-3.6.2-1"
	}
	return "MQTT-3.7.2-1"
}

// Append appends a as a packet. Without a reason and properties the bytes are the
// same in all versions.
func (a *Ack) Append(dst []byte) []byte {
	first := byte(a.Type) << 4
	if a.Type == TypePubrel {
		first |= 2 // [MQTT-3.6.1-1]
	}
	if a.Reason == ReasonSuccess && len(a.Properties) == 0 {
		return append(dst, first, 2, byte(a.ID>>8), byte(a.ID))
	}
	dst = appendHeader(dst, first, 2+outcomeSize(a.Reason, a.Properties))
	return appendOutcome(appendUint16(dst, a.ID), a.Reason, a.Properties)
}

// appendOutcome appends a reason code and properties, as short as can be.
func appendOutcome(dst []byte, reason Reason, p Properties) []byte {
	switch {
	case len(p) > 0:
		return appendProperties(append(dst, byte(reason)), p)
	case reason != ReasonSuccess:
		return append(dst, byte(reason))
	}
	return dst
}

// outcomeSize is how many bytes appendOutcome appends.
func outcomeSize(reason Reason, p Properties) int {
	switch {
	case len(p) > 0:
		return 1 + p.size()
	case reason != ReasonSuccess:
		return 1
	}
	return 0
}
