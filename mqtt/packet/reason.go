package packet

import "fmt"

// Reason is the outcome of an operation in MQTT 5 (section 2.4). Below 0x80 it
// succeeded.
type Reason byte

// The reasons of MQTT 5.0, table 2-6.
const (
	ReasonSuccess                     Reason = 0x00 // in SUBACK: granted QoS 0; in DISCONNECT: normal
	ReasonGrantedQoS1                 Reason = 0x01
	ReasonGrantedQoS2                 Reason = 0x02
	ReasonDisconnectWithWill          Reason = 0x04
	ReasonNoMatchingSubscribers       Reason = 0x10
	ReasonNoSubscriptionExisted       Reason = 0x11
	ReasonContinueAuthentication      Reason = 0x18
	ReasonReauthenticate              Reason = 0x19
	ReasonUnspecifiedError            Reason = 0x80
	ReasonMalformedPacket             Reason = 0x81
	ReasonProtocolError               Reason = 0x82
	ReasonImplementationError         Reason = 0x83
	ReasonUnsupportedVersion          Reason = 0x84
	ReasonClientIDNotValid            Reason = 0x85
	ReasonBadUsernameOrPassword       Reason = 0x86
	ReasonNotAuthorized               Reason = 0x87
	ReasonServerUnavailable           Reason = 0x88
	ReasonServerBusy                  Reason = 0x89
	ReasonBanned                      Reason = 0x8a
	ReasonServerShuttingDown          Reason = 0x8b
	ReasonBadAuthenticationMethod     Reason = 0x8c
	ReasonKeepAliveTimeout            Reason = 0x8d
	ReasonSessionTakenOver            Reason = 0x8e
	ReasonTopicFilterInvalid          Reason = 0x8f
	ReasonTopicNameInvalid            Reason = 0x90
	ReasonPacketIDInUse               Reason = 0x91
	ReasonPacketIDNotFound            Reason = 0x92
	ReasonReceiveMaximumExceeded      Reason = 0x93
	ReasonTopicAliasInvalid           Reason = 0x94
	ReasonPacketTooLarge              Reason = 0x95
	ReasonMessageRateTooHigh          Reason = 0x96
	ReasonQuotaExceeded               Reason = 0x97
	ReasonAdministrativeAction        Reason = 0x98
	ReasonPayloadFormatInvalid        Reason = 0x99
	ReasonRetainNotSupported          Reason = 0x9a
	ReasonQoSNotSupported             Reason = 0x9b
	ReasonUseAnotherServer            Reason = 0x9c
	ReasonServerMoved                 Reason = 0x9d
	ReasonSharedNotSupported          Reason = 0x9e
	ReasonConnectionRateExceeded      Reason = 0x9f
	ReasonMaximumConnectTime          Reason = 0xa0
	ReasonSubscriptionIDsNotSupported Reason = 0xa1
	ReasonWildcardsNotSupported       Reason = 0xa2
)

// Failed reports whether r says that the operation did not succeed.
func (r Reason) Failed() bool { return r >= ReasonUnspecifiedError }

// String says in words what r means and, where somebody can do something about
// it, what.
func (r Reason) String() string {
	if text := r.rule().text; text != "" {
		return text
	}
	return fmt.Sprintf("reserved reason code 0x%02x", byte(r))
}

// lawful reports whether r may stand there.
func (r Reason) lawful(p place) bool { return r.rule().in&p != 0 }

type reasonRule struct {
	text string
	in   place
}

func (r Reason) rule() reasonRule {
	if int(r) < len(reasonRules) {
		return reasonRules[r]
	}
	return reasonRule{}
}

const (
	inPublishAcks    = inPuback | inPubrec
	inBothDisconnect = inDisconnect | inServerDisconnect
	inRefusals       = inConnack | inPublishAcks | inSuback | inUnsuback
)

