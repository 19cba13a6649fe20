package packet

// Pingreq asks whether the server is there (MQTT 3.1.1, section 3.12).
type Pingreq struct{}

// Pingresp answers a Pingreq (MQTT 3.1.1, section 3.13).
type Pingresp struct{}

// Disconnect ends a connection in order (MQTT 3.1.1, section 3.14). That of MQTT 5
// is a [Disconnect5].
type Disconnect struct{}

// Decode reads a PINGREQ, which has no body.
func (Pingreq) Decode(f Frame) error { return decodeEmpty(f) }

// Append appends a PINGREQ.
func (Pingreq) Append(dst []byte) []byte { return appendHeader(dst, byte(TypePingreq)<<4, 0) }

// Decode reads a PINGRESP, which has no body.
func (Pingresp) Decode(f Frame) error { return decodeEmpty(f) }

// Append appends a PINGRESP.
func (Pingresp) Append(dst []byte) []byte { return appendHeader(dst, byte(TypePingresp)<<4, 0) }

// Decode reads a DISCONNECT, which has no body.
func (Disconnect) Decode(f Frame) error { return decodeEmpty(f) }

// Append appends a DISCONNECT.
func (Disconnect) Append(dst []byte) []byte { return appendHeader(dst, byte(TypeDisconnect)<<4, 0) }

func decodeEmpty(f Frame) error {
	r := newFields(f)
	return r.end()
}
