package packet

// Connack answers a Connect (MQTT 3.1.1, section 3.2).
type Connack struct {
	SessionPresent bool // the server kept the session; never with a refusal
	Code           ConnackCode
}

const connackSessionPresent = 0x01

// Decode reads a CONNACK. A reserved code is no error: it is a refusal, and its
// text helps more than the remark that it is unlawful.
func (c *Connack) Decode(f Frame) error {
	r := newFields(f)
	flags := r.byte("flags")
	*c = Connack{SessionPresent: flags == connackSessionPresent, Code: ConnackCode(r.byte("return code"))}
	if flags > connackSessionPresent {
		r.fail(violation("MQTT-4.8.0-1", "CONNACK with the reserved flags %08b", flags))
	}
	if c.SessionPresent && c.Code != Accepted {
		r.fail(violation("MQTT-3.2.2-4", "CONNACK refuses with code %d and says that there is a session", byte(c.Code)))
	}
	return r.end()
}

// Append appends c as a packet.
func (c *Connack) Append(dst []byte) []byte {
	var flags byte
	if c.SessionPresent {
		flags = connackSessionPresent
	}
	return append(dst, byte(TypeConnack)<<4, 2, flags, byte(c.Code))
}
