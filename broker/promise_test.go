package broker

import (
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

func TestAcknowledgedMessageIsNotHeldUpByABrokenStore(t *testing.T) {
	d := newBed(t, func(d *bed) { d.broken = true })
	sub := d.wire(kept("sub"))
	sub.connack(packet.Accepted, false)
	sub.subscribe("a", 1)
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	d.st.Close()
	pub.publish("a", "x", 1, 1, false)
	m := sub.wantPublish("a", "x", 1)
	for d.b.Status().StoreError == "" { // a commit with the message has failed
		<-time.After(time.Millisecond)
	}
	sub.ack(packet.TypePuback, m.ID)
	sub.fence()
	_ = pub.c.SetReadDeadline(time.Now().Add(patience))
	if f, err := pub.r.Next(); err != nil || f.Type() != packet.TypePuback {
		t.Errorf("no PUBACK although the only consumer has acknowledged: %v", err)
	}
}

func TestPublishIsNotConfirmedByTheLastCommitThatMissedIt(t *testing.T) {
	d := newBed(t, nil)
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	b := d.b
	told := make(chan error, 1)
	// The publisher has looked whether the broker is stopped before it was, and
	// gets on while the last commit writes.
	b.commit.put(store.Row{Table: "test", Key: []byte("k"), Value: []byte("v")}, never, func(*turn, error) {
		t := turn{b: b}
		t.begin()
		_ = b.route(&t, &publication{topic: []byte("a"), qos: 1, waiter: waiter{done: func(err error) { told <- err }}})
		t.end()
	})
	d.stop()
	if err := <-told; err == nil {
		t.Error("the publisher was told that its message is safe; it is nowhere")
	}
}

func TestDoneIsCalledInTheOrderOfPublishing(t *testing.T) {
	d := newBed(t, nil)
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	const n = 100
	order := make(chan int, n)
	for i := range n {
		if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a", QoS: 1}, func(error) { order <- i }); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if got := <-order; got != i {
			t.Fatalf("told of message %d, want %d", got, i)
		}
	}
}

func TestPubcompWaitsForTheStoreAlsoWhenPubrelComesTwice(t *testing.T) {
	d := newBed(t, nil)
	sub := d.wire(kept("sub"))
	sub.connack(packet.Accepted, false)
	sub.subscribe("a", 2)
	sub.disconnect()
	pub := d.wire(kept("pub"))
	pub.connack(packet.Accepted, false)
	pub.publish("a", "x", 2, 7, false)
	pub.wantAck(packet.TypePubrec, 7)
	goOn := d.betweenCommits()
	pub.ack(packet.TypePubrel, 7)
	pub.ack(packet.TypePubrel, 7)
	pub.send(packet.Pingreq{}.Append(nil))
	f := pub.next()
	goOn()
	if f.Type() != packet.TypePingresp {
		t.Errorf("got %s before the store has forgotten the packet identifier: after a crash the next message with it is taken for the last one and lost", f.Type())
	}
}

func TestWillIsPublishedWhilePublishersAreHeldBack(t *testing.T) {
	d := newBed(t, func(d *bed) { d.opts.MemoryLimit = 64 * units.KiB })
	sub := d.dial("sub", durable)
	sub.subscribe("will", 1)
	k := clean("rude")
	k.Will = &packet.Will{Topic: "will", Payload: []byte("gone"), QoS: 1}
	w := d.wire(k)
	w.connack(packet.Accepted, false)
	c := d.b.commit
	c.crowd(true)
	w.c.Close()
	for d.b.Status().Connections > 1 && !crowdWaits(c) {
		<-time.After(time.Millisecond)
	}
	c.crowd(false)
	select {
	case m := <-sub.got:
		if m.Topic != "will" {
			t.Errorf("got %s", m.Topic)
		}
	case <-time.After(patience):
		t.Error("the will was thrown away because publishers were held back at that moment")
	}
}

func crowdWaits(c *committer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.room != nil
}

