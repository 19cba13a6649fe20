package broker

import (
	"testing"

	"tidegate/mqtt"
)

// What a commit under way already takes to the disk does not call for the next one:
// else each would take as little as came in since the last.
func TestAcknowledgementsCallForACommitByTheHalfWindow(t *testing.T) {
	d := newBed(t, nil)
	sub := mqtt.Subscription{Filter: "a", QoS: mqtt.AtLeastOnce}
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{MaxInflight: 10}, sub)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	for range 6 {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", QoS: mqtt.AtLeastOnce}); err != nil {
			t.Fatal(err)
		}
	}
	in, err = d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{MaxInflight: 10}, sub)
	if err != nil {
		t.Fatal(err)
	}
	c, s := d.b.commit, d.b.sessions[inboxKey("up")]
	c.order.Lock() // no commit begins
	s.mu.Lock()
	s.unsaved, s.saving = 5, 5 // one is under way with as many
	s.mu.Unlock()
	for n := 1; n <= 5; n++ {
		receive(t, d.ctx(), in, "a")
		c.mu.Lock()
		if c.urgent != (n == 5) {
			t.Errorf("after %d more, with a window of 10, the next commit is urgent: %v", n, c.urgent)
		}
		c.mu.Unlock()
	}
	c.order.Unlock()
	in.Close()
	d.stop()
}
