package broker

import (
	"errors"
	"strings"

	"tidegate/broker/auth"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// reasons says to a client of MQTT 5 what an error means.
var reasons = []struct {
	err    error
	reason packet.Reason
}{
	{mqtt.ErrTooLarge, packet.ReasonPacketTooLarge},
	{errTakenOver, packet.ReasonSessionTakenOver},
	{errShutdown, packet.ReasonServerShuttingDown},
	{errKeepAlive, packet.ReasonKeepAliveTimeout},
	{errTooManyQoS2, packet.ReasonReceiveMaximumExceeded},
	{errStore, packet.ReasonUnspecifiedError},
	{errTooMany, packet.ReasonQuotaExceeded},
	{errMemory, packet.ReasonQuotaExceeded},
	{errNoMemory, packet.ReasonQuotaExceeded},
	{errMethod, packet.ReasonBadAuthenticationMethod},
	{auth.ErrNotAuthorized, packet.ReasonNotAuthorized},
	{auth.ErrBadCredentials, packet.ReasonBadUsernameOrPassword},
	{errShareName, packet.ReasonTopicFilterInvalid},
	{errShares, packet.ReasonQuotaExceeded},
	{errSubscriptions, packet.ReasonQuotaExceeded},
	{errTooDeep, packet.ReasonTopicFilterInvalid},
	{errRetained, packet.ReasonQuotaExceeded},
}

// reasonFor says to a client of MQTT 5 why something fails, with otherwise if there
// is no word for it.
func reasonFor(why error, otherwise packet.Reason) packet.Reason {
	var e *packet.Error
	if errors.As(why, &e) {
		return e.Reason
	}
	for _, r := range reasons {
		if errors.Is(why, r.err) {
			return r.reason
		}
	}
	return otherwise
}

// maxReasonText is the longest reason string that is sent, in bytes.
const maxReasonText = 200

// because is the property that says in words why something fails, unless the client
// wants none [MQTT-3.1.2-29]. Of one whose CONNECT could not be read that is not
// known. What an authenticator has to say is not for strangers.
func (f *client5) because(reason packet.Reason, why error) packet.Properties {
	if f != nil && !f.reasons {
		return nil
	}
	text := why.Error()
	if errors.As(why, new(refusal)) {
		text = reason.String()
	}
	text = strings.ToValidUTF8(text[:min(len(text), maxReasonText)], "") // it may be cut inside a character
	return packet.Properties(nil).AppendText(packet.PropReasonString, strings.ReplaceAll(text, "\x00", ""))
}

// fit encodes an answer, without its properties if it would be too large for the
// client with them [MQTT-3.2.2-19] [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1]
// [MQTT-3.14.2-3].
func (f *client5) fit(props *packet.Properties, encode func([]byte) []byte) []byte {
	raw := encode(nil)
	if len(*props) > 0 && !f.takes(len(raw)) {
		*props = nil
		raw = encode(raw[:0])
	}
	return raw
}

// complaints are the errors about the filters of one SUBSCRIBE, each said once and
// no more than a reason string has room for.
type complaints struct{ text string }

func (c *complaints) Error() string { return c.text }

func (c *complaints) add(err error) {
	if len(c.text) >= maxReasonText || strings.Contains(c.text, err.Error()) {
		return
	}
	if c.text != "" {
		c.text += "; "
	}
	c.text += err.Error()
}

// goodbye sends a client of MQTT 5 the reason why its connection ends
// [MQTT-4.13.2-1]. Nothing is written to any client after that.
func (c *conn) goodbye(why error) {
	defer c.out.close()
	f := c.five.Load()
	reason := reasonFor(why, packet.ReasonSuccess)
	if f == nil || reason == packet.ReasonSuccess {
		return
	}
	d := packet.Disconnect5{Reason: reason, Properties: f.because(reason, why)}
	c.out.packet(f.fit(&d.Properties, d.Append))
	c.out.flush()
}
