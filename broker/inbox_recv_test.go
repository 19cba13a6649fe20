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
