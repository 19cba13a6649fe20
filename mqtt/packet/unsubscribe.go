package packet

// Unsubscribe gives subscriptions back (MQTT 3.1.1, section 3.10). An [Ack]
// answers it, in MQTT 5 an [Unsuback].
type Unsubscribe struct {
	ID      uint16
	Filters []string

	Version    Version // V5 has Properties
	Properties Properties
}

// Unsuback answers an Unsubscribe of MQTT 5, with one reason for each filter in
// their order [MQTT-3.11.3-1]. Before, the answer is an [Ack].
type Unsuback struct {
	ID         uint16
	Reasons    []Reason
	Properties Properties
}

// Decode reads an UNSUBSCRIBE. It uses the slice in u again; the filters are
// copies.
func (u *Unsubscribe) Decode(f Frame) error {
	r := newFields(f)
	*u = Unsubscribe{Version: f.Version, ID: r.id(), Filters: u.Filters[:0]}
	u.Properties = r.properties()
	for len(r.rest) > 0 && r.err == nil {
		u.Filters = append(u.Filters, r.filter())
	}
	if len(u.Filters) == 0 {
		r.violation("MQTT-3.10.3-2", "UNSUBSCRIBE without a topic filter")
	}
	return r.end()
}

// Append appends u as a packet.
func (u *Unsubscribe) Append(dst []byte) []byte {
	size := 2
	if u.Version == V5 {
		size += u.Properties.size()
	}
	for _, filter := range u.Filters {
		size += 2 + len(filter)
	}
	dst = appendHeader(dst, byte(TypeUnsubscribe)<<4|2, size) // [MQTT-3.10.1-1]
	dst = appendUint16(dst, u.ID)
	if u.Version == V5 {
		dst = appendProperties(dst, u.Properties)
	}
	for _, filter := range u.Filters {
		dst = appendField(dst, filter)
	}
	return dst
}

// Decode reads an UNSUBACK of MQTT 5. It uses the slice in u again.
func (u *Unsuback) Decode(f Frame) error {
	r := newFields(f)
	*u = Unsuback{ID: r.id(), Reasons: u.Reasons[:0]}
	u.Properties = r.properties()
	for len(r.rest) > 0 && r.err == nil {
		u.Reasons = append(u.Reasons, r.reason("MQTT-3.11.3-2"))
	}
	if len(u.Reasons) == 0 {
		r.fail(protocolError("MQTT-3.11.3-1", "UNSUBACK without a reason code"))
	}
	return r.end()
}

// Append appends u as a packet.
func (u *Unsuback) Append(dst []byte) []byte {
	return appendReasons(dst, byte(TypeUnsuback)<<4, u.ID, u.Properties, u.Reasons)
}
