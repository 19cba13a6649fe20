package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tidegate/mqtt"
	"tidegate/store"
)

// The file that has how far a queue has drained, and nothing else has, is lost: what was
// acknowledged since the newest segment knew may come again, all that is owed comes in
// order, and the ledger misses nothing.
func TestPositionsFileIsLost(t *testing.T) {
	const all = 2000
	d := newBed(t, func(d *bed) { d.segment = store.MinSegment })
	sub := mqtt.Subscription{Filter: "#", QoS: mqtt.AtLeastOnce}
	open := func() mqtt.Inbox {
		t.Helper()
		in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{MaxInflight: 10}, sub)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	topic := func(i int) string { return fmt.Sprintf("%0200d", i) }
	open().Close()
	for i := range all {
		d.owes(mqtt.Message{Topic: topic(i), QoS: mqtt.AtLeastOnce})
	}
	d.flush()
	segments, next, again := d.st.Stats().Segments, 0, 0
	for next < all {
		in := open()
		from := next
		for got := -1; next < min(from+330, all); {
			m, err := in.Recv(d.ctx())
			if err != nil {
				t.Fatal(err)
			}
			var i int
			if _, err := fmt.Sscanf(m.Topic, "%d", &i); err != nil || i > next || got >= 0 && i != got+1 {
				t.Fatalf("%.20s came behind %d, and %d is next: %v", m.Topic, got, next, err)
			}
			if got = i; i < next {
				again++
			} else {
				next++
			}
			in.Ack(m.Seq)
		}
		in.Close()
		d.stop()
		path := filepath.Join(d.dir, "positions")
		if _, err := os.Stat(path); err != nil && next < all {
			t.Fatal(err)
		}
		_ = os.Remove(path)
		d.start()
		d.wantLosses()
	}
	if most := 7 * all / segments; again == 0 || again > most {
		t.Errorf("%d of %d messages came again, want some, and at most %d, those of a segment each time", again, all, most)
	}
}
