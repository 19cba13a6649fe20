package packet

import "fmt"

// Error is a malformed packet or a violation of the protocol. The receiver
// closes the connection [MQTT-4.8.0-1]. In MQTT 5 it may say why first
// [MQTT-4.13.1-1].
type Error struct {
	Code   ConnackCode // answers the CONNECT of 3.1.1 and 3.1 before the connection is closed; Accepted: no answer
	Reason Reason      // answers in MQTT 5, in a CONNACK or DISCONNECT; ReasonSuccess in other versions
	Text   string      // what is wrong
	ID     string      // normative statement that is broken, as in "MQTT-2.2.2-2"

	cause error // what the error wraps, if anything
}

// Error is the text and the id of the broken statement.
func (e *Error) Error() string { return e.Text + " [" + e.ID + "]" }

// Unwrap is [mqtt.ErrTooLarge] for a packet over the size limit.
func (e *Error) Unwrap() error { return e.cause }

func violation(id, format string, args ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, args...), ID: id}
}

func refusal(code ConnackCode, id, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...), ID: id}
}

func malformed(id, format string, args ...any) *Error {
	return &Error{Reason: ReasonMalformedPacket, Text: fmt.Sprintf(format, args...), ID: id}
}

func protocolError(id, format string, args ...any) *Error {
	return &Error{Reason: ReasonProtocolError, Text: fmt.Sprintf(format, args...), ID: id}
}

// in is the violation of a 3.1.1 statement as version v knows it. MQTT 5 has the
// same rules under other ids, and a reason for each.
func (e *Error) in(v Version) *Error {
	if v != V5 {
		return e
	}
	e.Reason = ReasonMalformedPacket
	switch e.ID {
	case "MQTT-1.5.3-1":
		e.ID = "MQTT-1.5.4-1"
	case "MQTT-1.5.3-2":
		e.ID = "MQTT-1.5.4-2"
	case "MQTT-2.2.2-2":
		e.ID = "MQTT-2.1.3-1"
	case "MQTT-3.1.2-13":
		e.ID, e.Reason = "MQTT-3.1.2-11", ReasonProtocolError
	case "MQTT-3.1.2-14":
		e.ID = "MQTT-3.1.2-12"
	case "MQTT-3.1.2-15":
		e.ID, e.Reason = "MQTT-3.1.2-13", ReasonProtocolError
	case "MQTT-3.8.3-3":
		e.ID, e.Reason = "MQTT-3.8.3-2", ReasonProtocolError
	case "MQTT-3.9.3-1", "MQTT-3.10.3-2":
		e.Reason = ReasonProtocolError
	case "MQTT-4.7.1-1":
		e.ID = "MQTT-4.7.0-1"
	case "MQTT-4.7.1-2":
		e.ID = "MQTT-4.7.1-1"
	case "MQTT-4.7.1-3":
		e.ID = "MQTT-4.7.1-2"
	case "MQTT-4.8.0-1":
		e.ID = "MQTT-4.13.1-1"
	}
	return e
}
