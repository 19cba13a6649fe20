package broker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// Law 2: memory is bounded whatever clients do and whatever the disk does.

func TestUnreadAnswersAreBounded(t *testing.T) {
	d := newBed(t, nil)
	ours, theirs := net.Pipe()
	c := newConn(d.b, theirs)
	d.b.admit(c)
	w := newWire(t, ours, clean("flood"))
	w.connack(packet.Accepted, false)
	_ = ours.SetWriteDeadline(time.Now().Add(2 * time.Second))
	ping := []byte(strings.Repeat("\xc0\x00", 32<<10))
	for range 64 { // 2 Mi pings, 4 MiB of answers that nobody reads
		if _, err := ours.Write(ping); err != nil {
			break // held back or thrown out: both will do
		}
	}
	c.out.mu.Lock()
	n := len(c.out.buf)
	c.out.mu.Unlock()
	ours.Close()
	<-c.left
	if n > 1<<20 {
		t.Errorf("%d bytes of answers wait for a client that does not read", n)
	}
}

func TestRetainedMessagesDoNotPileUpWhileTheStoreIsBroken(t *testing.T) {
	d := newBed(t, func(d *bed) { d.broken = true })
	d.st.Close()
	for i := range 20000 {
		d.owes(mqtt.Message{Topic: "r", Payload: fmt.Appendf(nil, "%d", i), Retain: true})
	}
	d.b.commit.mu.Lock()
	n := len(d.b.commit.rows.list)
	d.b.commit.mu.Unlock()
	if n > 1000 {
		t.Errorf("%d rows wait for the store, all for one topic", n)
	}
}

func TestAcknowledgedRecordsDoNotPileUpBehindOneThatWaits(t *testing.T) {
	d := newBed(t, func(d *bed) { d.broken = true })
	absent := d.inbox("absent", "b")
	absent.Close()
	in := d.inbox("up", "a")
	defer in.Close()
	d.st.Close() // a disk that is full for days
	publish := func(topic string) {
		d.owes(mqtt.Message{Topic: topic, QoS: 1})
	}
	publish("b")
	const n = 2000
	for range n {
		publish("a")
		m, err := in.Recv(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		in.Ack(m.Seq)
	}
	c := d.b.commit
	c.mu.Lock()
	defer c.mu.Unlock()
	live := 0
	for i := range c.pend.len() {
		if s := (*c.pend.at(i)).state; s == waiting || s == writing {
			live++
		}
	}
	if c.pend.len() > 2*live+100 {
		t.Errorf("%d records are kept, of which %d wait: the others are acknowledged and of no use", c.pend.len(), live)
	}
}

func TestQoS0ForAnInboxIsBoundedInBytes(t *testing.T) {
	d := newBed(t, nil)
	in := d.inbox("up", "a")
	defer in.Close()
	for range 200 {
		d.owes(mqtt.Message{Topic: "a", Payload: make([]byte, 100<<10)})
	}
	ready, sum := &in.(*inbox).box.ready, 0
	for i := range ready.len() {
		sum += len(ready.at(i).Payload)
	}
	if most := 2 * int(d.cfg.Queue.MaxMemory); sum > most {
		t.Errorf("%d bytes of QoS 0 messages wait for an inbox that is not read; max_memory is %v", sum, d.cfg.Queue.MaxMemory)
	}
}

func TestIdleConnectionHoldsNoBuffer(t *testing.T) {
	d := newBed(t, nil)
	sub := d.passes("sub")
	sub.subscribe("a", 0)
	pub := d.passes("pub")
	pub.publish("a", strings.Repeat("x", 1<<19), 0, 0, false)
	pub.fence()
	sub.next()
	sub.fence()
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for c := range d.b.conns {
		c.out.mu.Lock()
		out := cap(c.out.buf)
		c.out.mu.Unlock()
		if out > 2*readSize {
			t.Errorf("an idle connection keeps %d bytes of output buffer", out)
		}
	}
	var pubConn *conn
	for c := range d.b.conns {
		if c.s.id == "pub" {
			pubConn = c
		}
	}
	pubConn.end(io.EOF)
	d.b.mu.Unlock()
	<-pubConn.left
	d.b.mu.Lock()
	if n := cap(pubConn.turn.scratch); n > 2*readSize {
		t.Errorf("an idle connection keeps %d bytes of scratch", n)
	}
}

func TestIdleConnectionHoldsASmallStack(t *testing.T) {
	d := newBed(t, nil)
	most := int64(3 << 10)
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		most *= 2 // the race detector makes stacks grow earlier
	}
	const n = 500
	before := stacks()
	for i := range n {
		w := d.passes(strconv.Itoa(i))
		w.subscribe("a/"+strconv.Itoa(i), 0)
		w.fence()
	}
	d.waitFor(fmt.Sprintf("connection with a stack of %d bytes at most", most), func() bool { return (stacks()-before)/n <= most })
}

