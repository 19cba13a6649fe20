package broker

import (
	"encoding/binary"
	"errors"
	"time"

	"tidegate/mqtt/packet"
)

// body is a message as all share it who are owed it: topic and payload as they
// travel in a PUBLISH, and the properties of MQTT 5 that go with the message. It is
// made once and its bytes are never written.
type body struct {
	buf     []byte // length of the topic in two bytes, topic, payload, properties
	props   int    // where the properties begin
	expires int64  // broker time; 0: never
	at      int64  // broker time at which it was published; 0: not noted
}

func (b *body) topicEnd() int                 { return 2 + int(b.buf[0])<<8 + int(b.buf[1]) }
func (b *body) topic() []byte                 { return b.buf[2:b.topicEnd()] }
func (b *body) payload() []byte               { return b.buf[b.topicEnd():b.props] }
func (b *body) plain() []byte                 { return b.buf[:b.props] }
func (b *body) properties() packet.Properties { return packet.Properties(b.buf[b.props:]) }
func (b *body) size() int                     { return len(b.buf) }

// expired reports whether the message must not be sent any more [MQTT-3.3.2-5].
func (b *body) expired(now int64) bool { return b.expires != 0 && b.expires <= now }

// waited returns for how many seconds the message has been here, if it expires.
func (b *body) waited(now int64) uint32 {
	if b.expires == 0 {
		return 0
	}
	whole := int64(b.properties().UintOr(packet.PropMessageExpiry, 0))
	left := (b.expires - now + int64(time.Second) - 1) / int64(time.Second)
	return uint32(max(0, whole-left))
}

// appendBody makes a body in dst, which may be nil. props are those of the
// PUBLISH or will, of which the body keeps what belongs to the message.
func appendBody[T string | []byte](dst []byte, topic T, payload []byte, props packet.Properties, now int64) body {
	if need := 2 + len(topic) + len(payload) + len(props); cap(dst) < need {
		dst = make([]byte, 0, need)
	}
	dst = append(dst[:0], byte(len(topic)>>8), byte(len(topic)))
	dst = append(dst, topic...)
	dst = append(dst, payload...)
	b := body{props: len(dst)}
	b.buf = props.AppendForwarded(dst)
	if len(props) > 0 {
		if seconds, ok := props.Uint(packet.PropMessageExpiry); ok {
			b.expires = now + int64(seconds)*int64(time.Second) + 1
		}
	}
	return b
}

// What the store keeps of a body: a byte of flags, how many bytes of properties
// there are at the end, when the message expires and when it was published as
// times of [Options.Line] in Unix milliseconds, and the bytes. The numbers are
// there only if their flag is set.
const (
	storedProps   = 1 << 0
	storedExpires = 1 << 1
	storedAt      = 1 << 2
)

var errBody = errors.New("the message makes no sense")

// appendStored appends what the store keeps. line is what [Options.Line] says at
// broker time now.
func (b *body) appendStored(dst []byte, now int64, line time.Time) []byte {
	var flags byte
	if b.props < len(b.buf) {
		flags |= storedProps
	}
	if b.expires != 0 {
		flags |= storedExpires
	}
	if b.at != 0 {
		flags |= storedAt
	}
	dst = append(dst, flags)
	if flags&storedProps != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(b.buf)-b.props))
	}
	if flags&storedExpires != 0 {
		dst = appendTime(dst, line.Add(time.Duration(b.expires-now)))
	}
	if b.at != 0 {
		dst = appendTime(dst, line.Add(time.Duration(b.at-now)))
	}
	return append(dst, b.buf...)
}

func appendTime(dst []byte, at time.Time) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(at.UnixMilli()))
}

// parseBody is the reverse. The body is a copy.
func parseBody(data []byte, now int64, line time.Time) (b body, err error) {
	b, err = viewBody(data, now, line)
	b.buf = append([]byte(nil), b.buf...)
	return b, err
}

// viewBody is parseBody without a copy.
func viewBody(data []byte, now int64, line time.Time) (b body, err error) {
	if len(data) == 0 || data[0]&^(storedProps|storedExpires|storedAt) != 0 {
		return b, errBody
	}
	flags, rest := data[0], data[1:]
	props := uint64(0)
	if flags&storedProps != 0 {
		n := 0
		if props, n = binary.Uvarint(rest); n <= 0 {
			return b, errBody
		}
		rest = rest[n:]
	}
	for _, t := range []struct {
		flag byte
		to   *int64
	}{{storedExpires, &b.expires}, {storedAt, &b.at}} {
		if flags&t.flag == 0 {
			continue
		}
		if len(rest) < 8 {
			return b, errBody
		}
		at := time.UnixMilli(int64(binary.BigEndian.Uint64(rest)))
		if *t.to = now + int64(at.Sub(line)); *t.to == 0 {
			*t.to = -1
		}
		rest = rest[8:]
	}
	b.buf = rest
	if len(rest) < 2 || uint64(len(rest)) < props {
		return b, errBody
	}
	if b.props = len(rest) - int(props); b.props < b.topicEnd() {
		return b, errBody
	}
	return b, nil
}
