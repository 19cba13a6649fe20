package load

import (
	"errors"
	"fmt"
	"io"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// readLoop handles packets until the connection ends.
func (c *conn) readLoop() error {
	var (
		publish packet.Publish
		ack     packet.Ack
	)
	for {
		f, err := c.next()
		if err != nil {
			return err
		}
		switch f.Type() {
		case packet.TypePublish:
			if err = publish.Decode(f); err == nil {
				c.received(&publish)
			}
		case packet.TypePuback, packet.TypePubrec, packet.TypePubrel, packet.TypePubcomp:
			if err = ack.Decode(f); err == nil {
				c.acknowledged(&ack)
			}
		case packet.TypeSuback:
			err = c.subscribed(f)
		case packet.TypeDisconnect:
			err = disconnected(f)
		}
		if err != nil {
			return err
		}
	}
}

// received hands a message over and acknowledges it.
func (c *conn) received(m *packet.Publish) {
	if c.onPublish != nil {
		c.onPublish(m)
	}
	switch m.QoS {
	case mqtt.AtLeastOnce:
		c.answer(packet.TypePuback, m.ID)
	case mqtt.ExactlyOnce:
		c.answer(packet.TypePubrec, m.ID)
	}
}

// answer puts an acknowledgement into the write buffer.
func (c *conn) answer(t packet.Type, id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answerLocked(t, id)
}

func (c *conn) answerLocked(t packet.Type, id uint16) {
	a := packet.Ack{Type: t, ID: id}
	c.out = a.Append(c.out)
}

// acknowledged moves the message with this identifier one step on. What fits no
// message in flight is ignored.
func (c *conn) acknowledged(a *packet.Ack) {
	if a.Type == packet.TypePubrel { // we are the receiver
		c.answer(packet.TypePubcomp, a.ID)
		return
	}
	if !c.settles(a) {
		return
	}
	if a.Reason.Failed() {
		c.refused.Add(1)
	}
	c.acked.Add(1)
	c.inflight.Add(-1)
	c.signal()
}

// settles notes what a does to its identifier and reports whether that ends the
// exchange.
func (c *conn) settles(a *packet.Ack) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := byte(idSent)
	if a.Type == packet.TypePubcomp {
		want = idReleased
	}
	if c.ids == nil || c.ids[a.ID] != want {
		return false
	}
	if a.Type == packet.TypePubrec && !a.Reason.Failed() {
		c.ids[a.ID] = idReleased
		c.answerLocked(packet.TypePubrel, a.ID)
		return false
	}
	c.ids[a.ID] = idFree
	if c.times != nil {
		c.times.took.add(int64(time.Since(c.times.start) - c.times.sent[a.ID]))
	}
	return true
}

// subscribed hands the outcome of a SUBSCRIBE to who waits for it.
func (c *conn) subscribed(f packet.Frame) error {
	var s packet.Suback
	if err := s.Decode(f); err != nil {
		return err
	}
	var err error
	for i, code := range s.Codes {
		if code == mqtt.QoSFailure {
			err = fmt.Errorf("subscribe: the broker refuses filter %d of the packet; see its limits and its log", i+1)
		}
	}
	for i, reason := range s.Reasons {
		if reason.Failed() {
			err = fmt.Errorf("subscribe: the broker refuses filter %d of the packet: %s", i+1, reason)
		}
	}
	select {
	case c.suback <- err:
	default: // nobody asked
	}
	return nil
}

func disconnected(f packet.Frame) error {
	var d packet.Disconnect5
	if err := d.Decode(f); err != nil {
		return err
	}
	return fmt.Errorf("disconnected by the broker: %s", d.Reason)
}

// next waits for the next packet. The frame is valid until the next call.
func (c *conn) next() (packet.Frame, error) {
	for {
		f, n, need, err := c.version.Split(c.in[c.start:c.end], maxPacket)
		if err != nil {
			return packet.Frame{}, err
		}
		if n > 0 {
			c.start += n
			f.FromServer = true
			return f, nil
		}
		if err := c.fill(need); err != nil {
			return packet.Frame{}, err
		}
	}
}

// fill writes what waits, so that acknowledgements go out in batches and yet
// never wait for the peer, and reads more of a packet of need bytes.
func (c *conn) fill(need int) error {
	if err := c.flush(); err != nil {
		return err
	}
	if c.onIdle != nil {
		c.onIdle()
	}
	c.end = copy(c.in, c.in[c.start:c.end])
	c.start = 0
	if need > len(c.in) {
		c.in = append(c.in, make([]byte, need-len(c.in))...)
	}
	n, err := c.nc.Read(c.in[c.end:])
	c.end += n
	switch {
	case n > 0:
		return nil // an error that came with bytes comes again
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF // the broker has no reason to
	}
	return err
}
