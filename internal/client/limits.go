package client

import (
	"errors"
	"fmt"
	"math"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// limits are what a broker of MQTT 5 asks of its client in the CONNACK. Before
// there are none.
type limits struct {
	maxQoS   mqtt.QoS // [MQTT-3.2.2-11]
	noRetain bool     // [MQTT-3.2.2-14]
	maxSize  int      // of a packet in bytes [MQTT-3.2.2-15]
	maxAlias uint32   // [MQTT-3.2.2-17]
}

func newLimits(p packet.Properties) limits {
	return limits{
		maxQoS:   mqtt.QoS(p.UintOr(packet.PropMaximumQoS, uint32(mqtt.ExactlyOnce))),
		noRetain: p.UintOr(packet.PropRetainAvailable, 1) == 0,
		maxSize:  int(min(p.UintOr(packet.PropMaximumPacketSize, packet.MaxSize), packet.MaxSize)),
		maxAlias: p.UintOr(packet.PropTopicAliasMaximum, 0),
	}
}

// checkPublish checks m against the limits. Its size is checked when it is known.
func (l *limits) checkPublish(m mqtt.Message, p packet.Properties) error {
	alias, hasAlias := p.Uint(packet.PropTopicAlias)
	switch {
	case m.QoS > l.maxQoS:
		return fmt.Errorf("the broker takes at most QoS %d", l.maxQoS)
	case m.Retain && l.noRetain:
		return errors.New("the broker retains no messages")
	case hasAlias && alias > l.maxAlias:
		return fmt.Errorf("the topic alias %d is over the broker's maximum of %d", alias, l.maxAlias)
	}
	return nil
}

// checkSize checks the size of a whole packet in bytes.
func (l *limits) checkSize(size int) error {
	if size > l.maxSize {
		return fmt.Errorf("a packet of %d bytes, the broker takes at most %d: %w", size, l.maxSize, mqtt.ErrTooLarge)
	}
	return nil
}

// obey takes over what the broker asks for.
func (c *Conn) obey(p packet.Properties) {
	c.limits = newLimits(p)
	c.slots = make(chan struct{}, min(c.options.Window, int(p.UintOr(packet.PropReceiveMaximum, math.MaxUint16)))) // [MQTT-3.3.4-7]
	if seconds, ok := p.Uint(packet.PropServerKeepAlive); ok {
		c.options.KeepAlive = time.Duration(seconds) * time.Second // [MQTT-3.2.2-21]
	}
	if id := p.Text(packet.PropAssignedClientID); id != "" {
		c.options.ClientID = id
	}
}
