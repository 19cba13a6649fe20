package bridge

import (
	"hash/maphash"
	"sync"
	"time"

	"tidegate/mqtt"
)

const (
	// echoTime is how long a message that was sent upstream may take to come
	// back. What comes later is taken for somebody else's.
	echoTime = time.Minute

	// maxEchoes bounds the messages that are remembered; the oldest is
	// forgotten first.
	maxEchoes = 4096
)

// Join makes the bridges of one gateway know of each other, so that each drops
// what another has sent upstream and now comes back to it. It is called before
// Run, and again only with all of them. circle is what the broker uses, too.
func Join(circle *Circle, bridges ...*Bridge) {
	var hearers []*Bridge
	for _, b := range bridges {
		b.circle = circle
		if len(b.cfg.In) == 0 {
			continue
		}
		if b.echoes == nil {
			b.echoes = newEchoes()
		}
		hearers = append(hearers, b)
	}
	for _, b := range bridges {
		b.hearers = hearers
	}
}

// Circle remembers messages that began in this gateway and left it, under the
// topics they have here, so that they are known when they come back from another
// gateway: two that are bridged to each other would else pass them on for ever.
type Circle struct{ gone *echoes }

// NewCircle returns one that remembers nothing yet.
func NewCircle() *Circle { return &Circle{newEchoes()} }

// Left notes a message that leaves. Equal ones count.
func (c *Circle) Left(topic string, payload []byte) { c.gone.sent(topic, payload) }

// Returned reports whether a message that comes is one that left, and forgets
// that one.
func (c *Circle) Returned(topic string, payload []byte) bool { return c.gone.own(topic, payload) }

// sending notes that d goes upstream as m, for whoever may get it back.
func (b *Bridge) sending(d mqtt.Delivery, m mqtt.Message) {
	for _, h := range b.hearers {
		if h == b && b.cfg.Protocol == 5 {
			continue // No Local
		}
		if r, _ := ruleFor(h.cfg.In, m.Topic); r != nil {
			h.echoes.sent(m.Topic, m.Payload)
		}
	}
	if !d.Relayed {
		b.circle.Left(d.Topic, m.Payload)
	}
}

// echoes remembers what was sent upstream under topics that the bridge has a
// subscription for, and so may come back: MQTT 3.1.1 knows no No Local. It keeps
// a hash of topic and payload for each message, and takes it out when such a
// message comes, so that of equal messages as many are dropped as were sent.
type echoes struct {
	seed maphash.Seed

	mu    sync.Mutex
	due   map[uint64]int // messages that may come back, by hash
	order []echo         // maxEchoes of them
	next  int            // where the next one goes in order, and the oldest stands
}

type echo struct {
	hash uint64
	at   time.Time // zero: none, or it came back
}

func newEchoes() *echoes {
	return &echoes{seed: maphash.MakeSeed(), due: make(map[uint64]int), order: make([]echo, maxEchoes)}
}

// sent notes a message that may come back.
func (e *echoes) sent(topic string, payload []byte) {
	h := e.hash(topic, payload)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forget(e.next)
	e.order[e.next] = echo{h, time.Now()}
	e.next = (e.next + 1) % maxEchoes
	e.due[h]++
}

// own reports whether a message that came is one that was sent, and takes it out.
func (e *echoes) own(topic string, payload []byte) bool {
	h := e.hash(topic, payload)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.due[h] == 0 {
		return false
	}
	fresh := false
	for i := range e.order { // from the oldest on
		at := (e.next + i) % maxEchoes
		if it := e.order[at]; it.at.IsZero() || it.hash != h {
			continue
		}
		fresh = time.Since(e.order[at].at) <= echoTime
		e.forget(at)
		if fresh {
			break
		}
	}
	return fresh
}

// forget takes out the message at a place in order. The caller holds mu.
func (e *echoes) forget(at int) {
	it := &e.order[at]
	if it.at.IsZero() {
		return
	}
	if e.due[it.hash]--; e.due[it.hash] == 0 {
		delete(e.due, it.hash)
	}
	*it = echo{}
}

func (e *echoes) hash(topic string, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	_, _ = h.WriteString(topic)
	_ = h.WriteByte(0) // no topic has one
	_, _ = h.Write(payload)
	return h.Sum64()
}

// circles reports whether topic begins with prefix three times: a message that
// two gateways hand to each other gets it once a round.
func circles(topic, prefix string) bool {
	n := len(prefix)
	return n > 0 && len(topic) >= 3*n && topic[:n] == prefix && topic[n:2*n] == prefix && topic[2*n:3*n] == prefix
}
