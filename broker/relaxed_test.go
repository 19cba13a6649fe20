package broker

import (
	"testing"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestPublisherDoesNotWaitForARelaxedQueue(t *testing.T) {
	for q := mqtt.AtLeastOnce; q <= mqtt.ExactlyOnce; q++ {
		d := newBed(t, func(d *bed) { d.cfg.Queue.Durability = "relaxed" })
		sub := d.dial("sub", durable)
		sub.subscribe("a", q)
		sub.Close()
		d.waitFor("the end of the connection", func() bool { return d.b.Status().Connections == 0 })
		pub := d.dial("pub", nil)
		d.flush()
		before := d.st.Stats().Records
		pub.publish("a", "x", q)
		if q == mqtt.AtLeastOnce && d.st.Stats().Records != before {
			t.Error("the message was written before the publisher was told")
		}
		d.waitFor("the message on disk", func() bool { return d.st.Stats().Records == before+1 })
		pub.publish("a", "y", q)
		d.restart()
		sub = d.dial("sub", durable)
		sub.want("a", "x", q)
		sub.want("a", "y", q)
		sub.wantNothing()
	}
}

// Only the queues that are safe hold the acknowledgement back.
func TestPublisherWaitsForTheSafeQueuesOnly(t *testing.T) {
	d := newBed(t, nil)
	open := func(name string, relaxed bool) mqtt.Inbox {
		in, err := d.b.OpenInbox(d.ctx(), name, mqtt.InboxOptions{Queue: mqtt.QueueLimits{Relaxed: relaxed}}, mqtt.Subscription{Filter: "a", QoS: 1})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	open("relaxed", true).Close()
	m := mqtt.Message{Topic: "a", QoS: 1}
	safe := open("safe", false)
	kept := make(chan error, 1)
	if err := d.b.PublishAsync(d.ctx(), m, func(err error) { kept <- err }); err != nil {
		t.Fatal(err)
	}
	got, err := safe.Recv(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if told := len(kept) > 0; told && d.st.Stats().Records == 0 {
		t.Error("the publisher was told before the safe queue had the message")
	}
	safe.Ack(got.Seq)
	if err := <-kept; err != nil {
		t.Fatal(err)
	}
	safe.Close()
	before := d.st.Stats().Records
	if err := d.b.Publish(d.ctx(), m); err != nil {
		t.Fatal(err)
	}
	if d.st.Stats().Records == before {
		t.Error("the publisher was told before the message was on disk for the safe queue, which is absent")
	}
}

// A QoS 2 message that comes twice is one, relaxed or not.
func TestRelaxedReceiptIsOne(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		d.b.cfg.Queue.Durability, d.cfg.Queue.Durability = "relaxed", "relaxed"
		sub := d.connect("sub", false)
		sub.subscribe("a", 2)
		sub.disconnect()
		pub := d.connect("pub", false)
		pub.subscribe("nothing", 1)
		pub.publish("a", "x", 2, 7, false)
		pub.wantAck(packet.TypePubrec, 7)
		d.flush()
		interrupt()
		pub.c.Close()
		pub = d.connect("pub", true)
		pub.publish("a", "x", 2, 7, true)
		pub.wantAck(packet.TypePubrec, 7)
		pub.ack(packet.TypePubrel, 7)
		pub.wantAck(packet.TypePubcomp, 7)
		sub = d.connect("sub", true)
		id := sub.wantPublish("a", "x", 2).ID
		sub.ack(packet.TypePubrec, id)
		if f := sub.next(); f.Type() != packet.TypePubrel {
			t.Errorf("got %s, want PUBREL", f.Type())
		}
		sub.ack(packet.TypePubcomp, id)
		sub.fence()
	})
}

// Who ends the broker while the disk takes nothing is told if something is lost that
// was acknowledged, and only then.
func TestEndOnABrokenDiskIsAnErrorIfSomethingAcknowledgedIsLost(t *testing.T) {
	for _, relaxed := range []bool{false, true} {
		d := newBed(t, func(d *bed) { d.broken = true })
		sub := mqtt.Subscription{Filter: "a", QoS: 1}
		in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{Queue: mqtt.QueueLimits{Relaxed: relaxed}}, sub)
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		d.st.Close()
		kept := make(chan error, 1)
		if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a", QoS: 1}, func(err error) { kept <- err }); err != nil {
			t.Fatal(err)
		}
		d.stop()
		if told := <-kept; (told == nil) != relaxed || (d.ended != nil) != relaxed {
			t.Errorf("relaxed: %v; the publisher was told %v, and whoever ends the broker %v", relaxed, told, d.ended)
		}
	}
}
