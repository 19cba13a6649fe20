package packet

import (
	"fmt"

	"tidegate/mqtt"
)

// MaxSize is the longest packet that the length field can describe, fixed
// header included, in bytes.
const MaxSize = 1 + 4 + maxLength

// maxLength is the largest remaining length (MQTT 3.1.1, section 2.2.3).
const maxLength = 1<<28 - 1

// Frame is one whole packet. Body aliases the buffer that it was split from, so
// it is valid only as long as that buffer is not written.
type Frame struct {
	First      byte    // type and flags (MQTT 3.1.1, section 2.2)
	Version    Version // of the connection; all but V5 are decoded alike
	FromServer bool    // a server sent it, which in MQTT 5 allows other things than a client may
	Body       []byte  // variable header and payload
}

// Type is the kind of the packet.
func (f Frame) Type() Type { return Type(f.First >> 4) }

// Split finds the packet at the start of b. n is its length; n == 0 means that
// more bytes are needed, and need is then how many the whole packet has, or 0
// while that is not known.
//
// The error is an [*Error] for a forbidden type, for wrong reserved flags and
// for a length of more than four bytes. It wraps [mqtt.ErrTooLarge] for a packet
// of more than maxSize bytes, fixed header included, as soon as the length is
// known. Flags of PUBLISH are checked by [Publish.Decode].
//
// The frame has no version: it is decoded as 3.1.1, or is a CONNECT, which says
// its version itself. [Version.Split] is for what follows a CONNECT.
func Split(b []byte, maxSize int) (f Frame, n, need int, err error) {
	return link{}.split(b, maxSize)
}

// Split is the function [Split] for a server's connection of version v. In MQTT 5
// every error is an [*Error].
func (v Version) Split(b []byte, maxSize int) (f Frame, n, need int, err error) {
	return link{version: v}.split(b, maxSize)
}

// link is what is known about a packet before its first byte.
type link struct {
	version    Version
	fromServer bool
}

func (l link) split(b []byte, maxSize int) (f Frame, n, need int, err error) {
	if len(b) == 0 {
		return Frame{}, 0, 0, nil
	}
	if err := l.checkFirst(b[0]); err != nil {
		return Frame{}, 0, 0, err
	}
	length, width, err := l.remainingLength(b[1:])
	if err != nil || width == 0 {
		return Frame{}, 0, 0, err
	}
	need = 1 + width + length
	if need > maxSize {
		return Frame{}, 0, need, l.tooLarge(b[0], need, maxSize)
	}
	if len(b) < need {
		return Frame{}, 0, need, nil
	}
	return Frame{First: b[0], Version: l.version, FromServer: l.fromServer, Body: b[1+width : need : need]}, need, need, nil
}

// tooLarge is the error for a packet of size bytes.
func (l link) tooLarge(first byte, size, maxSize int) error {
	text := fmt.Sprintf("%s of %d bytes, at most %d are allowed", Type(first>>4), size, maxSize)
	if l.version != V5 {
		return fmt.Errorf("%s: %w", text, mqtt.ErrTooLarge)
	}
	id := "MQTT-3.2.2-15"
	if l.fromServer {
		id = "MQTT-3.1.2-24"
	}
	return &Error{Reason: ReasonPacketTooLarge, Text: text, ID: id, cause: mqtt.ErrTooLarge}
}

// checkFirst checks the type and the reserved flags [MQTT-2.2.2-1].
//
// MQTT 3.1 lets a client set DUP on a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE;
// 3.1.1 reserves the bit, and since no connection repeats them, so do we.
func (l link) checkFirst(first byte) error {
	flags, want, id := first&0x0f, byte(0), "MQTT-2.2.2-2"
	switch t := Type(first >> 4); t {
	case TypePublish:
		return nil
	case TypePubrel:
		want, id = 2, "MQTT-3.6.1-1"
	case TypeSubscribe:
		want, id = 2, "MQTT-3.8.1-1"
	case TypeUnsubscribe:
		want, id = 2, "MQTT-3.10.1-1"
	case TypeDisconnect:
		id = "MQTT-3.14.1-1"
	case TypeAuth:
		if l.version != V5 {
			return violation("MQTT-4.8.0-1", "packet type 15 is forbidden before MQTT 5; is this MQTT?")
		}
		id = "MQTT-3.15.1-1"
	case 0:
		return violation("MQTT-4.8.0-1", "packet type 0 is forbidden; is this MQTT?").in(l.version)
	}
	if flags != want {
		return violation(id, "%s with the reserved flags %04b, they must be %04b", Type(first>>4), flags, want).in(l.version)
	}
	return nil
}

// remainingLength reads the length at the start of b and how many bytes it
// takes; width 0: it is not complete (MQTT 3.1.1, section 2.2.3). Like other
// receivers it takes a length in more bytes than needed, which 3.1.1 allows and
// MQTT 5 does not [MQTT-1.5.5-1].
func (l link) remainingLength(b []byte) (length, width int, err error) {
	length, width, ok := readVarint(b)
	if !ok {
		return 0, 0, violation("MQTT-4.8.0-1", "remaining length of more than four bytes; is this MQTT?").in(l.version)
	}
	if l.version == V5 && width > varintSize(length) {
		return 0, 0, malformed("MQTT-1.5.5-1", "remaining length in more bytes than it needs")
	}
	return length, width, nil
}

// appendHeader appends a fixed header. length is at most maxLength.
func appendHeader(dst []byte, first byte, length int) []byte {
	return appendVarint(append(dst, first), length)
}
