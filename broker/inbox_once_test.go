package broker

import (
	"context"
	"errors"
	"testing"

	"tidegate/mqtt"
)

// bridge opens the inbox of a bridge that is owed nothing.
func (d *bed) bridge() mqtt.Inbox {
	d.t.Helper()
	in, err := d.b.OpenInbox(d.ctx(), "bridge/cloud", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "up", QoS: 1})
	if err != nil {
		d.t.Fatal(err)
	}
	return in
}

// once publishes what upstream has numbered id, and waits until it is safe.
func (d *bed) once(in mqtt.Inbox, id uint16, payload string, wantKnown bool) {
	d.t.Helper()
	done := make(chan error, 1)
	m := mqtt.Message{Topic: "a", Payload: []byte(payload), QoS: mqtt.ExactlyOnce}
	known, err := in.PublishOnce(d.ctx(), id, m, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	if err != nil || known != wantKnown {
		d.t.Fatalf("publish %q as %d: known %v, %v", payload, id, known, err)
	}
}

func (d *bed) release(in mqtt.Inbox, id uint16) {
	d.t.Helper()
	done := make(chan error, 1)
	in.Release(id, func(err error) { done <- err })
	if err := <-done; err != nil {
		d.t.Fatal(err)
	}
}

// What a server upstream sends again at QoS 2 is published once until it is released,
// whatever its receivers have asked for and whatever happens in between.
func TestQoS2FromUpstreamIsPublishedOnce(t *testing.T) {
	for _, qos := range []mqtt.QoS{0, 1, 2} {
		interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
			sub := d.connect("sub", false)
			sub.subscribe("a", qos)
			sub.disconnect()
			in := d.bridge()
			d.once(in, 7, "once", false)
			d.once(in, 7, "once", true)
			interrupt()
			in = d.bridge()
			d.once(in, 7, "once", true)
			d.release(in, 7)
			interrupt()
			in = d.bridge()
			d.release(in, 7) // its PUBCOMP was lost
			d.once(in, 7, "another", false)
			interrupt()
			sub = d.connect("sub", true)
			for _, want := range []string{"once", "another"} {
				if qos > 0 {
					sub.wantPublish("a", want, qos)
				}
			}
			sub.fence()
			d.once(d.bridge(), 7, "another", true)
		})
	}
}

// A server that has forgotten the session gives its numbers anew.
func TestNumbersOfAnEndedSessionAreForgotten(t *testing.T) {
	interruptions(t, func(_ *testing.T, d *bed, interrupt func()) {
		in := d.bridge()
		for id := range uint16(50) {
			d.once(in, id+1, "old", false)
		}
		if err := in.ReleaseAll(d.ctx()); err != nil {
			d.t.Fatal(err)
		}
		interrupt()
		in = d.bridge()
		for id := range uint16(50) {
			d.once(in, id+1, "new", false)
		}
	})
}

// A message whose way is blocked is not taken for safe when it comes again.
func TestAMessageThatIsUnderWayIsNotKnown(t *testing.T) {
	d := newBed(t, nil)
	full, err := d.b.OpenInbox(d.ctx(), "full", mqtt.InboxOptions{Queue: mqtt.QueueLimits{MaxMessages: 1, Overflow: mqtt.Reject}},
		mqtt.Subscription{Filter: "a", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in := d.bridge()
	d.once(in, 1, "first", false)
	blocked, cut := context.WithCancel(d.ctx())
	ended := make(chan error)
	go func() {
		_, err := in.PublishOnce(blocked, 2, mqtt.Message{Topic: "a", QoS: 2}, func(error) {})
		ended <- err
	}()
	for err = nil; err == nil; { // until the other one is at work
		_, err = in.(*inbox).s.receipts()
	}
	known, err := in.PublishOnce(blocked, 2, mqtt.Message{Topic: "a", QoS: 2}, func(error) { t.Error("told that it is safe") })
	if !known {
		t.Error("the message is published again")
	}
	if !errors.Is(err, errUnderWay) {
		t.Errorf("publish again: %v", err)
	}
	in.Release(2, func(err error) {
		if !errors.Is(err, errUnderWay) {
			t.Errorf("release: %v", err)
		}
	})
	if err := in.ReleaseAll(d.ctx()); !errors.Is(err, errUnderWay) {
		t.Errorf("release all: %v", err)
	}
	cut()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that is blocked: %v", err)
	}
	receive(t, d.ctx(), full, "a")
	d.once(in, 2, "second", false)
	receive(t, d.ctx(), full, "a")
}

// A number is free only when the disk knows that it is.
func TestAReleaseWaitsForTheDisk(t *testing.T) {
	d := newBed(t, func(d *bed) { d.broken = true })
	in := d.bridge()
	d.once(in, 7, "once", false)
	d.st.Close()
	done := make(chan error, 1)
	in.Release(7, func(err error) { done <- err })
	d.stop()
	if err := <-done; err == nil {
		t.Error("released, and the disk does not know")
	}
}
