package client

import (
	"bytes"
	"fmt"

	"tidegate/mqtt/packet"
)

// RefusedError is the answer of a broker that does not take the connection.
type RefusedError struct {
	Code packet.ConnackCode // Accepted in MQTT 5

	Reason     packet.Reason     // MQTT 5 only
	Properties packet.Properties // MQTT 5 only: may name another server
}

// Error says in words why, and what to check.
func (e *RefusedError) Error() string {
	if e.Code != packet.Accepted {
		return "the broker refused the connection: " + e.Code.String()
	}
	return "the broker refused the connection: " + words(e.Reason, e.Properties)
}

// ReasonError is a packet of the broker that says in MQTT 5 that something
// failed: the answer to a request, or a DISCONNECT, whatever its reason.
type ReasonError struct {
	Packet     packet.Type
	Reason     packet.Reason
	Properties packet.Properties // those of the packet
}

// Error says in words what failed, and what to check.
func (e *ReasonError) Error() string {
	text := words(e.Reason, e.Properties)
	if e.Packet == packet.TypeDisconnect {
		return "the broker ended the connection: " + text
	}
	return fmt.Sprintf("the broker answers with %s 0x%02x: %s", e.Packet, byte(e.Reason), text)
}

// words are those of the reason and of the broker.
func words(r packet.Reason, p packet.Properties) string {
	text := r.String()
	if said := p.Text(packet.PropReasonString); said != "" {
		text += " (" + said + ")"
	}
	if server := p.Text(packet.PropServerReference); server != "" {
		text += ": " + server
	}
	return text
}

// failure is the error that an answer with the reason means, or nil.
func failure(t packet.Type, r packet.Reason, p packet.Properties) error {
	if !r.Failed() {
		return nil
	}
	return &ReasonError{Packet: t, Reason: r, Properties: bytes.Clone(p)}
}
