package packet

// Auth is a step of an authentication in more than one (MQTT 5.0, section 3.15).
type Auth struct {
	Reason     Reason
	Properties Properties // authentication method and data
}

// Decode reads an AUTH. One without a body says success, as only a server may.
func (a *Auth) Decode(f Frame) error {
	r := newFields(f)
	*a = Auth{}
	if len(r.rest) == 0 {
		if !f.FromServer {
			r.fail(protocolError("MQTT-3.15.2-1", "AUTH without a body, which says success, from a client"))
		}
		return r.end()
	}
	a.Reason = r.reason("MQTT-3.15.2-1")
	a.Properties = r.authProperties()
	if _, ok := a.Properties.Bytes(PropAuthMethod); !ok {
		r.fail(protocolError("MQTT-4.13.1-1", "AUTH without an authentication method"))
	}
	return r.end()
}

// authProperties reads properties that may have authentication data only with a
// method (MQTT 5.0, section 3.1.2.11.10).
func (r *fields) authProperties() Properties {
	p := r.properties()
	_, method := p.Bytes(PropAuthMethod)
	if _, data := p.Bytes(PropAuthData); data && !method {
		r.fail(protocolError("MQTT-4.13.1-1", "%s with authentication data but no method", r.packet))
	}
	return p
}

// Append appends a as a packet, without a body if it says success and nothing
// else.
func (a *Auth) Append(dst []byte) []byte {
	if a.Reason == ReasonSuccess && len(a.Properties) == 0 {
		return appendHeader(dst, byte(TypeAuth)<<4, 0)
	}
	dst = appendHeader(dst, byte(TypeAuth)<<4, 1+a.Properties.size())
	return appendProperties(append(dst, byte(a.Reason)), a.Properties)
}
