package broker

import (
	"fmt"
	"testing"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestSharedMessageComesAgainToItsMember(t *testing.T) { // [MQTT-4.4.0-1] [MQTT-3.3.1-1]
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		a := d.joins("a", "$share/g/t", 1)
		pub := d.passes("pub")
		pub.publish("t", "0", 1, 1, false)
		first := a.wantPublish("t", "0", 1)
		pub.wantAck(packet.TypePuback, 1) // it is on disk now
		a.disconnect()
		d.settle(1)
		pub.c.Close()
		interrupt()
		a = d.connect("a", true)
		if p := a.wantPublish("t", "0", 1); !p.Dup || p.ID != first.ID {
			t.Errorf("came again with DUP %v and the identifier %d, want DUP and %d", p.Dup, p.ID, first.ID)
		}
	})
}

// Also when it was lent after the commit that has written where the share was.
func TestShareKnowsItsBorrowersAfterARestart(t *testing.T) { // [MQTT-4.4.0-1] [MQTT-3.3.1-1]
	d := newBed(t, nil)
	d.joins("a", "$share/g/t", 2).disconnect() // so that it is on the disk before it is lent
	d.settle(0)
	b := d.joins("b", "$share/g/t", 1)
	pub := d.passes("pub")
	pub.owe("t", 2, 0, 0)
	first := b.wantPublish("t", "0", 1)
	d.flush()
	b.c.Close()
	d.settle(1)
	pub.c.Close()
	d.restart()
	b = d.connect("b", true)
	if p := b.wantPublish("t", "0", 1); !p.Dup || p.ID != first.ID {
		t.Errorf("came again with DUP %v and the identifier %d, want DUP and %d", p.Dup, p.ID, first.ID)
	}
}

func TestSharedQoS2StaysWithItsMember(t *testing.T) { // [MQTT-4.8.2-4]
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		a := d.joins("a", "$share/g/t", 2)
		pub := d.passes("pub")
		pub.owe("t", 2, 0, 1)
		pub.c.Close()
		first, second := a.wantPublish("t", "0", 2), a.wantPublish("t", "1", 2)
		a.ack(packet.TypePubrec, second.ID)
		a.wantAck(packet.TypePubrel, second.ID)
		a.c.Close()
		b := d.joins("b", "$share/g/t", 2)
		b.fence()
		b.c.Close()
		interrupt()
		b = d.connect("b", true)
		b.fence()
		a = d.connect("a", true)
		if p := a.wantPublish("t", "0", 2); !p.Dup || p.ID != first.ID {
			t.Errorf("came again with DUP %v and the identifier %d, want DUP and %d", p.Dup, p.ID, first.ID)
		}
		a.wantAck(packet.TypePubrel, second.ID)
		b.fence()
	})
}

func TestSharedQoS2EndsWithItsMember(t *testing.T) { // [MQTT-4.8.2-5]
	for name, dial := range map[string]func(*bed) *wire{
		"a session that is kept": func(d *bed) *wire { return d.connect("a", false) },
		"one that is not":        func(d *bed) *wire { return d.passes("a") },
	} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, nil)
			a := dial(d)
			a.subscribe("$share/g/t", 2)
			pub := d.passes("pub")
			pub.owe("t", 2, 0, 0)
			a.wantPublish("t", "0", 2)
			b := d.joins("b", "$share/g/t", 2)
			a.c.Close()
			d.settle(2)
			d.passes("a").disconnect() // the session ends
			d.settle(2)
			b.fence()
			pub.owe("t", 2, 1, 1)
			b.wantPublish("t", "1", 2)
		})
	}
}

