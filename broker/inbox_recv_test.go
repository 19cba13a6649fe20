package broker

import (
	"context"
	"errors"
	"testing"

	"tidegate/mqtt"
)

// A bridge asks for what is there, so that it knows when it has to wait.
func TestAnInboxGivesWhatIsThereWithoutWaiting(t *testing.T) {
	d := newBed(t, nil)
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a", QoS: mqtt.AtLeastOnce})
	if err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(d.ctx())
	cancel()
	for range 100 { // select draws among what is ready
		if _, err := in.Recv(done); !errors.Is(err, context.Canceled) {
			t.Fatalf("with nothing there Recv returns %v", err)
		}
		publish(t, d.b, "a", mqtt.AtLeastOnce)
		receive(t, done, in, "a")
	}
	d.stop()
}

// Whoever waits for live messages sleeps on while a backlog goes out.
func TestABacklogWakesNobodyWhoWaitsForLiveMessages(t *testing.T) {
	d := newBed(t, nil)
	open := func() mqtt.Inbox {
		in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{LiveFirst: true}, mqtt.Subscription{Filter: "a", QoS: mqtt.AtLeastOnce})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	open().Close()
	for range 3 {
		publish(t, d.b, "a", mqtt.AtLeastOnce)
	}
	in := open()
	receive(t, d.ctx(), in, "a", "a", "a")
	if n := len(in.(*inbox).live.wake); n > 0 {
		t.Error("who waits for live messages was woken by a backlog")
	}
	d.stop()
}
