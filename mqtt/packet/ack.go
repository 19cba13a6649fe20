package packet

// Ack is any packet that consists of a packet identifier: PUBACK, PUBREC,
// PUBREL, PUBCOMP and UNSUBACK (MQTT 3.1.1, sections 3.4 to 3.7 and 3.11).
type Ack struct {
	Type Type
	ID   uint16
}

// Decode reads one of the five packets; Type is the frame's.
func (a *Ack) Decode(f Frame) error {
	r := newFields(f)
	*a = Ack{Type: f.Type(), ID: r.id()}
	return r.end()
}

// Append appends a as a packet.
func (a *Ack) Append(dst []byte) []byte {
	first := byte(a.Type) << 4
	if a.Type == TypePubrel {
		first |= 2 // [MQTT-3.6.1-1]
	}
	return append(dst, first, 2, byte(a.ID>>8), byte(a.ID))
}
