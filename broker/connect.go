package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"tidegate/broker/auth"
	"tidegate/mqtt/packet"
)

// maxClientID is the longest client identifier in bytes. The standard asks for 23.
const maxClientID = 4096

// arrival is a CONNECT that is not answered yet.
type arrival struct {
	packet.Connect
	assigned bool     // the broker has chosen the client identifier
	five     *client5 // nil: not MQTT 5, or not even a CONNECT
	proof    []byte   // what the CONNACK says of an authentication in steps
}

// connect handles a CONNECT (MQTT 3.1.1, section 3.1).
func (c *conn) connect(t *turn, f packet.Frame) error {
	var a arrival
	if err := a.Decode(f); err != nil {
		return c.refuse(t, &a, err)
	}
	if a.Version == packet.V5 {
		a.five = newClient5(&a.Connect, c.b)
	}
	if a.assigned = a.ClientID == ""; a.assigned { // [MQTT-3.1.3-6]
		a.ClientID = "auto-" + rand.Text()
	}
	if len(a.ClientID) > maxClientID {
		return c.refuse(t, &a, &packet.Error{
			Code: packet.RefusedClientID, Reason: packet.ReasonClientIDNotValid, ID: "MQTT-3.1.3-8",
			Text: fmt.Sprintf("the client id has %d bytes, at most %d are allowed", len(a.ClientID), maxClientID),
		})
	}
	c.client.ID = a.ClientID
	if method, named := a.Properties.Bytes(packet.PropAuthMethod); named {
		return c.beginExchange(t, &a, string(method))
	}
	t.end() // it may take long
	who, err := c.authenticate(&a.Connect)
	t.begin()
	return c.admit(t, &a, who, err)
}

// welcome gives an admitted client its session.
func (c *conn) welcome(t *turn, a *arrival) error {
	if a.Will != nil && !c.b.memory.room(forSessions) {
		return c.refuse(t, a, errNoMemory)
	}
	expiry := c.b.expiry(&a.Connect)
	k := packet.Connack{Version: a.Version}
	if a.five != nil {
		k.Properties = c.connack(a, expiry)
	}
	raw := k.Append(nil)
	if !a.five.takes(len(raw)) {
		return c.refuse(t, a, &packet.Error{
			Reason: packet.ReasonPacketTooLarge, ID: "MQTT-3.1.2-24",
			Text: fmt.Sprintf("the client takes packets of at most %d bytes, and CONNACK has %d", a.five.maxPacket, len(raw)),
		})
	}
	s, present, err := c.b.open(t, c, a.ClientID, a.CleanSession, expiry)
	if err != nil {
		return c.refuse(t, a, err)
	}
	c.accept(&a.Connect, s)
	c.resumed = present
	k.SessionPresent = present && a.Version != packet.V31
	c.flushIf(t, c.out.packet(k.Append(raw[:0])))
	if a.five != nil { // not before: whoever ends the connection now must not send DISCONNECT first
		c.five.Store(a.five)
	}
	c.log().Info("client connected", "version", a.Version.String(), "clean", a.CleanSession, "session_present", present)
	c.event(Connected, "", nil)
	s.attach(t, c, c.window(&a.Connect))
	return nil
}

// refuse answers a CONNECT as its version says it, if it has words for that, and
// returns why.
func (c *conn) refuse(t *turn, a *arrival, why error) error {
	k := packet.Connack{Version: a.Version}
	if a.Version == packet.V5 {
		k.Reason = reasonFor(why, packet.ReasonServerUnavailable)
		k.Properties = a.five.because(k.Reason, why)
	} else if k.Code = codeFor(why); k.Code == packet.Accepted {
		return why
	}
	raw := a.five.fit(&k.Properties, k.Append)
	if a.five.takes(len(raw)) { // [MQTT-3.1.2-24]
		c.flushIf(t, c.out.packet(raw))
	}
	return why
}

// codeFor answers a CONNECT of MQTT 3.1.1 or 3.1. Accepted: there is no answer.
func codeFor(why error) packet.ConnackCode {
	var e *packet.Error
	switch {
	case errors.As(why, &e):
		return e.Code
	case errors.Is(why, auth.ErrBadCredentials):
		return packet.RefusedCredentials
	case errors.Is(why, auth.ErrNotAuthorized):
		return packet.RefusedNotAuthorized
	}
	return packet.RefusedUnavailable
}

// expiry returns for how many seconds the client's session outlives its
// connection: what MQTT 5 asks for, up to the limit; before, all that is allowed
// or nothing.
func (b *Broker) expiry(p *packet.Connect) uint32 {
	switch {
	case p.Version == packet.V5:
		return min(p.Properties.UintOr(packet.PropSessionExpiry, 0), b.maxExpiry())
	case p.CleanSession:
		return 0
	}
	return b.maxExpiry()
}

// keepAlive returns the keep alive that counts, in seconds: the client's, unless it
// is longer than an MQTT 5 client is told that it may be [MQTT-3.2.2-21].
func (b *Broker) keepAlive(p *packet.Connect) uint16 {
	most := uint16(time.Duration(b.cfg.Limits.MaxKeepalive) / time.Second)
	if p.Version == packet.V5 && most > 0 && (p.KeepAlive == 0 || p.KeepAlive > most) {
		return most
	}
	return p.KeepAlive
}

// window returns how many messages may be under way to the client.
func (c *conn) window(p *packet.Connect) int {
	most := c.b.cfg.Limits.MaxInflight
	if p.Version == packet.V5 { // [MQTT-3.3.4-9]
		most = min(most, int(p.Properties.UintOr(packet.PropReceiveMaximum, maxInflight)))
	}
	return most
}

// accept notes what the client has said. CONNACK and then the session come after
// it, so that CONNACK is the first packet that the client gets [MQTT-3.2.0-1].
func (c *conn) accept(p *packet.Connect, s *session) {
	c.b.stats.connections.Add(1)
	c.s, c.version = s, p.Version
	c.joined.Store(true)
	c.will, c.willCost = p.Will, costOfWill(p.Will)
	c.b.memory.add(forSessions, c.willCost)
	c.keepAlive = int64(c.b.keepAlive(p)) * int64(time.Second) * 3 / 2 // [MQTT-3.1.2-24]
	c.setDeadline(c.keepAlive)
}
