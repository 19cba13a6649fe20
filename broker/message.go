package broker

import (
	"bytes"
	"math"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// The properties of MQTT 5 travel as bytes; those inside the process who publish
// and receive see them as fields of [mqtt.Message].

// propertiesOf returns the properties of m as they travel.
func propertiesOf(m *mqtt.Message) (p packet.Properties) {
	if m.Expiry > 0 {
		p = p.AppendUint(packet.PropMessageExpiry, uint32(min(max(m.Expiry/time.Second, 1), math.MaxUint32)))
	}
	from := m.Properties
	if from == nil {
		return p
	}
	if from.UTF8 {
		p = p.AppendUint(packet.PropPayloadFormat, 1)
	}
	for _, field := range []struct {
		id   packet.Property
		text string
	}{
		{packet.PropContentType, from.ContentType},
		{packet.PropResponseTopic, from.ResponseTopic},
		{packet.PropCorrelationData, string(from.CorrelationData)},
	} {
		if field.text != "" {
			p = p.AppendText(field.id, field.text)
		}
	}
	for _, u := range from.User {
		p = p.AppendUser(u.Name, u.Value)
	}
	return p
}

// describe puts the properties of b into m. What is left of the expiry is at least
// a second: who gets the message knows then that it expires.
func (b *body) describe(m *mqtt.Message, now int64) {
	p := b.properties()
	if len(p) == 0 {
		return
	}
	if whole, ok := p.Uint(packet.PropMessageExpiry); ok {
		m.Expiry = time.Duration(max(1, whole-min(whole, b.waited(now)))) * time.Second
	}
	d := mqtt.Properties{
		UTF8:          p.UintOr(packet.PropPayloadFormat, 0) == 1,
		ContentType:   p.Text(packet.PropContentType),
		ResponseTopic: p.Text(packet.PropResponseTopic),
	}
	if data, ok := p.Bytes(packet.PropCorrelationData); ok {
		d.CorrelationData = bytes.Clone(data)
	}
	for name, value := range p.User() {
		d.User = append(d.User, mqtt.UserProperty{Name: name, Value: value})
	}
	m.Properties = &d
}
