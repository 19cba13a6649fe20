package packet

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// fields reads the fields of a frame's body from front to back. After the first
// error it reads zeros and keeps that error, so that a Decode needs to look once.
type fields struct {
	packet Type // for error texts
	rest   []byte
	err    error
}

func newFields(f Frame) fields { return fields{packet: f.Type(), rest: f.Body} }

// fail keeps err unless an earlier one stands.
func (r *fields) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// take is the next n bytes, or nil if there are fewer.
func (r *fields) take(n int, what string) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.rest) < n {
		r.err = violation("MQTT-4.8.0-1", "%s ends inside its %s", r.packet, what)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *fields) byte(what string) byte {
	if b := r.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (r *fields) uint16(what string) uint16 {
	if b := r.take(2, what); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// id is a packet identifier, which is never 0 [MQTT-2.3.1-1].
func (r *fields) id() uint16 {
	id := r.uint16("packet identifier")
	if id == 0 {
		r.fail(violation("MQTT-2.3.1-1", "%s with the packet identifier 0", r.packet))
	}
	return id
}

// binary is a field of bytes behind its two-byte length; it aliases the frame.
func (r *fields) binary(what string) []byte { return r.take(int(r.uint16(what)), what) }

// text is a UTF-8 field (MQTT 3.1.1, section 1.5.3); it aliases the frame.
func (r *fields) text(what string) []byte {
	b := r.binary(what)
	if bytes.IndexByte(b, 0) >= 0 {
		r.fail(violation("MQTT-1.5.3-2", "%s with a zero character in its %s", r.packet, what))
	}
	if !utf8.Valid(b) { // refuses surrogates too
		r.fail(violation("MQTT-1.5.3-1", "%s with a %s that is not UTF-8", r.packet, what))
	}
	return b
}

// name is a topic name: a text of at least one character [MQTT-4.7.3-1] without
// wildcards. noWildcard is the statement that forbids them here.
func (r *fields) name(what, noWildcard string) []byte {
	b := r.text(what)
	if len(b) == 0 {
		r.fail(violation("MQTT-4.7.3-1", "%s with an empty %s", r.packet, what))
	}
	if bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0 {
		r.fail(violation(noWildcard, "%s with a wildcard in its %s %q", r.packet, what, b))
	}
	return b
}

// end is the first error, or one if bytes are left over.
func (r *fields) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = violation("MQTT-4.8.0-1", "%s with %d bytes behind its last field", r.packet, len(r.rest))
	}
	return r.err
}

func appendUint16(dst []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(dst, n) }

// appendField appends b behind its two-byte length.
func appendField[T string | []byte](dst []byte, b T) []byte {
	return append(appendUint16(dst, uint16(len(b))), b...)
}
