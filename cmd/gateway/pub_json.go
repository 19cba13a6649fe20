package main

import (
	"encoding/json"
	"fmt"

	"tidegate/admin"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// parse makes a message of one line of the input. The properties are those of
// MQTT 5.
func (c *PubCmd) parse(line []byte) (mqtt.Message, packet.Properties, error) {
	if !c.JSONLines {
		return c.message(line), nil, nil
	}
	var m admin.Message
	if err := json.Unmarshal(line, &m); err != nil {
		return mqtt.Message{}, nil, fmt.Errorf("read the line %.40q: it is no message as queue export writes them: %w", line, err)
	}
	var p packet.Properties
	if c.isV5() {
		p = properties(&m)
	}
	return mqtt.Message{Topic: m.Topic, Payload: m.Bytes(), QoS: m.QoS, Retain: m.Retain}, p, nil
}

// properties are those that a PUBLISH of m carries.
func properties(m *admin.Message) (p packet.Properties) {
	if m.UTF8 {
		p = p.AppendUint(packet.PropPayloadFormat, 1)
	}
	if m.ExpirySeconds > 0 {
		p = p.AppendUint(packet.PropMessageExpiry, m.ExpirySeconds)
	}
	if m.ContentType != "" {
		p = p.AppendText(packet.PropContentType, m.ContentType)
	}
	if m.ResponseTopic != "" {
		p = p.AppendText(packet.PropResponseTopic, m.ResponseTopic)
	}
	if len(m.CorrelationData) > 0 {
		p = p.AppendText(packet.PropCorrelationData, string(m.CorrelationData))
	}
	for _, u := range m.User {
		p = p.AppendUser(u.Name, u.Value)
	}
	return p
}