// reasonRules is never written. MQTT 5.0, table 2-6; table 3-10 says who sends
// which in a DISCONNECT. Success from a server that disconnects is let pass.
var reasonRules = [...]reasonRule{
	ReasonSuccess:                {"success", inConnack | inAcks | inBothDisconnect | inServerAuth},
	ReasonGrantedQoS1:            {"granted QoS 1", inSuback},
	ReasonGrantedQoS2:            {"granted QoS 2", inSuback},
	ReasonDisconnectWithWill:     {"disconnect, and publish the will", inDisconnect},
	ReasonNoMatchingSubscribers:  {"no matching subscribers", inPublishAcks},
	ReasonNoSubscriptionExisted:  {"no subscription existed", inUnsuback},
	ReasonContinueAuthentication: {"continue authentication", inAuth | inServerAuth},
	ReasonReauthenticate:         {"authenticate again", inAuth},

	ReasonUnspecifiedError:        {"unspecified error: the other side's log may say more", inRefusals | inBothDisconnect},
	ReasonMalformedPacket:         {"malformed packet", inConnack | inBothDisconnect},
	ReasonProtocolError:           {"protocol error", inConnack | inBothDisconnect},
	ReasonImplementationError:     {"implementation specific error: the other side does not take this packet, though it is lawful", inRefusals | inBothDisconnect},
	ReasonUnsupportedVersion:      {"protocol version not supported: try another MQTT version", inConnack},
	ReasonClientIDNotValid:        {"client identifier not valid: choose another client id", inConnack},
	ReasonBadUsernameOrPassword:   {"bad user name or password: check both", inConnack},
	ReasonNotAuthorized:           {"not authorised: check user name and password, and what this client may do", inRefusals | inServerDisconnect},
	ReasonServerUnavailable:       {"server unavailable: try again later", inConnack},
	ReasonServerBusy:              {"server busy: try again later", inConnack | inServerDisconnect},
	ReasonBanned:                  {"banned: ask the server's operator", inConnack},
	ReasonServerShuttingDown:      {"server shutting down", inServerDisconnect},
	ReasonBadAuthenticationMethod: {"bad authentication method: the server does not support it, or it changed", inConnack | inServerDisconnect},
	ReasonKeepAliveTimeout:        {"keep alive timeout: nothing came for one and a half times the keep alive", inServerDisconnect},
	ReasonSessionTakenOver:        {"session taken over: another connection uses the same client id", inServerDisconnect},
	ReasonTopicFilterInvalid:      {"topic filter invalid: it is not allowed here", inSuback | inUnsuback | inServerDisconnect},
	ReasonTopicNameInvalid:        {"topic name invalid: it is not accepted here", inConnack | inPublishAcks | inBothDisconnect},
	ReasonPacketIDInUse:           {"packet identifier in use: the two sides disagree about the session", inPublishAcks | inSuback | inUnsuback},
	ReasonPacketIDNotFound:        {"packet identifier not found: the two sides disagree about the session", inPubrel | inPubcomp},
	ReasonReceiveMaximumExceeded:  {"receive maximum exceeded: too many publications without an acknowledgement", inBothDisconnect},
	ReasonTopicAliasInvalid:       {"topic alias invalid", inBothDisconnect},
	ReasonPacketTooLarge:          {"packet too large", inConnack | inBothDisconnect},
	ReasonMessageRateTooHigh:      {"message rate too high: publish less", inBothDisconnect},
	ReasonQuotaExceeded:           {"quota exceeded", inConnack | inPublishAcks | inSuback | inBothDisconnect},
	ReasonAdministrativeAction:    {"administrative action: an operator closed the connection", inBothDisconnect},
	ReasonPayloadFormatInvalid:    {"payload format invalid: the payload is not the UTF-8 that its properties promise", inConnack | inPublishAcks | inBothDisconnect},
	ReasonRetainNotSupported:      {"retain not supported: publish without the retain flag", inConnack | inServerDisconnect},
	ReasonQoSNotSupported:         {"QoS not supported: use a lower one", inConnack | inServerDisconnect},
	ReasonUseAnotherServer:        {"use another server for now", inConnack | inServerDisconnect},
	ReasonServerMoved:             {"server moved: use another server from now on", inConnack | inServerDisconnect},
	ReasonSharedNotSupported:      {"shared subscriptions not supported", inSuback | inServerDisconnect},
	ReasonConnectionRateExceeded:  {"connection rate exceeded: connect less often", inConnack | inServerDisconnect},
	ReasonMaximumConnectTime:      {"maximum connect time: the server allows no longer connection", inServerDisconnect},

	ReasonSubscriptionIDsNotSupported: {"subscription identifiers not supported", inSuback | inServerDisconnect},
	ReasonWildcardsNotSupported:       {"wildcard subscriptions not supported: name each topic", inSuback | inServerDisconnect},
}

// reason reads a reason code that is lawful in the packet; id is the statement
// that says so.
func (r *fields) reason(id string) Reason {
	code := Reason(r.byte("reason code"))
	if !code.lawful(r.place()) {
		r.fail(protocolError(id, "%s with the reason code 0x%02x, which it must not have here", r.packet, byte(code)))
	}
	return code
}
