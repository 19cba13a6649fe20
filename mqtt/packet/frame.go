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
	First byte   // type and flags (MQTT 3.1.1, section 2.2)
	Body  []byte // variable header and payload
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
func Split(b []byte, maxSize int) (f Frame, n, need int, err error) {
	if len(b) == 0 {
		return Frame{}, 0, 0, nil
	}
	if err := checkFirst(b[0]); err != nil {
		return Frame{}, 0, 0, err
	}
	length, width, err := remainingLength(b[1:])
	if err != nil || width == 0 {
		return Frame{}, 0, 0, err
	}
	need = 1 + width + length
	if need > maxSize {
		return Frame{}, 0, need, fmt.Errorf("%s of %d bytes, at most %d are allowed: %w", Type(b[0]>>4), need, maxSize, mqtt.ErrTooLarge)
	}
	if len(b) < need {
		return Frame{}, 0, need, nil
	}
	return Frame{First: b[0], Body: b[1+width : need : need]}, need, need, nil
}

// checkFirst checks the type and the reserved flags [MQTT-2.2.2-1].
//
// MQTT 3.1 lets a client set DUP on a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE;
// 3.1.1 reserves the bit, and since no connection repeats them, so do we.
func checkFirst(first byte) error {
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
	case 0, 15:
		return violation("MQTT-4.8.0-1", "packet type %d is forbidden; is this MQTT?", byte(t))
	}
	if flags != want {
		return violation(id, "%s with the reserved flags %04b, they must be %04b", Type(first>>4), flags, want)
	}
	return nil
}

// remainingLength reads the length at the start of b and how many bytes it
// takes; width 0: it is not complete (MQTT 3.1.1, section 2.2.3). Like other
// receivers it takes a length in more bytes than needed, which 3.1.1 allows.
func remainingLength(b []byte) (length, width int, err error) {
	for i, c := range b {
		if i == 4 {
			break
		}
		length |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			return length, i + 1, nil
		}
	}
	if len(b) >= 4 {
		return 0, 0, violation("MQTT-4.8.0-1", "remaining length of more than four bytes; is this MQTT?")
	}
	return 0, 0, nil
}

// appendHeader appends a fixed header. length is at most maxLength.
func appendHeader(dst []byte, first byte, length int) []byte {
	dst = append(dst, first)
	for length >= 0x80 {
		dst = append(dst, byte(length)|0x80)
		length >>= 7
	}
	return append(dst, byte(length))
}