func TestSharedQoS2ToAMemberThatIsNotKept(t *testing.T) {
	d := newBed(t, nil)
	d.joins("away", "$share/g/t", 2).disconnect()
	pub := d.passes("pub")
	pub.owe("t", 2, 0, 3)
	a := d.passes("a")
	a.subscribe("$share/g/t", 2)
	for i := range 4 {
		a.wantPublish("t", fmt.Sprint(i), 2)
	}
	a.fence()
	pub.c.Close()
	d.crash() // after which nobody knows a
	away := d.connect("away", true)
	away.fence()
}

func TestSharedMessageIsRefused(t *testing.T) { // [MQTT-4.8.2-6]
	d := newBed(t, nil)
	a := d.five("a", mqtt.Subscription{Filter: "$share/g/t", QoS: 2})
	b := d.five("b", mqtt.Subscription{Filter: "$share/g/t", QoS: 2})
	pub := d.passes("pub")
	for i, q := range []mqtt.QoS{1, 2, 1, 2} {
		pub.owe("t", q, i, i)
	}
	for i, w := range []*wire{a, b, a, b} {
		p := w.next5Publish()
		if string(p.Payload) != fmt.Sprint(i) {
			t.Fatalf("got %q, want %d", p.Payload, i)
		}
		typ := map[mqtt.QoS]packet.Type{1: packet.TypePuback, 2: packet.TypePubrec}[p.QoS]
		k := packet.Ack{Type: typ, ID: p.ID, Reason: packet.ReasonUnspecifiedError}
		w.send(k.Append(nil))
	}
	a.fence()
	b.fence()
	a.c.Close()
	d.settle(2)
	b.fence()
	if st := d.statusOf("$share/g/t"); st.Queued != 0 {
		t.Errorf("%d messages are still owed", st.Queued)
	}
}

func TestUnsubscribedMemberCompletesWhatItHas(t *testing.T) { // [MQTT-3.10.4-3]
	d := newBed(t, nil)
	a := d.joins("a", "$share/g/t", 1)
	b := d.joins("b", "$share/g/t", 1)
	pub := d.passes("pub")
	for i := range 4 {
		pub.publish("t", fmt.Sprint(i), 1, uint16(i+1), false)
	}
	first := a.wantPublish("t", "0", 1)
	a.wantPublish("t", "2", 1)
	leave := packet.Unsubscribe{ID: 5, Filters: []string{"$share/g/t"}}
	a.send(leave.Append(nil))
	a.wantAck(packet.TypeUnsuback, 5)
	b.ack(packet.TypePuback, b.wantPublish("t", "1", 1).ID)
	b.ack(packet.TypePuback, b.wantPublish("t", "3", 1).ID)
	a.ack(packet.TypePuback, first.ID)
	a.fence()
	b.fence() // what a has is not sent to b
	a.c.Close()
	b.ack(packet.TypePuback, b.wantPublish("t", "2", 1).ID) // until a is gone
	for i := range 4 {
		pub.wantAck(packet.TypePuback, uint16(i+1))
	}
	a = d.connect("a", true)
	a.fence()
}

func TestMemberLeavesAndTheOthersAreAbsent(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		d.joins("b", "$share/g/t", 1).disconnect()
		a := d.joins("a", "$share/g/t", 1)
		pub := d.passes("pub")
		pub.owe("t", 1, 0, 0)
		a.wantPublish("t", "0", 1)
		leave := packet.Unsubscribe{ID: 5, Filters: []string{"$share/g/t"}}
		a.send(leave.Append(nil))
		a.wantAck(packet.TypeUnsuback, 5)
		pub.owe("t", 1, 1, 1)
		b := d.connect("b", true)
		b.wantPublish("t", "1", 1)
		b.fence()
		b.disconnect()
		a.c.Close()
		pub.c.Close()
		d.settle(0)
		interrupt()
		b = d.connect("b", true)
		b.wantPublish("t", "0", 1)
		b.wantPublish("t", "1", 1)
	})
}

