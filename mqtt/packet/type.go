package packet

import "fmt"

// Type is the kind of a packet (MQTT 3.1.1, table 2.1).
type Type byte

// The packet types. 0 is forbidden, and so is 15 before MQTT 5.
const (
	TypeConnect Type = iota + 1
	TypeConnack
	TypePublish
	TypePuback
	TypePubrec
	TypePubrel
	TypePubcomp
	TypeSubscribe
	TypeSuback
	TypeUnsubscribe
	TypeUnsuback
	TypePingreq
	TypePingresp
	TypeDisconnect
	TypeAuth // MQTT 5 only
)

// String is the name that the standard uses, as in "PUBLISH".
func (t Type) String() string {
	names := [...]string{
		TypeConnect: "CONNECT", TypeConnack: "CONNACK",
		TypePublish: "PUBLISH", TypePuback: "PUBACK", TypePubrec: "PUBREC", TypePubrel: "PUBREL", TypePubcomp: "PUBCOMP",
		TypeSubscribe: "SUBSCRIBE", TypeSuback: "SUBACK", TypeUnsubscribe: "UNSUBSCRIBE", TypeUnsuback: "UNSUBACK",
		TypePingreq: "PINGREQ", TypePingresp: "PINGRESP", TypeDisconnect: "DISCONNECT", TypeAuth: "AUTH",
	}
	if t == 0 || int(t) >= len(names) {
		return fmt.Sprintf("packet type %d", byte(t))
	}
	return names[t]
}

// Version is the protocol level of a CONNECT (MQTT 3.1.1, section 3.1.2.2).
type Version byte

// The versions that the package speaks.
const (
	V31  Version = 3 // MQTT 3.1 (IBM and Eurotech, 2010)
	V311 Version = 4 // MQTT 3.1.1 (OASIS, 2014)
	V5   Version = 5 // MQTT 5.0 (OASIS, 2019)
)

// String is the version as people write it, as in "3.1.1".
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return fmt.Sprintf("protocol level %d", byte(v))
}

// ConnackCode is a server's answer to a CONNECT before MQTT 5 (MQTT 3.1.1, table
// 3.1). In MQTT 5 it is a [Reason].
type ConnackCode byte

// The answers to a CONNECT. Higher codes are reserved.
const (
	Accepted ConnackCode = iota
	RefusedVersion
	RefusedClientID
	RefusedUnavailable
	RefusedCredentials
	RefusedNotAuthorized
)

// String says in words what the code means and, for a refusal, what to check.
func (c ConnackCode) String() string {
	switch c {
	case Accepted:
		return "accepted"
	case RefusedVersion:
		return "protocol version not supported: try another MQTT version"
	case RefusedClientID:
		return "client identifier rejected: choose another client id"
	case RefusedUnavailable:
		return "server unavailable: try again later"
	case RefusedCredentials:
		return "bad user name or password: check both"
	case RefusedNotAuthorized:
		return "not authorised: check user name and password, and whether this client may connect"
	}
	return fmt.Sprintf("reserved return code %d: the server may speak another MQTT version", byte(c))
}
