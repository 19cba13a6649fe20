package packet

import (
	"encoding/binary"
	"iter"
)

// Properties are the properties of a packet of MQTT 5 as they travel, without
// their length: what Decode checked, or what the Append methods built. nil is
// none. Those that came with a frame alias it unless Decode says otherwise.
//
// Looking one up walks the list, which is short.
type Properties []byte

// next is the first property, its value as it travels, and the properties behind
// it. Properties are lawful, so all of it is there.
func (p Properties) next() (id Property, value []byte, rest Properties) {
	id, p = Property(p[0]), p[1:]
	n := 0
	switch id.rule().kind {
	case kindBool:
		n = 1
	case kindUint16:
		n = 2
	case kindUint32:
		n = 4
	case kindVarint:
		_, n = binary.Uvarint(p)
	case kindText, kindBytes:
		n = fieldSize(p)
	case kindPair:
		n = fieldSize(p)
		n += fieldSize(p[n:])
	case kindUnknown:
		panic("packet: properties that were not decoded")
	}
	return id, p[:n:n], p[n:]
}

// fieldSize is how many bytes the field at the start of b takes with its length.
func fieldSize(b []byte) int { return 2 + int(binary.BigEndian.Uint16(b)) }

// find is the value of the first property id, or nil.
func (p Properties) find(id Property) []byte {
	for len(p) > 0 {
		got, value, rest := p.next()
		if got == id {
			return value
		}
		p = rest
	}
	return nil
}

// Uint is the value of a property that is a number. ok: it is there.
func (p Properties) Uint(id Property) (n uint32, ok bool) {
	value := p.find(id)
	if value == nil {
		return 0, false
	}
	if id.rule().kind == kindVarint {
		n, _ := binary.Uvarint(value)
		return uint32(n), true
	}
	for _, b := range value {
		n = n<<8 | uint32(b)
	}
	return n, true
}

// UintOr is the value of a property that is a number, or absent if it is not
// there.
func (p Properties) UintOr(id Property, absent uint32) uint32 {
	if n, ok := p.Uint(id); ok {
		return n
	}
	return absent
}

// Bytes is the value of a property that is a text or bytes; it aliases p. ok: it
// is there.
func (p Properties) Bytes(id Property) (b []byte, ok bool) {
	value := p.find(id)
	if value == nil {
		return nil, false
	}
	return value[2:], true
}

// Text is the value of a property that is a text, or "" if it is not there.
func (p Properties) Text(id Property) string {
	b, _ := p.Bytes(id)
	return string(b)
}

// User are the names and values of the user properties in their order.
func (p Properties) User() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for rest := p; len(rest) > 0; {
			var id Property
			var pair []byte
			id, pair, rest = rest.next()
			if id != PropUser {
				continue
			}
			n := fieldSize(pair)
			if !yield(string(pair[2:n]), string(pair[n+2:])) {
				return
			}
		}
	}
}

// SubscriptionIDs are those of a PUBLISH from a server: one for each subscription
// that has an identifier and matches the topic.
func (p Properties) SubscriptionIDs() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for rest := p; len(rest) > 0; {
			var id Property
			var value []byte
			id, value, rest = rest.next()
			if n, _ := binary.Uvarint(value); id == PropSubscriptionID && !yield(uint32(n)) {
				return
			}
		}
	}
}

// AppendUint appends a property that is a number. A number that is too large for
// the property is cut.
func (p Properties) AppendUint(id Property, n uint32) Properties {
	p = append(p, byte(id))
	switch id.rule().kind {
	case kindBool:
		return append(p, byte(n))
	case kindUint16:
		return appendUint16(p, uint16(n))
	case kindVarint:
		return appendVarint(p, int(n&maxLength))
	}
	return binary.BigEndian.AppendUint32(p, n)
}

// AppendText appends a property that is a text or bytes, of at most 65535 bytes.
func (p Properties) AppendText(id Property, text string) Properties {
	return appendField(append(p, byte(id)), text)
}

// AppendUser appends a user property.
func (p Properties) AppendUser(name, value string) Properties {
	return appendField(appendField(append(p, byte(PropUser)), name), value)
}

// AppendForwarded appends to dst those properties of a PUBLISH or a will that
// belong to the message and go with it wherever it goes, in their order: payload
// format, message expiry, content type, response topic, correlation data and user
// properties [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17]
// [MQTT-3.3.2-18] [MQTT-3.3.2-20]. That is at most len(p) bytes.
func (p Properties) AppendForwarded(dst Properties) Properties {
	for len(p) > 0 {
		id, _, rest := p.next()
		if id.rule().in&inWill != 0 && id != PropWillDelay {
			dst = append(dst, p[:len(p)-len(rest)]...)
		}
		p = rest
	}
	return dst
}

// size is how many bytes p takes with its length.
func (p Properties) size() int { return varintSize(len(p)) + len(p) }

// appendProperties appends p behind its length [MQTT-2.2.2-1].
func appendProperties(dst []byte, p Properties) []byte {
	return append(appendVarint(dst, len(p)), p...)
}