func TestPublisherWithAllAnswersOutstandingIsStillServed(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.ReceiveMaximum = 3; d.broken = true })
	sub := d.connect("sub", false)
	sub.subscribe("a", 1)
	sub.disconnect()
	pub := d.connect("pub", false)
	pub.subscribe("b", 2)
	d.st.Close() // no PUBACK comes for days
	for i := range uint16(3) {
		pub.publish("a", "x", 1, i+1, false)
	}
	for d.b.Status().StoreError == "" {
		<-time.After(time.Millisecond)
	}
	_ = pub.c.SetReadDeadline(time.Now().Add(patience))
	pub.send(packet.Pingreq{}.Append(nil))
	if f, err := pub.r.Next(); err != nil || f.Type() != packet.TypePingresp {
		t.Errorf("no PINGRESP: %v; a client that waits for its PUBACKs is not read, so it gives the connection up", err)
	}
}

func TestReadingIsShownOnceTheInboxHasItAlsoWhileTheStoreIsBroken(t *testing.T) {
	d := newBed(t, func(d *bed) { d.broken = true })
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	sub := d.connect("sub", false)
	sub.subscribe("a", 1)
	d.st.Close()
	if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a", Payload: []byte("x"), QoS: 1}, nil); err != nil {
		t.Fatal(err)
	}
	for d.b.Status().StoreError == "" { // a commit with the reading has failed
		<-time.After(time.Millisecond)
	}
	m, err := in.Recv(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	in.Ack(m.Seq)
	_ = sub.c.SetReadDeadline(time.Now().Add(patience))
	if f, err := sub.r.Next(); err != nil || f.Type() != packet.TypePublish {
		t.Errorf("the local subscriber does not get the reading although the inbox has it: %v", err)
	}
}

func TestReadingIsShownToQoS1OnlyOnceTheInboxHasIt(t *testing.T) {
	d := newBed(t, func(d *bed) { d.opts.OnlineDelay = units.Duration(time.Hour) })
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	one, zero := d.wire(clean("one")), d.wire(clean("zero"))
	one.connack(packet.Accepted, false)
	zero.connack(packet.Accepted, false)
	one.subscribe("a", 1)
	zero.subscribe("a", 0)
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a", Payload: []byte("reading"), QoS: 1}, nil); err != nil {
		t.Fatal(err)
	}
	zero.wantPublish("a", "reading", 0)
	c := d.b.commit
	c.mu.Lock()
	r := *c.pend.front()
	open, state := r.open.Load(), r.state
	c.mu.Unlock()
	if open && state == waiting {
		t.Error("the gate is open before inbox or disk has the reading")
	}
	if state == waiting {
		one.fence()
	}
	pub.publish("a", "behind it", 1, 1, false)
	m, err := in.Recv(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	in.Ack(m.Seq)
	one.wantPublish("a", "reading", 1)
	one.wantPublish("a", "behind it", 1)
}

// Who subscribes while a publisher is held back between finding the subscribers and
// retaining the message gets it one way or the other [MQTT-3.3.1-9].
func TestRetainedMessageIsNotMissedByWhoSubscribesMeanwhile(t *testing.T) {
	d := newBed(t, func(d *bed) { d.opts.MemoryLimit = 64 * units.KiB })
	d.dial("absent", durable).subscribe("state", 1)
	pub := d.connect("pub", false)
	sub := d.dial("sub", nil)
	c := d.b.commit
	c.crowd(true)
	raw := packet.Publish{Topic: []byte("state"), Payload: []byte("on"), QoS: 1, ID: 1, Retain: true}
	pub.send(raw.Append(nil))
	for !crowdWaits(c) {
		<-time.After(time.Millisecond)
	}
	sub.subscribe("state", 1)
	c.crowd(false)
	pub.wantAck(packet.TypePuback, 1)
	sub.want("state", "on", 1)
}

// crowd makes publishers wait for memory, or go on.
func (c *committer) crowd(wait bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait {
		c.bytes += c.maxBytes
		return
	}
	c.bytes -= c.maxBytes
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}
