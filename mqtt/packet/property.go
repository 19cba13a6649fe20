package packet

import "fmt"

// Property is the identifier of a property in MQTT 5 (section 2.2.2.2). The
// comments say what its value is: for [Properties.Uint] and AppendUint a number,
// for Bytes and AppendText a text or bytes.
type Property byte

// The properties of MQTT 5.0, table 2-4.
const (
	PropPayloadFormat            Property = 0x01 // number: 1 if the payload is UTF-8, else 0
	PropMessageExpiry            Property = 0x02 // number: seconds
	PropContentType              Property = 0x03 // text
	PropResponseTopic            Property = 0x08 // text
	PropCorrelationData          Property = 0x09 // bytes
	PropSubscriptionID           Property = 0x0b // number: 1 to 268435455
	PropSessionExpiry            Property = 0x11 // number: seconds; 0xffffffff: never
	PropAssignedClientID         Property = 0x12 // text
	PropServerKeepAlive          Property = 0x13 // number: seconds, 16 bits
	PropAuthMethod               Property = 0x15 // text
	PropAuthData                 Property = 0x16 // bytes
	PropRequestProblemInfo       Property = 0x17 // number: 0 or 1; absent: 1
	PropWillDelay                Property = 0x18 // number: seconds
	PropRequestResponseInfo      Property = 0x19 // number: 0 or 1; absent: 0
	PropResponseInfo             Property = 0x1a // text
	PropServerReference          Property = 0x1c // text
	PropReasonString             Property = 0x1f // text
	PropReceiveMaximum           Property = 0x21 // number: 1 to 65535; absent: 65535
	PropTopicAliasMaximum        Property = 0x22 // number: 16 bits; absent: 0
	PropTopicAlias               Property = 0x23 // number: 1 to 65535
	PropMaximumQoS               Property = 0x24 // number: 0 or 1; absent: 2
	PropRetainAvailable          Property = 0x25 // number: 0 or 1; absent: 1
	PropUser                     Property = 0x26 // a pair of texts, see User and AppendUser
	PropMaximumPacketSize        Property = 0x27 // number: bytes, 1 or more; absent: no limit
	PropWildcardsAvailable       Property = 0x28 // number: 0 or 1; absent: 1
	PropSubscriptionIDsAvailable Property = 0x29 // number: 0 or 1; absent: 1
	PropSharedAvailable          Property = 0x2a // number: 0 or 1; absent: 1
)

// String is the name that the standard uses, in small letters.
func (p Property) String() string {
	if rule := p.rule(); rule.kind != kindUnknown {
		return rule.name
	}
	return fmt.Sprintf("unknown property 0x%02x", byte(p))
}

// kind is how the value of a property travels.
type kind byte

const (
	kindUnknown kind = iota
	kindBool         // one byte that is 0 or 1
	kindUint16
	kindUint32
	kindVarint
	kindText
	kindBytes
	kindPair // two texts
)

type propertyRule struct {
	name    string
	kind    kind
	nonZero bool
	in      place
}

// rule is that of the property, of kindUnknown if there is no such property.
func (p Property) rule() *propertyRule {
	if int(p) < len(propertyRules) {
		return &propertyRules[p]
	}
	return &propertyRules[0]
}

const (
	inMessages = inWill | inPublish | inServerPublish
	inAll      = inMessages | inConnect | inConnack | inAcks | inSubscribe | inUnsubscribe | inBothDisconnect | inBothAuth
	inBothAuth = inAuth | inServerAuth
)

// propertyRules is never written.
var propertyRules = [...]propertyRule{
	PropPayloadFormat:            {"payload format indicator", kindBool, false, inMessages},
	PropMessageExpiry:            {"message expiry interval", kindUint32, false, inMessages},
	PropContentType:              {"content type", kindText, false, inMessages},
	PropResponseTopic:            {"response topic", kindText, false, inMessages},
	PropCorrelationData:          {"correlation data", kindBytes, false, inMessages},
	PropSubscriptionID:           {"subscription identifier", kindVarint, true, inServerPublish | inSubscribe},
	PropSessionExpiry:            {"session expiry interval", kindUint32, false, inConnect | inConnack | inDisconnect},
	PropAssignedClientID:         {"assigned client identifier", kindText, false, inConnack},
	PropServerKeepAlive:          {"server keep alive", kindUint16, false, inConnack},
	PropAuthMethod:               {"authentication method", kindText, false, inConnect | inConnack | inBothAuth},
	PropAuthData:                 {"authentication data", kindBytes, false, inConnect | inConnack | inBothAuth},
	PropRequestProblemInfo:       {"request problem information", kindBool, false, inConnect},
	PropWillDelay:                {"will delay interval", kindUint32, false, inWill},
	PropRequestResponseInfo:      {"request response information", kindBool, false, inConnect},
	PropResponseInfo:             {"response information", kindText, false, inConnack},
	PropServerReference:          {"server reference", kindText, false, inConnack | inServerDisconnect},
	PropReasonString:             {"reason string", kindText, false, inConnack | inAcks | inBothDisconnect | inBothAuth},
	PropReceiveMaximum:           {"receive maximum", kindUint16, true, inConnect | inConnack},
	PropTopicAliasMaximum:        {"topic alias maximum", kindUint16, false, inConnect | inConnack},
	PropTopicAlias:               {"topic alias", kindUint16, true, inPublish | inServerPublish},
	PropMaximumQoS:               {"maximum QoS", kindBool, false, inConnack},
	PropRetainAvailable:          {"retain available", kindBool, false, inConnack},
	PropUser:                     {"user property", kindPair, false, inAll},
	PropMaximumPacketSize:        {"maximum packet size", kindUint32, true, inConnect | inConnack},
	PropWildcardsAvailable:       {"wildcard subscription available", kindBool, false, inConnack},
	PropSubscriptionIDsAvailable: {"subscription identifiers available", kindBool, false, inConnack},
	PropSharedAvailable:          {"shared subscription available", kindBool, false, inConnack},
}

