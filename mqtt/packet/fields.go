package packet

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// fields reads the fields of a frame's body from front to back. After the first
// error it reads zeros and keeps that error, so that a Decode needs to look once.
type fields struct {
	packet     Type
	version    Version // V5 or any other
	fromServer bool
	rest       []byte
	err        error
}

func newFields(f Frame) fields {
	return fields{packet: f.Type(), version: f.Version, fromServer: f.FromServer, rest: f.Body}
}

// fail keeps err unless an earlier one stands.
func (r *fields) fail(err *Error) {
	if r.err == nil {
		r.err = err
	}
}

// violation fails with a statement of 3.1.1, or with that of MQTT 5 in its place.
func (r *fields) violation(id, format string, args ...any) {
	if r.err == nil {
		r.err = violation(id, format, args...).in(r.version)
	}
}

// take is the next n bytes, or nil if there are fewer.
func (r *fields) take(n int, what string) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.rest) < n {
		r.violation("MQTT-4.8.0-1", "%s ends inside its %s", r.packet, what)
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

func (r *fields) uint32(what string) uint32 {
	if b := r.take(4, what); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// varint is a number of up to four bytes, as few as it needs [MQTT-1.5.5-1].
func (r *fields) varint(what string) int {
	if r.err != nil {
		return 0
	}
	n, width, ok := readVarint(r.rest)
	switch {
	case !ok:
		r.fail(malformed("MQTT-4.13.1-1", "%s with a %s of more than four bytes", r.packet, what))
	case width == 0:
		r.fail(malformed("MQTT-4.13.1-1", "%s ends inside its %s", r.packet, what))
	case width != varintSize(n):
		r.fail(malformed("MQTT-1.5.5-1", "%s with a %s in more bytes than it needs", r.packet, what))
	}
	if r.err != nil {
		return 0
	}
	r.rest = r.rest[width:]
	return n
}

// id is a packet identifier, which is never 0 [MQTT-2.3.1-1].
func (r *fields) id() uint16 {
	id := r.uint16("packet identifier")
	if id == 0 && r.version == V5 {
		r.fail(protocolError(r.idStatement(), "%s with the packet identifier 0", r.packet))
	}
	if id == 0 {
		r.violation("MQTT-2.3.1-1", "%s with the packet identifier 0", r.packet)
	}
	return id
}

// idStatement is the statement of MQTT 5 about the packet's identifier.
func (r *fields) idStatement() string {
	switch r.packet {
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		return "MQTT-2.2.1-5"
	case TypeSuback, TypeUnsuback:
		return "MQTT-2.2.1-6"
	}
	if r.fromServer {
		return "MQTT-2.2.1-4"
	}
	return "MQTT-2.2.1-3"
}

// binary is a field of bytes behind its two-byte length; it aliases the frame.
func (r *fields) binary(what string) []byte { return r.take(int(r.uint16(what)), what) }

// text is a UTF-8 field (MQTT 3.1.1, section 1.5.3); it aliases the frame.
func (r *fields) text(what string) []byte {
	b := r.binary(what)
	if bytes.IndexByte(b, 0) >= 0 {
		r.violation("MQTT-1.5.3-2", "%s with a zero character in its %s", r.packet, what)
	}
	if !utf8.Valid(b) { // refuses surrogates too
		r.violation("MQTT-1.5.3-1", "%s with a %s that is not UTF-8", r.packet, what)
	}
	return b
}

// name is a topic name: a text of at least one character [MQTT-4.7.3-1] without
// wildcards. noWildcard is the statement that forbids them here.
func (r *fields) name(what, noWildcard string) []byte {
	b := r.nameOrNone(what, noWildcard)
	if len(b) == 0 {
		r.violation("MQTT-4.7.3-1", "%s with an empty %s", r.packet, what)
	}
	return b
}

// nameOrNone is a topic name that may be empty.
func (r *fields) nameOrNone(what, noWildcard string) []byte {
	b := r.text(what)
	if bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0 {
		r.violation(noWildcard, "%s with a wildcard in its %s %q", r.packet, what, b)
	}
	return b
}

// end is the first error, or one if bytes are left over.
func (r *fields) end() error {
	if len(r.rest) > 0 {
		r.violation("MQTT-4.8.0-1", "%s with %d bytes behind its last field", r.packet, len(r.rest))
	}
	return r.err
}

func appendUint16(dst []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(dst, n) }

// appendField appends b behind its two-byte length.
func appendField[T string | []byte](dst []byte, b T) []byte {
	return append(appendUint16(dst, uint16(len(b))), b...)
}

// readVarint reads a number of up to four bytes of seven bits each, the lowest
// first, and how many bytes it takes; width 0: it is not complete. ok is false if
// it takes more than four.
func readVarint(b []byte) (n, width int, ok bool) {
	for i, c := range b {
		if i == 4 {
			break
		}
		n |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, i + 1, true
		}
	}
	return 0, 0, len(b) < 4
}

// appendVarint appends a number of at most maxLength.
func appendVarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

// varintSize is how many bytes n takes.
func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}
