package bridge

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
	"github.com/eclipse/paho.golang/paho/session"

	"tidegate/mqtt/packet"
)

// session5 gives out packet identifiers over one link and takes the answers.
// Paho's own sessions keep every message in memory and send it again over the
// next connection, which the inbox does.
type session5 struct {
	lose func(error) // ends the link

	mu       sync.Mutex
	out      io.Writer
	last     uint16
	receipts map[uint16]*promise                     // of what was published
	answers  map[uint16]chan<- packets.ControlPacket // to what else was asked
}

func newSession5(lose func(error)) *session5 {
	return &session5{
		lose:     lose,
		receipts: make(map[uint16]*promise),
		answers:  make(map[uint16]chan<- packets.ControlPacket),
	}
}

// number gives a PUBLISH its identifier, and r is finished when it is acknowledged.
func (s *session5) number(r *promise) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.free()
	s.receipts[id] = r
	return id
}

// AddToSession gives what else is asked its identifier.
func (s *session5) AddToSession(_ context.Context, p session.Packet, answer chan<- packets.ControlPacket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.free()
	s.answers[id] = answer
	p.SetIdentifier(id)
	return nil
}

// free returns an identifier that nothing has. The link keeps far fewer messages under
// way than there are, so that there is one. The caller holds mu.
func (s *session5) free() uint16 {
	for s.last++; s.last == 0 || s.receipts[s.last] != nil || s.answers[s.last] != nil; s.last++ {
	}
	return s.last
}

// PacketReceived takes an answer, or hands a message on to messages. PUBREL is the
// intake's.
func (s *session5) PacketReceived(p *packets.ControlPacket, messages chan<- *packets.Publish) error {
	switch content := p.Content.(type) {
	case *packets.Publish:
		messages <- content // which holds receive5; a server that sends more waits
	case *packets.Puback:
		s.published(content)
	default:
		s.answered(p)
	}
	return nil
}

// accepted finishes the receipt of the PUBLISH id, which the server has.
func (s *session5) accepted(id uint16) { s.finish(id, nil) }

// published likewise, if that is what p says.
func (s *session5) published(p *packets.Puback) {
	var err error
	if reason := packet.Reason(p.ReasonCode); reason.Failed() {
		err = &refusal{reason, p.Properties.ReasonString}
	}
	s.finish(p.PacketID, err)
}

func (s *session5) finish(id uint16, err error) {
	s.mu.Lock()
	r := s.receipts[id]
	delete(s.receipts, id)
	s.mu.Unlock()
	if r == nil {
		s.lose(fmt.Errorf("the server acknowledges the message %d, which was not sent", id))
		return
	}
	r.finish(err)
}

func (s *session5) answered(p *packets.ControlPacket) {
	id := p.PacketID()
	s.mu.Lock()
	answer := s.answers[id]
	delete(s.answers, id)
	s.mu.Unlock()
	if answer != nil {
		answer <- *p // which has room for one
	}
}

// acknowledge tells the server that a message is safe here.
func (s *session5) acknowledge(id uint16, qos byte) {
	switch qos {
	case 1:
		_ = s.write(packets.PUBACK, func(p *packets.ControlPacket) { p.Content.(*packets.Puback).PacketID = id })
	case 2:
		_ = s.write(packets.PUBREC, func(p *packets.ControlPacket) { p.Content.(*packets.Pubrec).PacketID = id })
	}
}

// write sends a packet; what goes wrong the wire knows.
func (s *session5) write(kind byte, fill func(*packets.ControlPacket)) error {
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	p := packets.NewControlPacket(kind)
	fill(p)
	_, err := p.WriteTo(out)
	return err
}

// ConAckReceived begins the session.
func (s *session5) ConAckReceived(out io.Writer, _ *packets.Connect, _ *packets.Connack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
	return nil
}

// ConnectionLost learns why the server takes leave; p is nil if it does not.
// Whoever waits for an answer is told that none comes.
func (s *session5) ConnectionLost(p *packets.Disconnect) error {
	if p != nil {
		s.lose(&farewell{refusal{packet.Reason(p.ReasonCode), p.Properties.ReasonString}})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, answer := range s.answers {
		delete(s.answers, id)
		answer <- packets.ControlPacket{}
	}
	return nil
}

// Ack is not used: messages are acknowledged when they are safe.
func (s *session5) Ack(*packets.Publish) error { return nil }

// Close is called by nobody: paho closes only sessions that it made.
func (s *session5) Close() error { return nil }

// SetErrorLogger and SetDebugLogger: nothing is logged.
func (s *session5) SetErrorLogger(log.Logger) {}
func (s *session5) SetDebugLogger(log.Logger) {}

// farewell is why a server ended the connection (MQTT 5.0, section 3.14.2.1).
type farewell struct{ refusal }

// pinger pings the server every keepalive, or as often as it wants. That it
// answers, the wire watches.
type pinger struct{ keepalive time.Duration }

// Run pings until ctx is done.
func (p pinger) Run(ctx context.Context, conn net.Conn, wanted uint16) error {
	every := p.keepalive
	if wanted > 0 {
		every = min(every, time.Duration(wanted)*time.Second)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(conn); err != nil {
				return fmt.Errorf("ping the server: %w", err)
			}
		}
	}
}

// What else paho tells a pinger does not matter.

func (pinger) PacketSent()         {}
func (pinger) PacketReceived()     {}
func (pinger) PingResp()           {}
func (pinger) SetDebug(log.Logger) {}
