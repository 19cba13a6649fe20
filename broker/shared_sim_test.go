package broker

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// receiver is a durable client as the standard wants it: it keeps its half of
// the session, so QoS 2 messages must reach it exactly once, whatever happens.
type receiver struct {
	id      string
	qos     mqtt.QoS
	w       *wire // nil: absent
	held    map[uint16]bool
	unacked []uint16 // QoS 1, of this connection
}

// take handles one packet.
func (r *receiver) take(f packet.Frame) {
	switch f.Type() {
	case packet.TypePublish:
		var p packet.Publish
		if err := p.Decode(f); err != nil {
			r.w.t.Fatal(err)
		}
		if p.QoS == 2 {
			r.held[p.ID] = true
			r.w.ack(packet.TypePubrec, p.ID)
			return
		}
		r.unacked = append(r.unacked, p.ID)
	case packet.TypePubrel:
		var a packet.Ack
		if err := a.Decode(f); err != nil {
			r.w.t.Fatal(err)
		}
		delete(r.held, a.ID)
		r.w.ack(packet.TypePubcomp, a.ID)
	}
}

// crowd is what the members of one share, taken together, have got.
type crowd struct {
	t       *testing.T
	d       *bed
	rnd     *rand.Rand
	members []*sharer
	sent    int              // messages published; their payloads are 1, 2, 3 ...
	qos     map[int]mqtt.QoS // of each
	calm    int              // messages up to here may come out of order: a connection has ended since
	once    map[int]int      // message to deliveries at QoS 2
	often   map[int]int      // ... at QoS 1

	promised []*atomic.Bool // of each message: the publisher was told before any power cut
	over     *atomic.Bool   // a power cut has come; whatever the broker says from here on does not count
}

// sharer is a member.
type sharer struct {
	receiver
	c     *crowd
	in    bool // it takes part
	guest bool // its session ends with its connection
	last  [3]int
}

// take handles one packet and notes what it means for the crowd.
func (m *sharer) take(f packet.Frame) {
	if f.Type() == packet.TypePublish {
		var p packet.Publish
		if err := p.Decode(f); err != nil {
			m.c.t.Fatal(err)
		}
		n, _ := strconv.Atoi(string(p.Payload))
		switch {
		case p.QoS == 2 && !m.held[p.ID]:
			m.c.once[n]++
			m.order(n, p)
		case p.QoS == 1:
			m.c.often[n]++
			m.order(n, p)
		}
	}
	m.receiver.take(f)
}

func (m *sharer) order(n int, p packet.Publish) {
	if n <= m.c.calm {
		return
	}
	if n < m.last[p.QoS] || p.Dup {
		m.c.t.Errorf("%s got %d behind %d, DUP %v, and no connection had ended", m.id, n, m.last[p.QoS], p.Dup)
	}
	m.last[p.QoS] = n
}

func (m *sharer) come() {
	m.c.t.Helper()
	if m.guest {
		m.w = m.c.connect(clean(m.id), false)
		m.held = make(map[uint16]bool)
		m.in = false
	} else {
		m.w = m.c.connect(kept(m.id), true)
	}
	m.join()
}

// join subscribes. Messages may come before the SUBACK.
func (m *sharer) join() {
	s := packet.Subscribe{ID: 9999, Subscriptions: []mqtt.Subscription{{Filter: "$share/g/t", QoS: m.qos}}}
	m.answered(s.Append(nil), packet.TypeSuback)
	m.in = true
}

func (m *sharer) leave() {
	u := packet.Unsubscribe{ID: 9999, Filters: []string{"$share/g/t"}}
	m.answered(u.Append(nil), packet.TypeUnsuback)
	m.in = false
}

func (m *sharer) answered(packet []byte, by packet.Type) {
	m.w.send(packet)
	for f := m.w.next(); f.Type() != by; f = m.w.next() {
		m.take(f)
	}
}

func (m *sharer) listen() {
	m.w.send(packet.Pingreq{}.Append(nil))
	for f := m.w.next(); f.Type() != packet.TypePingresp; f = m.w.next() {
		m.take(f)
	}
}

func (m *sharer) acknowledge(n int) {
	for ; n > 0; n-- {
		m.w.ack(packet.TypePuback, m.unacked[0])
		m.unacked = m.unacked[1:]
	}
}

