package client

import (
	"context"
	"errors"
	"fmt"
	"math"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// call waits for the acknowledgement of a packet.
type call struct {
	await  packet.Type
	done   func(error)
	answer *answer // where a SUBACK or UNSUBACK goes
}

// takesSlot reports whether the call counts towards the window.
func (call call) takesSlot() bool {
	return call.await != packet.TypeSuback && call.await != packet.TypeUnsuback
}

// Publish sends m and waits until it was acknowledged (QoS 0: written). If ctx is
// done earlier, m may still arrive, and keeps its place in the window. A broker of
// MQTT 5 may refuse m, which is a [*ReasonError].
func (c *Conn) Publish(ctx context.Context, m mqtt.Message) error {
	return c.PublishWith(ctx, m, nil)
}

// PublishWith is Publish with the properties of MQTT 5. With a topic alias that
// the broker knows the topic may be empty.
func (c *Conn) PublishWith(ctx context.Context, m mqtt.Message, p packet.Properties) error {
	result := make(chan error, 1)
	if err := c.PublishAsyncWith(ctx, m, p, func(err error) { result <- err }); err != nil {
		return err
	}
	select {
	case err := <-result:
		return publishError(m, err)
	case <-ctx.Done():
		return publishError(m, context.Cause(ctx))
	}
}

// PublishAsync sends m behind all that was sent before. It blocks while Window
// publishes of QoS 1 and 2 are unacknowledged, or while much waits to be written.
// Its error says that m was not sent.
//
// done, if not nil, is called once with what Publish would have returned. It is
// called from a goroutine of the Conn, must not block, and must not publish.
func (c *Conn) PublishAsync(ctx context.Context, m mqtt.Message, done func(error)) error {
	return c.PublishAsyncWith(ctx, m, nil, done)
}

// PublishAsyncWith is PublishAsync with the properties of MQTT 5. They must not be
// written before it returns.
func (c *Conn) PublishAsyncWith(ctx context.Context, m mqtt.Message, p packet.Properties, done func(error)) error {
	if err := c.checkMessage(m, p); err != nil {
		return err
	}
	if done == nil {
		done = func(error) {}
	}
	if m.QoS == mqtt.AtMostOnce {
		return publishError(m, c.sendPublish(ctx, m, p, done))
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.ending:
		return publishError(m, c.Err())
	case <-ctx.Done():
		return publishError(m, context.Cause(ctx))
	}
	err := c.sendPublish(ctx, m, p, done)
	if err != nil {
		<-c.slots
	}
	return publishError(m, err)
}

func (c *Conn) checkMessage(m mqtt.Message, p packet.Properties) error {
	if len(p) > 0 {
		if err := c.only5("properties"); err != nil {
			return publishError(m, err)
		}
	}
	if _, alias := p.Uint(packet.PropTopicAlias); m.Topic != "" || !alias {
		if err := m.Validate(); err != nil {
			return err
		}
	}
	if largest := packet.MaxSize - 5 - 2 - len(m.Topic) - 2 - 4 - len(p); len(m.Payload) > largest {
		return fmt.Errorf("publish %d bytes to %q, at most %d are possible: %w", len(m.Payload), m.Topic, largest, mqtt.ErrTooLarge)
	}
	return publishError(m, c.limits.checkPublish(m, p))
}

func publishError(m mqtt.Message, err error) error {
	if err != nil {
		err = fmt.Errorf("publish to %q: %w", m.Topic, err)
	}
	return err
}

// sendPublish puts m into out.
func (c *Conn) sendPublish(ctx context.Context, m mqtt.Message, props packet.Properties, done func(error)) error {
	if err := c.lockToSend(ctx); err != nil {
		return err
	}
	defer c.unlockAndWake()
	p := packet.Publish{
		Topic: []byte(m.Topic), Payload: m.Payload, QoS: m.QoS, Retain: m.Retain,
		Version: c.options.Version, Properties: props,
	}
	if m.QoS == mqtt.AtMostOnce {
		if err := c.keepLocked(p.Append(c.out.bytes)); err != nil {
			return err
		}
		c.out.written = append(c.out.written, done)
		return nil
	}
	id, err := c.addCallLocked(call{await: firstAnswer(m.QoS), done: done})
	if err != nil {
		return err
	}
	p.ID = id
	return c.keepCallLocked(id, p.Append(c.out.bytes))
}

// keepCallLocked is keepLocked for the packet of a call, which is forgotten if
// the packet is too large.
func (c *Conn) keepCallLocked(id uint16, with []byte) error {
	err := c.keepLocked(with)
	if err != nil {
		delete(c.calls, id)
	}
	return err
}

// firstAnswer is what a broker answers to a PUBLISH (MQTT 3.1.1, section 4.3).
func firstAnswer(q mqtt.QoS) packet.Type {
	if q == mqtt.ExactlyOnce {
		return packet.TypePubrec
	}
	return packet.TypePuback
}

// addCallLocked gives the call a free packet identifier [MQTT-2.3.1-2].
func (c *Conn) addCallLocked(call call) (id uint16, err error) {
	if len(c.calls) == math.MaxUint16 {
		return 0, errors.New("all packet identifiers are in use")
	}
	for {
		c.lastID++
		if _, used := c.calls[c.lastID]; c.lastID != 0 && !used {
			c.calls[c.lastID] = call
			return c.lastID, nil
		}
	}
}
