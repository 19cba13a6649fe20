package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// What can make the broker, or one of its sessions, stand still.

// holdLog is a log handler that holds up whoever logs a text, once.
type holdLog struct {
	slog.Handler
	text string
	once *sync.Once
	held chan struct{}
	let  chan struct{}
}

func (h holdLog) Enabled(context.Context, slog.Level) bool { return true }

func (h holdLog) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h holdLog) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) {
		h.once.Do(func() { close(h.held); <-h.let })
	}
	return nil
}

// stored is a message as the store keeps it.
func stored(topic, payload string) []byte {
	b := appendBody(nil, topic, []byte(payload), nil, 0)
	return b.appendStored(nil, 0, time.Now())
}

func TestTakeOverDuringAReadOfTheJournalGetsItsMessages(t *testing.T) {
	hold := holdLog{text: "makes no sense", once: new(sync.Once), held: make(chan struct{}), let: make(chan struct{})}
	d := newBed(t, func(d *bed) { d.handler = hold })
	sub := mqtt.Subscription{Filter: "a", QoS: 1}
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	d.stop()
	st, err := store.Open(d.dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// A record whose tag has QoS 0 makes the reader log, where the test holds it.
	err = st.Commit(&store.Batch{
		Records: []store.Record{{Seq: st.LastSeq() + 1, Owners: []store.Owner{{Queue: 1}}, Data: stored("a", "bad")}},
		Queues:  []store.Queue{{ID: 1, Acked: st.LastSeq(), Pending: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	d.start()
	if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: []byte("good"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	first := make(chan mqtt.Inbox, 1)
	go func() {
		in, _ := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
		first <- in
	}()
	<-hold.held
	second, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	close(hold.let)
	if err != nil {
		t.Fatal(err)
	}
	(<-first).Close()
	defer second.Close()
	ctx, cancel := context.WithTimeout(d.ctx(), patience)
	defer cancel()
	if m, err := second.Recv(ctx); err != nil || string(m.Payload) != "good" {
		t.Errorf("the second consumer got %q, %v; it waits for a read that the first one began", m.Payload, err)
	}
}

func TestLargeMessageBehindSmallOnesDoesNotSpin(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMemory = 4096; d.broken = true })
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{MaxInflight: 2}, mqtt.Subscription{Filter: "a", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	d.st.Close() // a disk that is full for good
	for i := range 5 {
		size := 10
		if i == 4 {
			size = 4090
		}
		if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a", Payload: make([]byte, size), QoS: 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	m, err := in.Recv(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	acked := make(chan struct{})
	go func() { in.Ack(m.Seq); close(acked) }()
	select {
	case <-acked:
	case <-time.After(patience):
		t.Error("Ack does not return: refill and pump call each other for ever")
	}
	in.Close() // ends it
	<-acked
}

// wantStoreWorks publishes something for an absent session.
func wantStoreWorks(t *testing.T, d *bed) {
	t.Helper()
	ctx, cancel := context.WithTimeout(d.ctx(), patience)
	defer cancel()
	in, err := d.b.OpenInbox(ctx, "probe", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "probe", QoS: 1})
	if err == nil {
		in.Close()
		err = d.b.Publish(ctx, mqtt.Message{Topic: "probe", QoS: 1})
	}
	if err != nil {
		t.Errorf("nothing can be stored any more: %v; %s", err, d.b.Status().StoreError)
		d.broken = true
	}
}

func TestLongRetainedTopicDoesNotStopTheStore(t *testing.T) {
	d := newBed(t, nil)
	w := d.wire(clean("x"))
	w.connack(packet.Accepted, false)
	p := packet.Publish{Topic: []byte(strings.Repeat("t", 40000)), Payload: []byte("x"), Retain: true}
	w.send(p.Append(nil))
	w.fence()
	wantStoreWorks(t, d)
}

func TestLongClientIDDoesNotStopTheStore(t *testing.T) {
	d := newBed(t, nil)
	w := d.wire(kept(strings.Repeat("i", 40000)))
	w.next() // accepted or refused
	wantStoreWorks(t, d)
}

// watched is a socket that remembers its write deadline.
type watched struct {
	transport
	deadline *atomic.Value
}

func (w watched) SetWriteDeadline(t time.Time) error {
	w.deadline.Store(t)
	return w.transport.SetWriteDeadline(t)
}

func TestConnectionThatWasOnceSlowCanBeWrittenMuchLater(t *testing.T) {
	leak.Check(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	theirs, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	drained := make(chan struct{}, 10)
	var failed, deadline atomic.Value
	o := output{memory: &budget{limit: 1 << 20}, t: watched{newSocket(ours), &deadline}, sent: new(counters), drained: func() { drained <- struct{}{} }, failed: func(err error) { failed.Store(err) }}
	const n = 20 << 20
	o.packet(make([]byte, n))
	o.flush()
	buf := make([]byte, 1<<20)
	for got := 0; got < n; {
		k, err := theirs.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += k
	}
	<-drained
	switch last, ok := deadline.Load().(time.Time); {
	case !ok:
		t.Error("the test proves nothing: no write had to wait")
	case !last.IsZero():
		t.Errorf("the deadline of the blocking write still stands: a write after %v fails", last)
	}
	if o.packet([]byte("x")) {
		o.flush()
	}
	if err := failed.Load(); err != nil {
		t.Errorf("the connection was ended: %v", err)
	}
	o.finish()
}

func TestEndedSessionDoesNotPinTheJournalAfterACrash(t *testing.T) {
	// The row of a session goes with state.db, its queue with the journal, which
	// is written second: a crash between them leaves the queue alone.
	dir := t.TempDir()
	st, err := store.Open(dir, store.Options{SegmentSize: 64 * units.KiB})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	err = st.Commit(&store.Batch{
		Records: []store.Record{{Seq: 1, Owners: []store.Owner{{Queue: 5, Tag: 1 << 16}}, Data: stored("a", "")}},
		Queues:  []store.Queue{{ID: 5, Pending: 1}},
		Marks:   []store.Row{{Key: []byte{0, 0, 0, 5, 0, 1}, Value: []byte{1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	cfg.SetDefaults()
	b, err := New(cfg, Options{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	tn := turn{b: b}
	tn.begin()
	if err := b.commit.commit(&tn); err != nil {
		t.Fatal(err)
	}
	if q := st.Queues(); len(q) > 0 {
		t.Errorf("queue %d of no session pins the journal for ever: %+v", q[0].ID, q)
	}
	_ = st.Marks(func(key, _ []byte) error {
		t.Errorf("the receipt %x of no session stays in the store for ever", key)
		return nil
	})
}

func TestOldInboxGetsNothingOnceItIsTakenOver(t *testing.T) {
	d := newBed(t, nil)
	sub := mqtt.Subscription{Filter: "a", QoS: 1}
	old, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a", QoS: 1}, nil); err != nil {
		t.Fatal(err)
	}
	next, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if m, err := old.Recv(d.ctx()); err == nil {
		t.Errorf("the old consumer still gets message %d, want ErrClosed", m.Seq)
	}
}

func TestPingreqWithABodyEndsTheConnection(t *testing.T) { // [MQTT-4.8.0-1]
	d := newBed(t, nil)
	w := d.wire(clean("x"))
	w.connack(packet.Accepted, false)
	w.send([]byte{0xc0, 1, 0})
	w.wantEnd()
}

func TestKeepAliveAllowsOneAndAHalfTimes(t *testing.T) { // [MQTT-3.1.2-24]
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil }) // a socket knows no virtual time
		w := d.piped(packet.Connect{ClientID: "x", CleanSession: true, KeepAlive: 8})
		w.connack(packet.Accepted, false)
		time.Sleep(time.Second)
		w.fence()
		last := time.Now()
		_ = w.c.SetReadDeadline(time.Time{})
		if _, err := w.r.Next(); err == nil {
			t.Fatal("got a packet")
		}
		if silent := time.Since(last); silent < 12*time.Second || silent > 13*time.Second {
			t.Errorf("the connection was ended after %v of silence, want 12 s", silent)
		}
	})
}

func TestResentAfterARestartHasTheDupFlag(t *testing.T) { // [MQTT-3.3.1-1]
	d := newBed(t, nil)
	sub := d.wire(kept("sub"))
	sub.connack(packet.Accepted, false)
	sub.subscribe("a", 1)
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	pub.publish("a", "x", 1, 1, false)
	m := sub.wantPublish("a", "x", 1)
	pub.wantAck(packet.TypePuback, 1) // it is on disk
	d.restart()
	sub = d.wire(kept("sub"))
	sub.connack(packet.Accepted, true)
	again := sub.wantPublish("a", "x", 1)
	if again.ID != m.ID {
		t.Errorf("sent again with the packet identifier %d, it was %d [MQTT-4.4.0-1]", again.ID, m.ID)
	}
	if !again.Dup {
		t.Error("sent again without the DUP flag")
	}
}

func TestSentAfterItsCommitAndResentAfterARestartHasTheDupFlag(t *testing.T) { // [MQTT-3.3.1-1]
	d := newBed(t, nil)
	other := d.connect("other", false)
	other.subscribe("a", 2)
	other.disconnect()
	sub := d.connect("sub", false)
	sub.subscribe("a", 1)
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	pub.publish("a", "x", 2, 1, false)
	sub.wantPublish("a", "x", 1) // it has waited for the disk, because of the other
	d.restart()
	if again := d.connect("sub", true).wantPublish("a", "x", 1); !again.Dup {
		t.Error("sent again without the DUP flag")
	}
}

func TestSessionEndsThatIsTheLastToBeOwedAMessage(t *testing.T) {
	d := newBed(t, nil)
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	for i, last := range []string{"a", "b"} { // it is owed to both, in whatever order
		subs := make(map[string]*wire)
		for _, id := range []string{"a", "b"} {
			subs[id] = d.connect(id, false)
			subs[id].subscribe("x", 1)
		}
		pub.publish("x", "1", 1, uint16(i+1), false)
		for id, sub := range subs {
			if m := sub.wantPublish("x", "1", 1); id != last {
				sub.ack(packet.TypePuback, m.ID)
				sub.fence()
			}
		}
		for _, id := range []string{last, "a", "b"} { // ends the session
			d.wire(clean(id)).connack(packet.Accepted, false)
		}
		pub.wantAck(packet.TypePuback, uint16(i+1))
	}
}

// What a member has acknowledged in time never gets to the disk, but its place in
// the journal does, with the share's position: it is not given out again.
func TestShareIsOwedWhatIsPublishedAfterAPowerCut(t *testing.T) {
	d := newBed(t, func(d *bed) {
		d.cfg.Limits.MaxInflight = 4
		d.opts.OnlineDelay = units.Duration(200 * time.Millisecond)
	})
	m := d.joins("m", "$share/g/a", 1)
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	pub.owe("a", 1, 1, 3) // on the disk, as nobody acknowledges them
	m.wantPublish("a", "1", 1)
	on := []uint16{m.wantPublish("a", "2", 1).ID, m.wantPublish("a", "3", 1).ID}
	pub.publish("a", "4", 1, 5, false)
	m.ack(packet.TypePuback, m.wantPublish("a", "4", 1).ID)
	pub.wantAck(packet.TypePuback, 5)
	for _, id := range on { // a quarter of the window is left: the position is written
		m.ack(packet.TypePuback, id)
	}
	d.waitFor("the position", func() bool {
		return slices.ContainsFunc(d.st.Queues(), func(q store.Queue) bool { return q.Pending == 1 })
	})
	d.crash()
	pub = d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	pub.owe("a", 1, 5, 5)
	m = d.connect("m", true)
	m.wantPublish("a", "1", 1)
	m.wantPublish("a", "5", 1)
}

// Rows that the store does not take hold up whoever waits for them, and nobody else.
func TestRowsThatAreRefusedHoldUpNoMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := slowBed(t)
		var refuses atomic.Bool
		refuses.Store(true)
		save := d.b.commit.save
		d.b.commit.save = func(b *store.Batch) error {
			if refuses.Load() && len(b.Rows) > 0 {
				return store.ErrNoState
			}
			return save(b)
		}
		kept := make(chan error, 1)
		go func() {
			kept <- d.b.Publish(context.Background(), mqtt.Message{Topic: "kept", Payload: []byte("x"), QoS: 1, Retain: true})
		}()
		time.Sleep(time.Minute)
		for range 10 {
			if took := d.wait(); took > 10*time.Millisecond {
				t.Errorf("a message waits for %v", took)
			}
		}
		if len(kept) > 0 || !errors.Is(d.b.commit.health(), store.ErrNoState) {
			t.Errorf("a retained message is acknowledged (%d); the store says %v", len(kept), d.b.commit.health())
		}
		refuses.Store(false)
		err := <-kept
		synctest.Wait()
		if err != nil || d.b.commit.health() != nil {
			t.Errorf("the retained message: %v; the store says %v", err, d.b.commit.health())
		}
	})
}
