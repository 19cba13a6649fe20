package broker

import (
	"strings"

	"tidegate/mqtt"
)

// Circle knows what the gateway hands to other gateways, so that what comes back
// from them is not passed on for ever: MQTT 3.1.1 has no words for where a
// message has been. Only messages that began here are noted, not those that the
// gateway relays. Its methods are called from any goroutine, Left with a lock
// held: they must be quick and must not call the broker.
type Circle interface {
	// Left notes a message that is handed to the bridge of another gateway,
	// which is a client here.
	Left(topic string, payload []byte)

	// Returned reports whether a message from such a client is one that left
	// the gateway, and takes it off the notes. It is dropped then.
	Returned(topic string, payload []byte) bool
}

// isGateway reports whether the client is the bridge of another gateway.
func (c *conn) isGateway() bool { return strings.HasPrefix(c.client.ID, mqtt.GatewayClient) }

// returned notes where p comes from, and reports whether it went in a circle.
func (c *conn) returned(p *publication) bool {
	if c.b.circle == nil || !c.isGateway() {
		return false
	}
	p.relay = true
	return c.b.circle.Returned(string(p.topic), p.payload)
}

// leaves notes that the message is handed to the client.
func (c *conn) leaves(it *item) {
	if c.b.circle != nil && !it.relay && c.isGateway() {
		c.b.circle.Left(string(it.body.topic()), it.body.payload())
	}
}