// stacks returns what all goroutines' stacks take, in bytes.
func stacks() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

func TestMatchCacheIsBoundedInBytes(t *testing.T) {
	d := newBed(t, nil)
	pad := strings.Repeat("x", 60000)
	for i := range 200 {
		d.b.trie.match(fmt.Appendf(nil, "%s/%d", pad, i))
	}
	sum := 0
	for topic := range d.b.trie.cached {
		sum += len(topic)
	}
	if sum > 4<<20 {
		t.Errorf("200 topics hold %d bytes in the cache; %d may be cached", sum, maxCachedTopics)
	}
}

func TestDeepFilterIsCheap(t *testing.T) {
	d := newBed(t, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := &session{b: d.b}
	const n = 10
	for i := range n {
		if _, err := s.subscribe(mqtt.Subscription{Filter: fmt.Sprintf("%d%s", i, strings.Repeat("/", 60000))}); !errors.Is(err, errTooDeep) {
			t.Fatalf("a filter with 60,000 levels: %v", err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > 1<<20 {
		t.Errorf("one filter of 60 kB takes %d bytes; a session may have %d", each, d.cfg.Limits.MaxSubscriptions)
	}
	runtime.KeepAlive(d)
}

func TestSubscribingAgainAndAgainDoesNotPileUpRetainedMessages(t *testing.T) {
	d := newBed(t, nil)
	const topics = 1000
	for i := range topics {
		d.owes(mqtt.Message{Topic: fmt.Sprintf("r/%d", i), Payload: make([]byte, 200), Retain: true})
	}
	ours, theirs := net.Pipe()
	go d.b.ServeConn(theirs)
	w := newWire(t, ours, clean("sub"))
	w.connack(packet.Accepted, false)
	_ = ours.SetWriteDeadline(time.Now().Add(time.Second))
	sub := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "r/#", QoS: 1}}}
	for range 100 {
		if _, err := ours.Write(sub.Append(nil)); err != nil {
			break
		}
	}
	d.b.mu.Lock()
	s := d.b.sessions["sub"]
	d.b.mu.Unlock()
	s.mu.Lock()
	n := s.replay.len()
	s.mu.Unlock()
	ours.Close()
	if n > 10*topics {
		t.Errorf("%d retained messages wait for a client that does not read; %d exist", n, topics)
	}
}

// glutton is a consumer that takes everything and acknowledges nothing.
type glutton struct{ sink }

func (k *glutton) flush(*turn) {}

// Many acknowledgements in one turn, each of which finds that memory runs dry,
// must not have as many pages read from the journal.
func TestDrainReadsAheadByAPageAtATime(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMemory = 32 << 10 })
	sub := d.wire(kept("sub"))
	sub.connack(packet.Accepted, false)
	sub.subscribe("a", 1)
	sub.disconnect()
	for range 5000 {
		d.owes(mqtt.Message{Topic: "a", Payload: make([]byte, 100), QoS: 1})
	}
	d.flush()
	s, tn := d.queueOf("sub"), d.b.newTurn(nil)
	defer d.b.endTurn(tn)
	k := &glutton{sink{s: s}}
	s.attach(tn, k, 1000)
	tn.end()
	s.mu.Lock()
	s.limit += s.ram.len() // as when the positions of so many are saved
	for range 100 {
		s.pump(tn)
	}
	s.mu.Unlock()
	tn.end()
	s.mu.Lock()
	if s.ramBytes > 32<<10 {
		t.Errorf("%d bytes were read ahead, max_memory is 32 KiB", s.ramBytes)
	}
	s.mu.Unlock()
	s.detach(tn, k)
}