// properties reads the properties of the packet, which only MQTT 5 has. They
// alias the frame. There are none after an error.
func (r *fields) properties() Properties { return r.propertiesIn(r.place()) }

// propertiesIn reads properties and checks which may stand there, how often, and
// with which values (MQTT 5.0, section 2.2.2).
func (r *fields) propertiesIn(p place) Properties {
	if r.version != V5 {
		return nil
	}
	n := r.varint("property length")
	if n == 0 {
		return nil
	}
	list := r.take(n, "properties")
	behind := r.rest
	r.rest = list
	for seen := uint64(0); len(r.rest) > 0 && r.err == nil; {
		seen = r.property(p, seen)
	}
	r.rest = behind
	if r.err != nil {
		return nil
	}
	return list
}

// property reads one property. seen are the bits of those before it.
func (r *fields) property(p place, seen uint64) uint64 {
	id := Property(r.byte("property identifier")) // those of two bytes are all unknown
	rule := id.rule()
	if rule.in&p == 0 {
		r.forbidden(id, rule)
		return seen
	}
	repeatable := id == PropUser || id == PropSubscriptionID && p == inServerPublish
	if seen&(1<<id) != 0 && !repeatable {
		r.fail(protocolError("MQTT-4.13.1-1", "%s with more than one %s", r.packet, rule.name))
	}
	r.value(id, rule)
	return seen | 1<<id
}

// forbidden fails for a property in the wrong place.
func (r *fields) forbidden(id Property, rule *propertyRule) {
	switch {
	case rule.kind == kindUnknown:
		r.fail(malformed("MQTT-4.13.1-1", "%s with the %s", r.packet, id))
	case r.packet == TypePublish && id == PropSubscriptionID:
		r.fail(protocolError("MQTT-3.3.4-6", "PUBLISH of a client with a subscription identifier"))
	case r.packet == TypeDisconnect && id == PropSessionExpiry:
		r.fail(protocolError("MQTT-3.14.2-2", "DISCONNECT of a server with a session expiry interval"))
	default:
		r.fail(malformed("MQTT-4.13.1-1", "%s with a %s, which must not stand there", r.packet, rule.name))
	}
}

// value reads the value of a property and checks it.
func (r *fields) value(id Property, rule *propertyRule) {
	n := 1
	switch rule.kind {
	case kindBool:
		n = int(r.byte(rule.name))
		if n > 1 {
			r.fail(protocolError("MQTT-4.13.1-1", "%s with the %s %d, it must be 0 or 1", r.packet, rule.name, n))
		}
	case kindUint16:
		n = int(r.uint16(rule.name))
	case kindUint32:
		if zero := r.uint32(rule.name) == 0; zero {
			n = 0
		}
	case kindVarint:
		n = r.varint(rule.name)
	case kindBytes:
		r.binary(rule.name)
	case kindPair: // [MQTT-1.5.7-1]
		r.text(rule.name)
		r.text(rule.name)
	case kindText:
		r.propertyText(id, rule)
	}
	if n == 0 && rule.nonZero {
		r.fail(protocolError(zeroStatement(id), "%s with the %s 0", r.packet, rule.name))
	}
}

// propertyText reads a text, which for a response topic is a topic name.
func (r *fields) propertyText(id Property, rule *propertyRule) {
	if id == PropResponseTopic {
		r.name(rule.name, "MQTT-3.3.2-14") // [MQTT-3.3.2-13]
		return
	}
	r.text(rule.name)
}

// zeroStatement is the statement that forbids the property to be 0.
func zeroStatement(id Property) string {
	if id == PropTopicAlias {
		return "MQTT-3.3.2-8"
	}
	return "MQTT-4.13.1-1"
}