func (m *sharer) away() {
	m.w.c.Close()
	m.w, m.unacked = nil, nil
	here := 0
	for _, o := range m.c.members {
		if o.w != nil {
			here++
		}
	}
	m.c.d.settle(here) // until then the broker may still send to it
	m.c.calm = m.c.sent
	m.in = m.in && !m.guest
}

// others reports whether somebody else keeps the share alive.
func (m *sharer) others() bool {
	return slices.ContainsFunc(m.c.members, func(o *sharer) bool { return o != m && o.in && !o.guest })
}

// connect connects a member that keeps its session, in virtual time.
func (c *crowd) connect(k packet.Connect, present bool) *wire {
	c.t.Helper()
	w := c.d.piped(k)
	w.connack(packet.Accepted, present)
	return w
}

func (c *crowd) disturb() {
	synctest.Wait()
	cut := ""
	if c.rnd.IntN(2) == 0 {
		cut = c.d.snapshot()
		c.over.Store(true)
		c.over = new(atomic.Bool)
	}
	for _, m := range c.members {
		if m.w != nil {
			m.away()
		}
	}
	if cut == "" {
		c.d.restart()
	} else {
		c.d.goBack(cut)
	}
}

// publish does not wait: the members may acknowledge before the disk has it.
func (c *crowd) publish() {
	q := mqtt.QoS(1 + c.rnd.IntN(2))
	c.sent++
	c.qos[c.sent] = q
	promised, over := new(atomic.Bool), c.over
	c.promised = append(c.promised, promised)
	m := mqtt.Message{Topic: "t", Payload: []byte(strconv.Itoa(c.sent)), QoS: q}
	err := c.d.b.PublishAsync(c.t.Context(), m, func(err error) { promised.Store(err == nil && !over.Load()) })
	if err != nil {
		c.t.Fatal(err)
	}
	if c.rnd.IntN(2) == 0 {
		time.Sleep(time.Duration(c.rnd.IntN(8)) * time.Millisecond)
	}
}

// act lets one member do something.
func (c *crowd) act(m *sharer) {
	switch k := c.rnd.IntN(20); {
	case m.w == nil && k < 10:
		m.come()
	case m.w == nil:
	case k < 14:
		m.listen()
		c.rnd.Shuffle(len(m.unacked), func(i, j int) { m.unacked[i], m.unacked[j] = m.unacked[j], m.unacked[i] })
		m.acknowledge(c.rnd.IntN(1 + len(m.unacked)))
	case k < 16:
		m.away()
	case k < 17 && m.in && m.others():
		m.leave()
	case k < 18:
		m.join()
	}
}

// drain takes all that is still owed to anybody.
func (c *crowd) drain() {
	for _, m := range c.members {
		if m.w == nil {
			m.come()
		}
	}
	for end := time.Now().Add(patience); c.d.b.queued() > 0; {
		if time.Now().After(end) {
			c.t.Fatalf("%d messages are still owed: %+v", c.d.b.queued(), c.d.b.Sessions())
		}
		for _, m := range c.members {
			m.listen()
			m.acknowledge(len(m.unacked))
		}
		time.Sleep(time.Millisecond) // what waits for the disk gets there
	}
}

// TestSharedSim plays members that come, go, join, leave and acknowledge as they
// like, restarts and power cuts, and then compares what they got with what was
// published.
func TestSharedSim(t *testing.T) {
	seed := cmp.Or(*shadowSeed, uint64(time.Now().UnixNano()))
	t.Logf("go test ./broker -run %s -seed %d -steps %d", t.Name(), seed, *shadowSteps)
	dir := inMemory(t)
	synctest.Test(t, func(t *testing.T) { playShares(t, dir, seed) })
}

func playShares(t *testing.T, dir string, seed uint64) {
	d := newBed(t, func(d *bed) {
		d.dir, d.cfg.Listeners = filepath.Join(dir, "0"), nil
		d.cfg.Queue.MaxMemory, d.cfg.Limits.MaxInflight = 4096, 5
		d.opts.CommitInterval, d.opts.OnlineDelay = units.Duration(time.Millisecond), units.Duration(3*time.Millisecond)
	})
	c := &crowd{
		t: t, d: d, rnd: rand.New(rand.NewPCG(seed, 0)), over: new(atomic.Bool),
		qos: make(map[int]mqtt.QoS), once: make(map[int]int), often: make(map[int]int),
	}
	for i, q := range []mqtt.QoS{1, 2, 2, 1} {
		m := &sharer{c: c, guest: i == 3, receiver: receiver{id: fmt.Sprint("m", i), qos: q, held: make(map[uint16]bool)}}
		c.members = append(c.members, m)
		if m.guest {
			m.come()
			continue
		}
		m.w = c.connect(kept(m.id), false)
		m.join()
	}
	for range *shadowSteps {
		switch k := c.rnd.IntN(200); {
		case k == 0:
			c.disturb()
		case k < 80:
			c.publish()
		default:
			c.act(c.members[c.rnd.IntN(len(c.members))])
		}
	}
	c.drain()
	c.verdict()
}

