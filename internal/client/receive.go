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

	Properties packet.Properties // MQTT 5 only; an alias among them is resolved
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
		if c.isLeaving() != nil {
			continue
		}
		if f.Type() == packet.TypeDisconnect && f.Version == packet.V5 {
			return disconnected(f)
		}
		if err := c.handle(f); err != nil {
			return fmt.Errorf("the broker broke the protocol: %w", err)
		}
	}
}

// disconnected is why the broker ends the connection.
func disconnected(f packet.Frame) error {
	var d packet.Disconnect5
	if err := d.Decode(f); err != nil {
		return err
	}
	return &ReasonError{Packet: packet.TypeDisconnect, Reason: d.Reason, Properties: bytes.Clone(d.Properties)}
}

func (c *Conn) handle(f packet.Frame) error {
	switch t := f.Type(); {
	case t == packet.TypePublish:
		return c.handlePublish(f)
	case t == packet.TypeUnsuback && f.Version == packet.V5:
		var u packet.Unsuback
		if err := u.Decode(f); err != nil {
			return err
		}
		return c.handleAck(packet.Ack{Type: t, ID: u.ID, Properties: u.Properties}, u.Reasons)
	case t == packet.TypePuback || t == packet.TypePubrec || t == packet.TypePubcomp || t == packet.TypeUnsuback:
		var a packet.Ack
		if err := a.Decode(f); err != nil {
			return err
		}
		return c.handleAck(a, nil)
	case t == packet.TypePubrel:
		return c.handlePubrel(f)
	case t == packet.TypeSuback:
		return c.handleSuback(f)
	case t == packet.TypePingresp:
		return c.handlePingresp(f)
	case t == packet.TypeAuth:
		return c.handleAuth(f)
	}
	return fmt.Errorf("%s, which it must not send here [MQTT-4.8.0-1]", f.Type())
}

// handleSuback reads the codes before MQTT 5, which are among its reasons.
func (c *Conn) handleSuback(f packet.Frame) error {
	var s packet.Suback
	if err := s.Decode(f); err != nil {
		return err
	}
	for _, code := range s.Codes {
		s.Reasons = append(s.Reasons, packet.Reason(code))
	}
	return c.handleAck(packet.Ack{Type: packet.TypeSuback, ID: s.ID, Properties: s.Properties}, s.Reasons)
}

// handleAck moves a call on or ends it. reasons are those of a SUBACK or UNSUBACK.
func (c *Conn) handleAck(a packet.Ack, reasons []packet.Reason) error {
	c.mu.Lock()
	call, ok := c.calls[a.ID]
	if !ok || call.await != a.Type {
		c.mu.Unlock()
		return fmt.Errorf("%s for the packet identifier %d, which does not wait for it", a.Type, a.ID)
	}
	if a.Type == packet.TypePubrec && !a.Reason.Failed() { // [MQTT-4.3.3-4]
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
	if call.answer != nil {
		*call.answer = answer{reasons, bytes.Clone(a.Properties)}
	}
	call.done(failure(a.Type, a.Reason, a.Properties))
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
	topic, err := c.topic(&p)
	if err != nil {
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
		Message:    mqtt.Message{Topic: topic, Payload: bytes.Clone(p.Payload), QoS: p.QoS, Retain: p.Retain},
		Dup:        p.Dup,
		ID:         p.ID,
		Properties: bytes.Clone(p.Properties),
	}
	c.readingSince.Store(handling)
	c.options.Handler(m)
	c.setReading()
	if !c.options.ManualAck {
		_ = c.Ack(m) // if nothing can be sent any more, the reader finds out by itself
	}
	return nil
}

// topic is the topic of p. An alias stands for the topic that it last came with
// on this connection (MQTT 5.0, section 3.3.2.3.4).
func (c *Conn) topic(p *packet.Publish) (string, error) {
	n, ok := p.Properties.Uint(packet.PropTopicAlias)
	if !ok {
		return string(p.Topic), nil
	}
	alias := uint16(n)
	if largest := c.options.Properties.UintOr(packet.PropTopicAliasMaximum, 0); n > largest {
		return "", &packet.Error{Reason: packet.ReasonTopicAliasInvalid, Text: fmt.Sprintf("PUBLISH with the topic alias %d, the largest is %d", n, largest), ID: "MQTT-3.1.2-26"}
	}
	if len(p.Topic) > 0 {
		c.aliases[alias] = string(p.Topic)
	}
	topic, known := c.aliases[alias]
	if !known {
		return "", &packet.Error{Reason: packet.ReasonProtocolError, Text: fmt.Sprintf("PUBLISH with the unknown topic alias %d and no topic", n), ID: "MQTT-3.3.2-7"}
	}
	return topic, nil
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
func (c *Conn) Ack(m Message) error { return c.AckWith(m, packet.ReasonSuccess, nil) }

// AckWith is Ack with a reason and properties of MQTT 5. A reason that failed
// refuses m.
func (c *Conn) AckWith(m Message, r packet.Reason, p packet.Properties) error {
	if m.QoS == mqtt.AtMostOnce {
		return nil
	}
	if r != packet.ReasonSuccess || len(p) > 0 {
		if err := c.only5("reasons"); err != nil {
			return fmt.Errorf("acknowledge packet %d: %w", m.ID, err)
		}
	}
	if err := c.lockToSend(context.Background()); err != nil {
		return fmt.Errorf("acknowledge packet %d: %w", m.ID, err)
	}
	defer c.unlockAndWake()
	switch {
	case m.QoS == mqtt.ExactlyOnce && r.Failed():
		delete(c.received, m.ID) // no PUBREL follows
	case m.QoS == mqtt.ExactlyOnce:
		c.received[m.ID] = true
	}
	c.out.bytes = (&packet.Ack{Type: firstAnswer(m.QoS), ID: m.ID, Reason: r, Properties: p}).Append(c.out.bytes)
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
