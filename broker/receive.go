package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// receipt is a QoS 2 message that a client, or a server upstream, has handed in and
// not yet released.
type receipt struct {
	id     uint16  // packet identifier
	rec    *record // its promise; nil: nobody durable was owed it
	marked bool    // the store knows of the receipt
	routed bool    // of an inbox: rec and marked do not change any more; guarded by session.mu
	ends   *conn   // which gets PUBCOMP once the store has forgotten it; guarded by session.mu
}

var errReceiveMaximum = &packet.Error{
	Reason: packet.ReasonReceiveMaximumExceeded, ID: "MQTT-3.3.4-7",
	Text: "the client has more QoS 1 and 2 messages under way than the broker's receive maximum allows",
}

var errNotReceived = errors.New("the client releases a QoS 2 message that it was not told of as received")

// unreleased is how many receipts a client may leave open, as a multiple of the
// publications it may have under way.
const unreleased = 16

// publish handles a PUBLISH (MQTT 3.1.1, sections 3.3 and 4.3).
func (c *conn) publish(t *turn, f packet.Frame) error {
	var p packet.Publish
	wrong := p.Decode(f)
	if wrong != nil && (p.QoS == mqtt.AtMostOnce || reasonFor(wrong, 0) != packet.ReasonPayloadFormatInvalid) {
		return wrong
	}
	if err := c.pace(t); err != nil {
		return err
	}
	c.b.stats.received.Add(1)
	pub := publication{topic: p.Topic, payload: p.Payload, props: p.Properties, qos: p.QoS, retain: p.Retain, from: c.s, wrong: wrong}
	if f := c.five.Load(); f != nil {
		var err error
		if pub.topic, err = f.topic(&p); err != nil {
			return err
		}
		if p.QoS != mqtt.AtMostOnce && c.out.underWay() >= c.b.cfg.Limits.ReceiveMaximum { // [MQTT-3.3.4-7]
			return errReceiveMaximum
		}
	}
	if p.QoS == mqtt.AtMostOnce {
		return c.route(t, &pub)
	}
	if p.QoS == mqtt.AtLeastOnce {
		pub.waiter = waiter{c: c, turn: c.out.expect(packet.Ack{Type: packet.TypePuback, ID: p.ID})}
		return c.route(t, &pub)
	}
	c.begun = c.begun || !p.Dup
	return c.publishOnce(t, &pub, p.ID)
}

// holdBack stops reading while the client does not read its answers, or hands in
// more publications than it may have under way.
func (c *conn) holdBack(t *turn, f packet.Frame) error {
	most := c.b.cfg.Limits.ReceiveMaximum
	switch f.Type() {
	case packet.TypePublish:
		if f.First&0x06 == 0 { // QoS 0 is not answered
			return nil
		}
		if c.version == packet.V5 { // the client knows the limit
			most = math.MaxInt
		}
	case packet.TypePuback, packet.TypePubcomp, packet.TypeDisconnect:
		return nil
	default:
		most = math.MaxInt
	}
	return c.waitWhile(t, func() <-chan struct{} { return c.out.heldBack(most) })
}

// waitWhile waits while full returns a channel, which is closed when it is time to
// ask again.
func (c *conn) waitWhile(t *turn, full func() <-chan struct{}) error {
	for {
		fewer := full()
		if fewer == nil {
			return nil
		}
		t.end()
		select {
		case <-fewer:
			t.begin()
		case <-c.done:
			return c.endedBy
		}
	}
}

// publishOnce takes a QoS 2 message, unless it has it already [MQTT-4.3.3-2].
func (c *conn) publishOnce(t *turn, pub *publication, id uint16) error {
	pub.waiter = waiter{c: c, turn: c.out.expect(packet.Ack{Type: packet.TypePubrec, ID: id})}
	r, again, err := c.s.receive(id, unreleased*c.b.cfg.Limits.ReceiveMaximum)
	if err != nil {
		return err
	}
	if again && c.parked.has(id) { // it is answered when there is room
		c.out.retract()
		return nil
	}
	if again {
		c.out.arrived() // it counts already
		if r.rec == nil || !c.b.commit.wait(r.rec, pub.waiter) {
			c.fulfil(t, pub.waiter.turn)
		}
		return nil
	}
	if c.s.durable() {
		pub.mark = c.s.receiptKey(id)
	}
	pub.receipt = r
	if err := c.route(t, pub); err != nil {
		c.s.takeReceipt(id, r)
		return err
	}
	return nil
}

// receive returns the receipt for a packet identifier, and whether it stood
// there already.
func (s *session) receive(id uint16, most int) (r *receipt, again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.received[id]; r != nil {
		return r, true, nil
	}
	if len(s.received) >= most {
		return nil, false, errTooManyQoS2
	}
	if s.received == nil {
		s.received = make(map[uint16]*receipt)
	}
	r = &receipt{id: id}
	s.received[id] = r
	s.tally()
	return r, false, nil
}

