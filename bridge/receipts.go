package bridge

import (
	"fmt"
	"sync"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// owner has sent a message at QoS 1 over a link and learns what becomes of it, from the
// goroutine that reads what the server sends.
type owner interface {
	// acknowledged is called once: with nil when the server has the message, with a
	// refusal when it does not take it. If the link is lost it may never be called.
	acknowledged(err error)

	// rest is called of one owner of several that were acknowledged together: there
	// is no more at hand.
	rest()
}

// receipts are the owners of what was published over one link, by packet identifier.
// The link keeps far fewer messages under way than there are identifiers, so that there
// is a free one.
type receipts struct {
	mu   sync.Mutex
	last uint16
	list map[uint16]owner

	// Of the goroutine that reads.
	fresh   owner // was acknowledged last, and has not heard of a rest
	handful handful
}

// firstID is the lowest packet identifier of a PUBLISH. Those below are the client's, which
// takes one for each SUBSCRIBE.
const firstID = 256

func newReceipts() *receipts {
	return &receipts{last: firstID - 1, list: make(map[uint16]owner)}
}

// add gives a message of o an identifier.
func (s *receipts) add(o owner) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.last = max(s.last+1, firstID); s.list[s.last] != nil; s.last = max(s.last+1, firstID) {
	}
	s.list[s.last] = o
	return s.last
}

// take returns the owner of id and frees it; nil if there is none.
func (s *receipts) take(id uint16) owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.list[id]
	delete(s.list, id)
	return o
}

// accepted tells the owner of id that the server has the message.
func (s *receipts) accepted(id uint16) { s.answered(id, nil) }

// answered tells the owner of id what the server says. An answer to nothing that is
// under way is passed over: what is really owed is found by the time that it takes.
func (s *receipts) answered(id uint16, err error) {
	if o := s.take(id); o != nil {
		s.fresh = o
		s.handful.took()
		o.acknowledged(err)
	}
}

// rest is called before the goroutine that reads waits for more.
func (s *receipts) rest() {
	if o := s.fresh; o != nil {
		s.fresh = nil
		o.rest()
	}
}

// worth returns how many acknowledgements are worth waking up for.
func (s *receipts) worth(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handful.of(len(s.list), now)
}

// publisher writes PUBLISH over a wire, past the client and with the gateway's own codec.
// Its zero value but for the wire is ready. It is used by one goroutine at a time.
type publisher struct {
	*wire
	topic, packet []byte // room for the next ones
}

// prepare is the PUBLISH of m but for its properties.
func (p *publisher) prepare(version packet.Version, m mqtt.Message) packet.Publish {
	p.topic = append(p.topic[:0], m.Topic...)
	return packet.Publish{Version: version, Topic: p.topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain}
}

// send writes m for o, if it takes at most limit bytes; 0: any number.
func (p *publisher) send(m packet.Publish, o owner, limit int) error {
	if m.QoS != mqtt.AtMostOnce {
		m.ID = p.receipts.add(o)
	}
	p.packet = m.Append(p.packet[:0])
	if limit > 0 && len(p.packet) > limit {
		p.receipts.take(m.ID)
		return &refusal{packet.ReasonPacketTooLarge, fmt.Sprintf("it takes packets of at most %d bytes", limit)}
	}
	_, err := p.Write(p.packet)
	if cap(p.packet) > maxGathered {
		p.packet = nil
	}
	return err
}
