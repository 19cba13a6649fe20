package packet

import (
	"unicode/utf8"

	"tidegate/mqtt"
)

// Publish carries one message (MQTT 3.1.1, section 3.3). Topic and Payload alias
// the frame that they were decoded from.
type Publish struct {
	Topic   []byte
	Payload []byte
	ID      uint16 // packet identifier; 0 at QoS 0
	QoS     mqtt.QoS
	Retain  bool
	Dup     bool // the sender sends it again

	Version    Version    // V5 has Properties
	Properties Properties // with a topic alias the topic may be empty
}

// The flags of a PUBLISH (MQTT 3.1.1, figure 3.10).
const (
	publishRetain = 0x01
	publishQoS    = 0x06
	publishDup    = 0x08

	publishQoSShift = 1
)

// Decode reads a PUBLISH without copying and without allocation.
func (p *Publish) Decode(f Frame) error {
	r := newFields(f)
	*p = Publish{Version: f.Version}
	p.Topic = r.nameOrNone("topic name", "MQTT-3.3.2-2") // [MQTT-3.3.2-1]
	p.QoS = mqtt.QoS(f.First & publishQoS >> publishQoSShift)
	p.Retain = f.First&publishRetain != 0
	p.Dup = f.First&publishDup != 0
	switch {
	case !p.QoS.Valid():
		r.violation("MQTT-3.3.1-4", "PUBLISH with QoS 3")
	case p.QoS != mqtt.AtMostOnce:
		p.ID = r.id()
	case p.Dup:
		r.violation("MQTT-3.3.1-2", "PUBLISH with QoS 0 is marked as a duplicate")
	}
	switch {
	case f.Version == V5:
		p.decodeProperties(&r)
	case len(p.Topic) == 0:
		r.violation("MQTT-4.7.3-1", "PUBLISH with an empty topic name")
	}
	p.Payload = r.rest
	return r.err
}

// decodeProperties reads the properties and checks what they say about the rest.
func (p *Publish) decodeProperties(r *fields) {
	p.Properties = r.properties()
	if len(p.Topic) == 0 {
		if _, ok := p.Properties.Uint(PropTopicAlias); !ok {
			r.fail(protocolError("MQTT-4.7.3-1", "PUBLISH with neither a topic name nor a topic alias"))
		}
	}
	r.checkFormat(p.Properties, r.rest)
}

// checkFormat checks that a payload is UTF-8 if the properties say so (MQTT 5.0,
// section 3.3.2.3.2).
func (r *fields) checkFormat(p Properties, payload []byte) {
	if p.UintOr(PropPayloadFormat, 0) == 1 && !utf8.Valid(payload) {
		err := malformed("MQTT-4.13.1-1", "%s with a payload that is not UTF-8 although its payload format indicator says so", r.packet)
		err.Reason = ReasonPayloadFormatInvalid
		r.fail(err)
	}
}

// Append appends p as a packet.
func (p *Publish) Append(dst []byte) []byte {
	size := 2 + len(p.Topic) + len(p.Payload)
	if p.Version == V5 {
		size += p.Properties.size()
	}
	dst = appendPublishHeader(dst, size, p.QoS, p.Retain, p.Dup)
	dst = appendField(dst, p.Topic)
	if p.QoS != mqtt.AtMostOnce {
		dst = appendUint16(dst, p.ID)
	}
	if p.Version == V5 {
		dst = appendProperties(dst, p.Properties)
	}
	return append(dst, p.Payload...)
}

// AppendBody appends topic and payload as [AppendPublish] and [AppendPublish5]
// want them, which takes 2+len(p.Topic)+len(p.Payload) bytes. topicEnd is where
// the payload begins, counted from the first byte appended.
func (p *Publish) AppendBody(dst []byte) (body []byte, topicEnd int) {
	dst = appendField(dst, p.Topic)
	return append(dst, p.Payload...), 2 + len(p.Topic)
}

// PublishOverhead is the most that [AppendPublish] and [AppendPublish5] add to body
// and properties: the fixed header, the packet identifier, and the length of the
// properties.
const PublishOverhead = 1 + 4 + 2 + 4

// AppendPublish appends a PUBLISH whose body is the concatenation [two bytes of
// topic length][topic][payload]. topicEnd is 2+len(topic). id is left out at
// QoS 0 [MQTT-2.3.1-5].
func AppendPublish(dst, body []byte, topicEnd int, q mqtt.QoS, retain, dup bool, id uint16) []byte {
	dst = appendPublishHeader(dst, len(body), q, retain, dup)
	if q == mqtt.AtMostOnce {
		return append(dst, body...)
	}
	dst = append(dst, body[:topicEnd]...)
	dst = appendUint16(dst, id)
	return append(dst, body[topicEnd:]...)
}

// appendPublishHeader appends the fixed header for bodySize bytes of topic,
// properties and payload, to which QoS 1 and 2 add the packet identifier.
func appendPublishHeader(dst []byte, bodySize int, q mqtt.QoS, retain, dup bool) []byte {
	first := byte(TypePublish)<<4 | byte(q)<<publishQoSShift
	if retain {
		first |= publishRetain
	}
	if dup {
		first |= publishDup
	}
	if q != mqtt.AtMostOnce {
		bodySize += 2
	}
	return appendHeader(dst, first, bodySize)
}
