package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"tidegate/mqtt/packet"
)

// maxClientID is the longest client identifier in bytes. The standard asks for 23.
const maxClientID = 4096

// connect handles a CONNECT (MQTT 3.1.1, section 3.1).
func (c *conn) connect(t *turn, f packet.Frame) error {
	var p packet.Connect
	if err := p.Decode(f); err != nil {
		return c.refuseMalformed(t, &p, err)
	}
	assigned := p.ClientID == ""
	if assigned { // [MQTT-3.1.3-6]
		p.ClientID = "auto-" + rand.Text()
	}
	if len(p.ClientID) > maxClientID {
		err := fmt.Errorf("the client id has %d bytes, at most %d are allowed", len(p.ClientID), maxClientID)
		return c.refuseFor(t, &p, packet.RefusedClientID, packet.ReasonClientIDNotValid, err)
	}
	if method := p.Properties.Text(packet.PropAuthMethod); method != "" {
		return c.refuse5(t, packet.ReasonBadAuthenticationMethod, fmt.Errorf("authentication method %q is not known here", method))
	}
	if err := c.admit(t, &p); err != nil {
		return err
	}
	expiry := c.b.expiry(&p)
	s, present, err := c.b.open(t, c, p.ClientID, p.CleanSession, expiry)
	if err != nil {
		return c.refuseFor(t, &p, packet.RefusedUnavailable, packet.ReasonQuotaExceeded, err)
	}
	c.accept(&p, s)
	k := packet.Connack{Version: p.Version, SessionPresent: present && p.Version != packet.V31}
	if p.Version == packet.V5 {
		k.Properties = c.b.connack(&p, assigned, expiry)
	}
	c.flushIf(t, c.out.packet(k.Append(nil)))
	if p.Version == packet.V5 { // not before: whoever ends the connection now must not send DISCONNECT first
		c.five.Store(newClient5(&p, &c.b.cfg.Limits))
	}
	c.log().Info("client connected", "version", p.Version.String(), "clean", p.CleanSession, "session_present", present)
	c.event(Connected, "", nil)
	s.attach(t, c, c.window(&p))
	return nil
}

// refuseMalformed answers a CONNECT that breaks a rule, where the version of the
// protocol has an answer.
func (c *conn) refuseMalformed(t *turn, p *packet.Connect, err error) error {
	var e *packet.Error
	switch {
	case !errors.As(err, &e):
		return err
	case p.Version == packet.V5:
		return c.refuse5(t, e.Reason, err)
	case e.Code != packet.Accepted:
		return c.refuse(t, e.Code, err)
	}
	return err
}

// refuseFor answers a CONNECT as its version says it.
func (c *conn) refuseFor(t *turn, p *packet.Connect, code packet.ConnackCode, reason packet.Reason, err error) error {
	if p.Version == packet.V5 {
		return c.refuse5(t, reason, err)
	}
	return c.refuse(t, code, err)
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
	c.will = p.Will
	c.keepAlive = int64(p.KeepAlive) * int64(time.Second) * 3 / 2 // [MQTT-3.1.2-24]
	c.setDeadline(c.keepAlive)
}