func TestWhatCameBackIsStillOwed(t *testing.T) { // though younger messages are under way
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		d.cfg.Limits.MaxInflight = 1
		d.restart()
		a, b := d.joins("a", "$share/g/t", 1), d.joins("b", "$share/g/t", 1)
		pub := d.passes("pub")
		pub.owe("t", 1, 0, 1)
		a.wantPublish("t", "0", 1)
		b.wantPublish("t", "1", 1)
		a.c.Close()
		d.settle(2)
		pub.owe("t", 1, 2, 2) // with it the position gets to the disk
		pub.c.Close()
		b.c.Close()
		d.settle(0)
		interrupt()
		b = d.connect("b", true)
		for i := range 3 {
			b.ack(packet.TypePuback, b.wantPublish("t", fmt.Sprint(i), 1).ID)
		}
		b.fence()
	})
}

func TestSharedMessageWaitsForRoomAmongOthers(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxInflight = 1 })
	a := d.joins("a", "$share/g/t", 1)
	a.subscribe("own", 1)
	pub := d.passes("pub")
	pub.owe("own", 1, 0, 0)
	p := a.wantPublish("own", "0", 1)
	pub.owe("t", 1, 1, 1)
	a.fence()
	a.ack(packet.TypePuback, p.ID)
	a.wantPublish("t", "1", 1)
}

// keeper is a consumer that keeps what it got last.
type keeper struct {
	sink
	it item
}

func (k *keeper) deliver(it item, now int64, dup bool) bool {
	k.it = it
	return k.sink.deliver(it, now, dup)
}

func TestShareKeepsWhereAMessageCameFrom(t *testing.T) {
	b := benchBroker(t)
	tn := turn{b: b}
	s := b.newSession("s", false)
	k := &keeper{sink: sink{s: s}}
	if _, err := b.joinShare(&tn, s, mqtt.Subscription{Filter: "$share/g/t", QoS: 2}); err != nil {
		t.Fatal(err)
	}
	s.attach(&tn, k, 32)
	tn.end()
	for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
		k.it = item{}
		if err := b.route(&tn, &publication{topic: []byte("t"), qos: q, relay: true}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // QoS 2: the message, and then its way out of the share
			tn.end()
			if err := b.commit.commit(&tn); err != nil {
				t.Fatal(err)
			}
		}
		tn.end()
		if !k.it.relay || k.it.qos != q || k.it.rec != nil || k.it.seq != 0 {
			t.Errorf("QoS %d: got %+v", q, k.it)
		}
	}
}

func TestLastMemberTakesTheQueueAlong(t *testing.T) {
	d := newBed(t, nil)
	a := d.joins("a", "$share/g/t", 1)
	a.disconnect()
	pub := d.passes("pub")
	pub.owe("t", 1, 0, 9)
	a = d.connect("a", true)
	leave := packet.Unsubscribe{ID: 5, Filters: []string{"$share/g/t"}}
	a.send(leave.Append(nil))
	for f := a.next(); f.Type() != packet.TypeUnsuback; f = a.next() {
	}
	a.send(leave.Append(nil))
	for f := a.next(); f.Type() != packet.TypeUnsuback; f = a.next() {
	}
	if n, _ := d.kept(); n != 1 {
		t.Errorf("%d queues, want that of the client", n)
	}
	a.subscribe("$share/g/t", 1) // a new one, without what came before
	a.fence()
	pub.owe("t", 1, 10, 10)
	a.wantPublish("t", "10", 1)
	a.c.Close()
	pub.c.Close()
	d.restart()
	if n, _ := d.kept(); n != 2 {
		t.Errorf("%d queues, want those of the client and of the share", n)
	}
	d.connect("a", true).wantPublish("t", "10", 1)
	d.passes("a").disconnect()
	d.settle(0)
	d.restart()
	if n, shares := d.kept(); n+len(d.st.Queues())+shares > 0 {
		t.Errorf("%d queues, %d of them in the store, and %d shares, want none", n, len(d.st.Queues()), shares)
	}
}
