package packet

// Disconnect5 ends a connection of MQTT 5 and says why (MQTT 5.0, section 3.14).
// Either side may send it.
type Disconnect5 struct {
	Reason     Reason
	Properties Properties
}

// Decode reads a DISCONNECT.
func (d *Disconnect5) Decode(f Frame) error {
	r := newFields(f)
	*d = Disconnect5{}
	if len(r.rest) > 0 {
		d.Reason, d.Properties = r.outcome("MQTT-3.14.2-1")
	}
	return r.end()
}

// Append appends d as a packet. Success and no properties is a packet without a
// body, as before MQTT 5.
func (d *Disconnect5) Append(dst []byte) []byte {
	dst = appendHeader(dst, byte(TypeDisconnect)<<4, outcomeSize(d.Reason, d.Properties))
	return appendOutcome(dst, d.Reason, d.Properties)
}
