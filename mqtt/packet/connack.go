package packet

// Connack answers a Connect (MQTT 3.1.1, section 3.2).
type Connack struct {
	Version        Version // V5 has Reason and Properties, any other a Code
	SessionPresent bool    // the server kept the session; never with a refusal
	Code           ConnackCode
	Reason         Reason
	Properties     Properties
}

const connackSessionPresent = 0x01

// Decode reads a CONNACK. A reserved code is no error: it is a refusal, and its
// text helps more than the remark that it is unlawful.
func (c *Connack) Decode(f Frame) error {
	r := newFields(f)
	flags := r.byte("flags")
	*c = Connack{Version: f.Version, SessionPresent: flags == connackSessionPresent}
	if f.Version == V5 {
		c.decode5(&r, flags)
		return r.end()
	}
	c.Code = ConnackCode(r.byte("return code"))
	if flags > connackSessionPresent {
		r.violation("MQTT-4.8.0-1", "CONNACK with the reserved flags %08b", flags)
	}
	if c.SessionPresent && c.Code != Accepted {
		r.violation("MQTT-3.2.2-4", "CONNACK refuses with code %d and says that there is a session", byte(c.Code))
	}
	return r.end()
}

// decode5 reads what follows the flags in MQTT 5.
func (c *Connack) decode5(r *fields, flags byte) {
	if flags > connackSessionPresent {
		r.fail(malformed("MQTT-3.2.2-1", "CONNACK with the reserved flags %08b", flags))
	}
	c.Reason = r.reason("MQTT-3.2.2-8")
	if c.SessionPresent && c.Reason != ReasonSuccess {
		r.fail(protocolError("MQTT-3.2.2-6", "CONNACK refuses with reason code 0x%02x and says that there is a session", byte(c.Reason)))
	}
	c.Properties = r.authProperties()
}

// Append appends c as a packet.
func (c *Connack) Append(dst []byte) []byte {
	var flags byte
	if c.SessionPresent {
		flags = connackSessionPresent
	}
	if c.Version != V5 {
		return append(dst, byte(TypeConnack)<<4, 2, flags, byte(c.Code))
	}
	dst = appendHeader(dst, byte(TypeConnack)<<4, 2+c.Properties.size())
	return appendProperties(append(dst, flags, byte(c.Reason)), c.Properties)
}