// pubrel ends a receipt. PUBCOMP lets the client use the identifier for another
// message, so it waits until the store has forgotten the receipt as well.
func (c *conn) pubrel(t *turn, id uint16) error {
	s := c.s
	if c.parked.has(id) {
		return errNotReceived
	}
	r, forgotten, again := s.end(id, c)
	switch {
	case r == nil: // nothing is under way, so nothing becomes less
		c.reply(t, packet.Ack{Type: packet.TypePubcomp, ID: id, Reason: c.unknown(c.begun)})
		return nil
	case forgotten:
		c.complete(t, id)
		return nil
	case again: // the answer is on its way, and it must not pile up
		return nil
	}
	c.b.commit.mark(s.receiptKey(id), nil, c.b.commit.soon(t.now), func(t *turn, err error) {
		if err == nil {
			s.takeReceipt(id, r)
			c.complete(t, id)
		}
	})
	return nil
}

// complete ends the exchange of a QoS 2 message.
func (c *conn) complete(t *turn, id uint16) {
	c.out.arrived()
	c.reply(t, packet.Ack{Type: packet.TypePubcomp, ID: id})
}

// unknown is what a client is told about a packet identifier of which the broker
// knows nothing: that it does not (MQTT 5.0, sections 3.6.2.1 and 3.7.2.1), unless
// the client may be repeating what it never heard the answer to. MQTT.js, for
// one, reports a message as failed after such a PUBCOMP, and repeats PUBREL on a new
// session, too. past says that whoever repeats has done so by now.
func (c *conn) unknown(past bool) packet.Reason {
	if c.version != packet.V5 || c.resumed || !past {
		return packet.ReasonSuccess
	}
	return packet.ReasonPacketIDNotFound
}

// end begins to end a receipt for c and returns it, or nil if there is none. It is
// forgotten at once if the store does not know of it; again says that c has asked
// before.
func (s *session) end(id uint16, c *conn) (r *receipt, forgotten, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r = s.received[id]
	switch {
	case r == nil:
		return nil, false, false
	case !r.marked:
		delete(s.received, id)
		s.tally()
		return r, true, false
	}
	again, r.ends = r.ends == c, c
	return r, false, again
}

// takeReceipt removes the receipt r.
func (s *session) takeReceipt(id uint16, r *receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received[id] == r {
		delete(s.received, id)
		s.tally()
	}
}

// keepReceipt has the store keep the receipt of p, whose message was routed, by due,
// if the client's session outlives its connection. The store forgets it again before
// PUBCOMP, so this is for messages that somebody could see twice.
func (p *publication) keepReceipt(c *committer, due int64) {
	if p.mark != nil && !p.receipt.marked {
		p.receipt.marked = true
		c.mark(p.mark, []byte{1}, due, nil)
	}
}

// keepReceipts has the store keep all of them, because the connection has ended: the
// client may send the messages again after a restart. As long as it is there most are
// released within moments, and cost no write.
func (s *session) keepReceipts(due int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.received {
		p := publication{receipt: r, mark: s.receiptKey(id)}
		p.keepReceipt(s.b.commit, due)
	}
}

// receiptKey names a receipt in the store: queue number, packet identifier.
func (s *session) receiptKey(id uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, s.queue), id)
}

// forgetReceived drops all receipts, because the session ends. The caller holds
// mu.
func (s *session) forgetReceived() {
	for id, r := range s.received {
		if r.marked {
			s.b.commit.mark(s.receiptKey(id), nil, never, nil)
		}
	}
	s.received = nil
}

// ack handles the packets with which QoS 1 and 2 deliveries go on.
func (c *conn) ack(t *turn, f packet.Frame) error {
	var p packet.Ack
	if err := p.Decode(f); err != nil {
		return err
	}
	var wrong bool
	switch {
	case p.Type == packet.TypePubrel:
		return c.pubrel(t, p.ID)
	case p.Type == packet.TypePuback:
		wrong = c.s.puback(t, p.ID)
	case p.Type == packet.TypePubcomp:
		wrong = c.s.pubcomp(t, p.ID)
	case p.Reason.Failed():
		wrong = c.s.refused(t, p.ID)
	default:
		var known bool
		if known, wrong = c.s.pubrec(t, p.ID); !known {
			c.reply(t, packet.Ack{Type: packet.TypePubrel, ID: p.ID, Reason: c.unknown(true)})
		}
	}
	if wrong { // or it would stay under way for as long as the client stays
		return &packet.Error{
			Reason: packet.ReasonProtocolError, ID: "MQTT-4.5.0-2",
			Text: fmt.Sprintf("%s for the packet identifier %d, which waits for another answer", p.Type, p.ID),
		}
	}
	return nil
}

// restoreReceipt takes over a receipt that the store knows of.
func (b *Broker) restoreReceipt(key []byte) error {
	if _, _, ok := parseMirror(key); ok || bytes.HasPrefix(key, []byte(lossMark)) {
		return nil
	}
	if len(key) != 6 {
		return fmt.Errorf("a receipt with a key of %d bytes", len(key))
	}
	s := b.queues[binary.BigEndian.Uint32(key)]
	if s == nil { // a crash came between the end of its session and its own
		b.commit.mark(bytes.Clone(key), nil, lazy, nil)
		return nil
	}
	if s.received == nil {
		s.received = make(map[uint16]*receipt)
	}
	s.received[binary.BigEndian.Uint16(key[4:])] = &receipt{id: binary.BigEndian.Uint16(key[4:]), marked: true, routed: true}
	return nil
}
