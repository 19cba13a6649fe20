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
	await packet.Type
	done  func(error)
	codes *[]mqtt.QoS // where the return codes of a SUBACK go
}

// takesSlot reports whether the call counts towards the window.
func (call call) takesSlot() bool {
	return call.await != packet.TypeSuback && call.await != packet.TypeUnsuback
}

// Publish sends m and waits until it was acknowledged (QoS 0: written). If ctx is
// done earlier, m may still arrive, and keeps its place in the window.
func (c *Conn) Publish(ctx context.Context, m mqtt.Message) error {
	result := make(chan error, 1)
	if err := c.PublishAsync(ctx, m, func(err error) { result <- err }); err != nil {
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
	if err := checkMessage(m); err != nil {
		return err
	}
	if done == nil {
		done = func(error) {}
	}
	if m.QoS == mqtt.AtMostOnce {
		return publishError(m, c.sendPublish(ctx, m, done))
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.ending:
		return publishError(m, c.Err())
	case <-ctx.Done():
		return publishError(m, context.Cause(ctx))
	}
	err := c.sendPublish(ctx, m, done)
	if err != nil {
		<-c.slots
	}
	return publishError(m, err)
}

func checkMessage(m mqtt.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if largest := packet.MaxSize - 5 - 2 - len(m.Topic) - 2; len(m.Payload) > largest {
		return fmt.Errorf("publish %d bytes to %q, at most %d are possible: %w", len(m.Payload), m.Topic, largest, mqtt.ErrTooLarge)
	}
	return nil
}

func publishError(m mqtt.Message, err error) error {
	if err != nil {
		err = fmt.Errorf("publish to %q: %w", m.Topic, err)
	}
	return err
}

// sendPublish puts m into out.
func (c *Conn) sendPublish(ctx context.Context, m mqtt.Message, done func(error)) error {
	if err := c.lockToSend(ctx); err != nil {
		return err
	}
	defer c.unlockAndWake()
	p := packet.Publish{Topic: []byte(m.Topic), Payload: m.Payload, QoS: m.QoS, Retain: m.Retain}
	if m.QoS == mqtt.AtMostOnce {
		c.out.written = append(c.out.written, done)
	} else {
		id, err := c.addCallLocked(call{await: firstAnswer(m.QoS), done: done})
		if err != nil {
			return err
		}
		p.ID = id
	}
	c.out.bytes = p.Append(c.out.bytes)
	return nil
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
