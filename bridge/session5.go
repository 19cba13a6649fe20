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

// session5 gives out packet identifiers over one link and takes the answers, but for
// what is published, whose are those of receipts.
// Paho's own sessions keep every message in memory and send it again over the
// next connection, which the inbox does.
type session5 struct {
	wire *wire

	mu      sync.Mutex
	out     io.Writer
	last    uint16
	answers map[uint16]chan<- packets.ControlPacket // to what was asked
}

func newSession5(w *wire) *session5 {
	return &session5{wire: w, answers: make(map[uint16]chan<- packets.ControlPacket)}
}

// AddToSession gives what is asked its identifier.
func (s *session5) AddToSession(_ context.Context, p session.Packet, answer chan<- packets.ControlPacket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = s.last%(firstID-1) + 1 // a link asks once or twice
	s.answers[s.last] = answer
	p.SetIdentifier(s.last)
	return nil
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

// published tells what p says of a message to its owner.
func (s *session5) published(p *packets.Puback) {
	var err error
	if reason := packet.Reason(p.ReasonCode); reason.Failed() {
		err = &refusal{reason, p.Properties.ReasonString}
	}
	s.wire.receipts.answered(p.PacketID, err)
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
		s.wire.fail(&farewell{refusal{packet.Reason(p.ReasonCode), p.Properties.ReasonString}})
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
