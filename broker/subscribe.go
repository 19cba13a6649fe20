package broker

import (
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// subscribe handles a SUBSCRIBE (MQTT 3.1.1, section 3.8). The answer of a durable
// session waits until the subscriptions are on disk. Retained messages follow it.
func (c *conn) subscribe(t *turn, f packet.Frame) error {
	var p packet.Subscribe
	if err := p.Decode(f); err != nil {
		return err
	}
	k := packet.Suback{Version: c.version, ID: p.ID}
	five, refused := c.five.Load(), complaints{}
	wanted := make([]mqtt.Subscription, 0, len(p.Subscriptions)) // those whose retained messages are
	for _, sub := range p.Subscriptions {
		had, err := c.subscribeTo(t, sub)
		k.Codes = append(k.Codes, granted(sub, err))
		k.Reasons = append(k.Reasons, granted5(sub, err))
		if err != nil {
			refused.add(err)
		} else if !isShared(sub.Filter) && (sub.RetainHandling == 0 || sub.RetainHandling == 1 && !had) {
			wanted = append(wanted, sub)
		}
	}
	if refused.text != "" {
		k.Properties = five.because(packet.ReasonUnspecifiedError, &refused)
	}
	return c.answerSaved(t, func(t *turn, err error) {
		if err != nil {
			return
		}
		c.answer(t, five.fit(&k.Properties, k.Append))
		for _, sub := range wanted {
			c.b.sendRetained(t, c.s, sub)
		}
	})
}

// subscribeTo adds one subscription, and says in the log why not.
func (c *conn) subscribeTo(t *turn, sub mqtt.Subscription) (had bool, err error) {
	switch err = c.maySubscribe(sub.Filter); {
	case err != nil:
	case isShared(sub.Filter):
		had, err = c.b.joinShare(t, c.s, sub)
	default:
		had, err = c.s.subscribe(sub)
	}
	if err != nil {
		if why, refused := refusedSubscription(err); refused {
			c.b.stats.refusals.count(why)
		}
		c.log().Warn("refused a subscription", "filter", sub.Filter[:min(len(sub.Filter), 100)], "reason", err)
	} else {
		c.event(Subscribed, sub.Filter, nil)
	}
	return had, err
}

func granted(sub mqtt.Subscription, err error) mqtt.QoS {
	if err != nil {
		return mqtt.QoSFailure
	}
	return sub.QoS
}

func granted5(sub mqtt.Subscription, err error) packet.Reason {
	if err == nil {
		return packet.Reason(sub.QoS)
	}
	return reasonFor(err, packet.ReasonUnspecifiedError)
}

// unsubscribe handles an UNSUBSCRIBE (section 3.10).
func (c *conn) unsubscribe(t *turn, f packet.Frame) error {
	var p packet.Unsubscribe
	if err := p.Decode(f); err != nil {
		return err
	}
	k := packet.Unsuback{ID: p.ID}
	for _, filter := range p.Filters {
		reason := packet.ReasonSuccess
		if !c.unsubscribeFrom(t, filter) {
			reason = packet.ReasonNoSubscriptionExisted
		} else {
			c.event(Unsubscribed, filter, nil)
		}
		k.Reasons = append(k.Reasons, reason)
	}
	return c.answerSaved(t, func(t *turn, err error) {
		switch {
		case err != nil:
		case c.version == packet.V5:
			c.answer(t, k.Append(nil))
		default:
			c.reply(t, packet.Ack{Type: packet.TypeUnsuback, ID: p.ID})
		}
	})
}

func (c *conn) unsubscribeFrom(t *turn, filter string) (had bool) {
	if isShared(filter) {
		return c.b.leaveShare(t, c.s, filter)
	}
	return c.s.unsubscribe(filter)
}

// answer sends a SUBACK or UNSUBACK. One that is too large for the client is left
// out, as if it had been sent (MQTT 5.0, section 3.1.2.11.4).
func (c *conn) answer(t *turn, raw []byte) {
	if c.takes(len(raw)) { // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
		c.flushIf(t, c.out.packet(raw))
		return
	}
	c.log().Debug("left out an answer that is too large for the client", "bytes", len(raw))
}

// answerSaved calls answer once the subscriptions are as safe as the session is.
func (c *conn) answerSaved(t *turn, answer func(*turn, error)) error {
	if !c.s.durable() {
		answer(t, nil)
		return nil
	}
	if err := c.b.holdBack(t); err != nil {
		return err
	}
	c.s.save(c.b.commit.soon(t.now), answer)
	return nil
}