func (c *crowd) verdict() {
	var lost, twice []int
	again := 0
	for n := 1; n <= c.sent; n++ {
		switch {
		case c.once[n]+c.often[n] == 0 && c.promised[n-1].Load():
			lost = append(lost, n)
		case c.once[n] > 1 || c.once[n] > 0 && c.qos[n] != 2:
			twice = append(twice, n)
		}
		again += max(0, c.often[n]-1)
	}
	if len(lost)+len(twice) > 0 {
		c.t.Errorf("lost %v, more than once at QoS 2 %v", lost, twice)
	}
	c.t.Logf("%d messages, %d of them at QoS 2 to the end; %d deliveries at QoS 1 were repetitions", c.sent, len(c.once), again)
}

// TestSharedHammer lets clients of two shares come and go while messages of many
// sizes are published as fast as they are taken.
func TestSharedHammer(t *testing.T) {
	d := newBed(t, func(d *bed) {
		d.cfg.Queue.MaxMemory = 4096
		d.cfg.Limits.MaxInflight = 7
	})
	ctx, goOn := standstill(t, patience)
	const messages = 400 // of each publisher
	var readers, publishers sync.WaitGroup
	for g := range 2 {
		filter := fmt.Sprintf("$share/g%d/h/#", g)
		keep := d.dial(fmt.Sprint("keep", g), durable) // it is never there, and keeps the share alive
		keep.subscribe(filter, 1)
		keep.Disconnect()
		h := &sharedHammer{d: d, filter: filter, tell: goOn, seen: make(map[string]bool), left: hammerPublishers * messages, done: make(chan struct{})}
		for i := range 3 {
			readers.Go(func() { h.member(ctx, fmt.Sprintf("g%d-%d", g, i), mqtt.QoS(1+i%2), i == 2) })
		}
	}
	for i := range uint16(hammerPublishers) {
		publishers.Go(func() { hammerPublish(ctx, d, i, messages, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	publishers.Wait()
	readers.Wait()
}

type sharedHammer struct {
	d      *bed
	filter string
	tell   func() // is called for each message that came for the first time
	mu     sync.Mutex
	seen   map[string]bool
	left   int
	done   chan struct{}
}

func (h *sharedHammer) got(payload []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if key := string(payload[:6]); !h.seen[key] {
		h.seen[key] = true
		h.tell()
		if h.left--; h.left == 0 {
			close(h.done)
		}
	}
}

// member connects again and again until all messages have come to somebody. Who
// is mortal ends its session now and then, but takes no QoS 2 messages along.
func (h *sharedHammer) member(ctx context.Context, id string, q mqtt.QoS, mortal bool) {
	if mortal {
		q = 1
	}
	r := rand.New(rand.NewPCG(uint64(len(id)), uint64(q)))
	for {
		var left atomic.Int64
		left.Store(int64(1 + r.IntN(300)))
		enough := make(chan struct{})
		c, err := client.Dial(ctx, h.d.b.Addrs()[0].String(), client.Options{ClientID: id, CleanSession: mortal, Handler: func(m client.Message) {
			h.got(m.Payload)
			if left.Add(-1) == 0 {
				close(enough)
			}
		}})
		if err == nil {
			_, err = c.Subscribe(ctx, mqtt.Subscription{Filter: h.filter, QoS: q})
		}
		if err != nil {
			h.d.t.Errorf("%s: %v", id, err)
			return
		}
		select {
		case <-enough:
		case <-h.done:
		case <-time.After(200 * time.Millisecond): // the others have what is left, until this one goes
		case <-ctx.Done():
		}
		c.Close()
		select {
		case <-h.done:
			return
		case <-ctx.Done():
			h.mu.Lock()
			h.d.t.Errorf("%s: %d messages never came", id, h.left)
			h.mu.Unlock()
			return
		default:
		}
	}
}
