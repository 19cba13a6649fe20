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
		var e *packet.Error
		if errors.As(err, &e) && e.Code != packet.Accepted {
			return c.refuse(t, e.Code, err)
		}
		return err
	}
	if p.ClientID == "" { // [MQTT-3.1.3-6]
		p.ClientID = "auto-" + rand.Text()
	}
	if len(p.ClientID) > maxClientID {
		return c.refuse(t, packet.RefusedClientID, fmt.Errorf("the client id has %d bytes, at most %d are allowed", len(p.ClientID), maxClientID))
	}
	s, present, err := c.b.open(t, c, p.ClientID, p.CleanSession)
	if err != nil {
		return c.refuse(t, packet.RefusedUnavailable, err)
	}
	c.accept(t, &p, s, present)
	return nil
}

// accept answers the CONNECT and attaches the connection to its session, so that
// CONNACK is the first packet that the client gets [MQTT-3.2.0-1].
func (c *conn) accept(t *turn, p *packet.Connect, s *session, present bool) {
	c.s = s
	c.will = p.Will
	c.log = c.log.With("client", p.ClientID)
	c.keepAlive = int64(p.KeepAlive) * int64(time.Second) * 3 / 2 // [MQTT-3.1.2-24]
	c.setDeadline(c.keepAlive)
	k := packet.Connack{SessionPresent: present && p.Version != packet.V31}
	c.flushIf(t, c.out.packet(k.Append(nil)))
	c.log.Info("client connected", "version", p.Version.String(), "clean", p.CleanSession, "session_present", present)
	s.attach(t, c, c.b.cfg.Limits.MaxInflight)
}
