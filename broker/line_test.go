package broker

import (
	"testing"
	"time"

	"tidegate/mqtt"
)

// What is stored is timed on the line that the broker was given, whatever the
// system's clock does: a message keeps the time at which it was published and its
// expiry over a restart.
func TestStoredMessagesAreTimedOnTheLine(t *testing.T) {
	line := time.Unix(1000, 0) // 1970
	d := newBed(t, func(d *bed) { d.opts.Line = func() time.Time { return line } })
	sub := mqtt.Subscription{Filter: "#", QoS: 1}
	absent, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	absent.Close()
	for topic, expiry := range map[string]time.Duration{"never": 0, "soon": 30 * time.Second, "late": time.Hour} {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: topic, QoS: 1, Expiry: expiry}); err != nil {
			t.Fatal(err)
		}
	}
	d.stop()
	line = line.Add(time.Minute)
	d.start()
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := in.Recv(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if ago := line.Sub(got.At); ago < 59*time.Second || ago > 80*time.Second {
			t.Errorf("%s was published %v ago", got.Topic, ago)
		}
		if got.Topic == "soon" || got.Topic == "late" && got.Expiry > time.Hour-time.Minute+time.Second {
			t.Errorf("%s has %v left", got.Topic, got.Expiry)
		}
		in.Ack(got.Seq)
	}
}
