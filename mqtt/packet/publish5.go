package packet

import (
	"encoding/binary"

	"tidegate/mqtt"
)

// Extra is what a server adds to the properties of a message for one receiver.
// The zero Extra forwards them as they are.
type Extra struct {
	// Waited is for how many seconds the message waited in the server. They are
	// taken off its message expiry, if it has one, down to 0 [MQTT-3.3.2-6].
	// Messages that have expired are not to be sent at all [MQTT-3.3.2-5].
	Waited uint32

	Alias     uint16 // topic alias; 0: none [MQTT-3.3.2-8]
	OmitTopic bool   // the receiver knows the alias: the topic name is left empty

	// SubscriptionIDs are those of the receiver's subscriptions that match
	// [MQTT-3.3.4-3].
	SubscriptionIDs []uint32
}

// Size is how many bytes x adds to the properties.
func (x *Extra) Size() int {
	n := 0
	if x.Alias != 0 {
		n += 3
	}
	for _, id := range x.SubscriptionIDs {
		n += 1 + varintSize(int(id))
	}
	return n
}

// append appends the properties that x adds.
func (x *Extra) append(dst []byte) []byte {
	p := Properties(dst)
	if x.Alias != 0 {
		p = p.AppendUint(PropTopicAlias, uint32(x.Alias))
	}
	for _, id := range x.SubscriptionIDs {
		p = p.AppendUint(PropSubscriptionID, id)
	}
	return p
}

// AppendPublish5 is [AppendPublish] for MQTT 5. props are properties that belong
// to the message, as [Properties.AppendForwarded] selects them.
func AppendPublish5(dst, body []byte, topicEnd int, props Properties, q mqtt.QoS, retain, dup bool, id uint16, x Extra) []byte {
	topic, payload := body[:topicEnd], body[topicEnd:]
	if x.OmitTopic {
		topic = []byte{0, 0}
	}
	n := len(props) + x.Size()
	dst = appendPublishHeader(dst, len(topic)+varintSize(n)+n+len(payload), q, retain, dup)
	dst = append(dst, topic...)
	if q != mqtt.AtMostOnce {
		dst = appendUint16(dst, id)
	}
	dst = appendVarint(dst, n)
	dst = append(dst, props...)
	if x.Waited > 0 {
		Properties(dst[len(dst)-len(props):]).age(x.Waited)
	}
	dst = x.append(dst)
	return append(dst, payload...)
}

// age takes seconds off the message expiry in p.
func (p Properties) age(seconds uint32) {
	if expiry := p.find(PropMessageExpiry); expiry != nil {
		left := binary.BigEndian.Uint32(expiry)
		binary.BigEndian.PutUint32(expiry, left-min(left, seconds))
	}
}
