package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// Message is a received message. QoS is the one of its delivery.
type Message struct {
	mqtt.Message
	Dup bool   // the broker says that it sends the message again
	ID  uint16 // packet identifier; 0 at QoS 0
}

// readLoop handles packets until the connection fails. Once a DISCONNECT is
// queued, nothing can be acknowledged and so nothing is handed out.
func (c *Conn) readLoop() error {
	for {
		c.setReading()
		f, err := c.reader.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the broker closed the connection; does another client use the client id %q?: %w", c.options.ClientID, err)
		}
		if err != nil {
			return fmt.Errorf("read from the broker: %w", err)
		}
		if c.isLeaving() {
			continue
		}
		if err := c.handle(f); err != nil {
			return fmt.Errorf("the broker broke the protocol: %w", err)
		}
	}
}

func (c *Conn) handle(f packet.Frame) error {
	switch f.Type() {
	case packet.TypePublish:
		return c.handlePublish(f)
	case packet.TypePuback, packet.TypePubrec, packet.TypePubcomp, packet.TypeUnsuback:
		var a packet.Ack
		if err := a.Decode(f); err != nil {
			return err
		}
		return c.handleAck(a, nil)
	case packet.TypePubrel:
		return c.handlePubrel(f)
	case packet.TypeSuback:
		var s packet.Suback
		if err := s.Decode(f); err != nil {
			return err
		}
		return c.handleAck(packet.Ack{Type: packet.TypeSuback, ID: s.ID}, s.Codes)
	case packet.TypePingresp:
		return c.handlePingresp(f)
	}
	return fmt.Errorf("%s, which it must not send here [MQTT-4.8.0-1]", f.Type())
}

// handleAck moves a call on or ends it. codes are those of a SUBACK.
func (c *Conn) handleAck(a packet.Ack, codes []mqtt.QoS) error {
	c.mu.Lock()
	call, ok := c.calls[a.ID]
	if !ok || call.await != a.Type {
		c.mu.Unlock()
		return fmt.Errorf("%s for the packet identifier %d, which does not wait for it", a.Type, a.ID)
	}
	if a.Type == packet.TypePubrec {
		call.await = packet.TypePubcomp
		c.calls[a.ID] = call
		c.mu.Unlock()
		c.reply(packet.TypePubrel, a.ID)
		return nil
	}
	delete(c.calls, a.ID)
	c.mu.Unlock()
	if call.takesSlot() {
		<-c.slots
	}
	if call.codes != nil {
		*call.codes = codes
	}
	call.done(nil)
	return nil
}

// handlePublish hands a message out and acknowledges it. At QoS 2 the message
// goes out with the PUBLISH, and only once until its PUBREL (MQTT 3.1.1, figure
// 4.3, method B) [MQTT-4.3.3-2].
func (c *Conn) handlePublish(f packet.Frame) error {
	var p packet.Publish
	if err := p.Decode(f); err != nil {
		return err
	}
	if p.QoS == mqtt.ExactlyOnce {
		if again, acknowledged := c.noteReceived(p.ID); again {
			if acknowledged {
				c.reply(packet.TypePubrec, p.ID)
			}
			return nil
		}
	}
	m := Message{
		Message: mqtt.Message{Topic: string(p.Topic), Payload: bytes.Clone(p.Payload), QoS: p.QoS, Retain: p.Retain},
		Dup:     p.Dup,
		ID:      p.ID,
	}
	c.readingSince.Store(handling)
	c.options.Handler(m)
	c.setReading()
	if !c.options.ManualAck {
		_ = c.Ack(m) // if nothing can be sent any more, the reader finds out by itself
	}
	return nil
}

// noteReceived notes a message of QoS 2. again: it was handed out before.
func (c *Conn) noteReceived(id uint16) (again, acknowledged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	acknowledged, again = c.received[id]
	if !again {
		c.received[id] = false
	}
	return again, acknowledged
}

// Ack acknowledges m with PUBACK or PUBREC when the connection was opened with
// ManualAck. It must be called once for each message; QoS 0 needs nothing.
func (c *Conn) Ack(m Message) error {
	if m.QoS == mqtt.AtMostOnce {
		return nil
	}
	if err := c.lockToSend(context.Background()); err != nil {
		return fmt.Errorf("acknowledge packet %d: %w", m.ID, err)
	}
	defer c.unlockAndWake()
	if m.QoS == mqtt.ExactlyOnce {
		c.received[m.ID] = true
	}
	c.out.bytes = (&packet.Ack{Type: firstAnswer(m.QoS), ID: m.ID}).Append(c.out.bytes)
	return nil
}

// handlePubrel ends a message of QoS 2, also one from an earlier connection.
func (c *Conn) handlePubrel(f packet.Frame) error {
	var a packet.Ack
	if err := a.Decode(f); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.received, a.ID)
	c.mu.Unlock()
	c.reply(packet.TypePubcomp, a.ID)
	return nil
}

func (c *Conn) handlePingresp(f packet.Frame) error {
	if err := (packet.Pingresp{}).Decode(f); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pinging = false
	return nil
}

// reply sends an acknowledgement. If nothing can be sent any more, the reader
// finds out by itself.
func (c *Conn) reply(t packet.Type, id uint16) {
	if c.lockToSend(context.Background()) != nil {
		return
	}
	defer c.unlockAndWake()
	c.out.bytes = (&packet.Ack{Type: t, ID: id}).Append(c.out.bytes)
}
