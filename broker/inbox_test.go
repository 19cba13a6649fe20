package broker

import (
	"context"
	"testing"

	"tidegate/mqtt"
)

// A bridge publishes as its inbox, so that what came down does not go up again.
func TestAnInboxDoesNotGetBackWhatItPublished(t *testing.T) {
	for _, qos := range []mqtt.QoS{mqtt.AtMostOnce, mqtt.AtLeastOnce, mqtt.ExactlyOnce} {
		d := newBed(t, nil)
		all := mqtt.Subscription{Filter: "#", QoS: mqtt.ExactlyOnce, NoLocal: true}
		here, err := d.b.OpenInbox(d.ctx(), "here", mqtt.InboxOptions{}, all)
		if err != nil {
			t.Fatal(err)
		}
		there, err := d.b.OpenInbox(d.ctx(), "there", mqtt.InboxOptions{}, all)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, here, "own", qos)
		publish(t, there, "other's", qos)
		publish(t, d.b, "nobody's", qos)
		receive(t, d.ctx(), here, "other's", "nobody's")
		receive(t, d.ctx(), there, "own", "nobody's")
		d.stop()
	}
}

func publish(t *testing.T, p mqtt.Publisher, topic string, qos mqtt.QoS) {
	t.Helper()
	if err := p.PublishAsync(t.Context(), mqtt.Message{Topic: topic, QoS: qos}, nil); err != nil {
		t.Fatal(err)
	}
}

// receive takes exactly the messages of these topics out of in.
func receive(t *testing.T, ctx context.Context, in mqtt.Inbox, topics ...string) {
	t.Helper()
	for _, want := range topics {
		d, err := in.Recv(ctx)
		if err != nil || d.Topic != want {
			t.Fatalf("got %q, %v; want %q", d.Topic, err, want)
		}
		in.Ack(d.Seq)
	}
}

// A bridge that keeps a backlog to a rate counts what comes beside it.
func TestAnInboxCountsWhatArrives(t *testing.T) {
	d := newBed(t, nil)
	sub := mqtt.Subscription{Filter: "a/#", QoS: mqtt.AtLeastOnce}
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(messages, bytes uint64) {
		t.Helper()
		if m, b := in.Arrived(); m != messages || b != bytes {
			t.Errorf("%d messages of %d bytes have arrived, want %d of %d", m, b, messages, bytes)
		}
	}
	expect(0, 0)
	publish(t, d.b, "a/x", mqtt.AtLeastOnce)
	publish(t, d.b, "a/yz", mqtt.ExactlyOnce)
	publish(t, d.b, "a/x", mqtt.AtMostOnce) // is not queued
	publish(t, d.b, "other", mqtt.AtLeastOnce)
	expect(2, 7)
	receive(t, d.ctx(), in, "a/x", "a/yz", "a/x")
	expect(2, 7)
	publish(t, d.b, "a/x", mqtt.AtLeastOnce)
	in.Close()
	in, err = d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	expect(0, 0)
	receive(t, d.ctx(), in, "a/x")
	expect(0, 0)
}
