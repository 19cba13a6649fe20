package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// purgedRows returns what the ledger has as purged of a session, by filter.
func purgedRows(b *Broker, session string) map[string]uint64 {
	rows := make(map[string]uint64)
	for _, l := range b.Losses() {
		if l.Session == session && l.Reason == lostPurged {
			rows[l.Filter] = l.Count
		}
	}
	return rows
}

func purge(t *testing.T, d *bed, name string, messages, left int64) {
	t.Helper()
	done, err := d.b.Purge(d.ctx(), name)
	if err != nil || done.Messages != messages || done.Left != left || (done.Bytes == 0) != (messages == 0) {
		t.Fatalf("purge %q: %+v, %v; want %d messages and %d left", name, done, err, messages, left)
	}
}

// Of an absent client everything goes, also what it was sent before and did not
// acknowledge; the ledger has it by filter, over a restart too, and others keep theirs.
func TestPurgeOfAnAbsentClient(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		m := d.joins("m", "a/#", 1)
		m.subscribe("b", 1)
		d.joins("other", "a/#", 1).c.Close()
		d.settle(1)
		publish := func(topic string, n int) {
			t.Helper()
			if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: topic, Payload: fmt.Append(nil, n), QoS: 1}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			publish("a/x", i)
		}
		publish("b", 4)
		for i := range 4 {
			p := m.wantPublish("a/x", fmt.Sprint(i), 1)
			if i == 1 {
				m.ack(packet.TypePuback, p.ID) // out of order
			}
		}
		m.wantPublish("b", "4", 1)
		m.fence()
		m.c.Close()
		d.settle(0)
		purge(t, d, "m", 4, 0)
		purge(t, d, "m", 0, 0)
		interrupt()
		if rows := purgedRows(d.b, "m"); rows["a/#"] != 3 || rows["b"] != 1 {
			t.Errorf("the ledger has %v", rows)
		}
		if have := texts(t, d.b, "other", 0); len(have) != 4 {
			t.Errorf("the other one has %v", have)
		}
		m = d.connect("m", true)
		publish("a/x", 5)
		m.wantPublish("a/x", "5", 1)
	})
}

// Who is there keeps what it was sent, and goes on with what comes afterwards.
func TestPurgeOfAConnectedClient(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxInflight = 3 })
	m := d.joins("m", "a", 1)
	for i := range 10 {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: fmt.Append(nil, i), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	purge(t, d, "m", 7, 3)
	var ids []uint16
	for i := range 3 {
		ids = append(ids, m.wantPublish("a", fmt.Sprint(i), 1).ID)
	}
	for _, id := range ids {
		m.ack(packet.TypePuback, id)
	}
	if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: []byte("new"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	m.ack(packet.TypePuback, m.wantPublish("a", "new", 1).ID)
	m.fence()
	if n := d.b.Queues()[0].Messages; n != 0 {
		t.Errorf("%d are queued", n)
	}
}

// The queues of bridges and of shared subscriptions are purged likewise.
func TestPurgeOfInboxesAndShares(t *testing.T) {
	d := newBed(t, nil)
	fillQueues(t, d)
	purge(t, d, "bridge/cloud", 3, 0)
	purge(t, d, "$share/g/a/#", 5, 0)
	purge(t, d, "member", 0, 0)
	d.restart()
	for name, want := range map[string]int{"bridge/cloud": 0, "$share/g/a/#": 0, "absent": 5} {
		if have := texts(t, d.b, name, 0); len(have) != want {
			t.Errorf("%q has %v", name, have)
		}
	}
	if _, err := d.b.Purge(d.ctx(), "nobody"); !errors.Is(err, ErrNoQueue) {
		t.Errorf("of nobody: %v", err)
	}
}

// What is purged gives its space back.
func TestPurgeGivesSpaceBack(t *testing.T) {
	d := newBed(t, nil)
	w := d.joins("m", "a", 1)
	w.c.Close()
	d.settle(0)
	for range 200 {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: make([]byte, 100_000), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	before := d.filesOf()
	purge(t, d, "m", 200, 0)
	if after := d.filesOf(); after > before/2 {
		t.Errorf("the files took %d bytes, and take %d", before, after)
	}
}

// While others publish to it, a purge drops what was there and ends.
func TestPurgeBesidePublishers(t *testing.T) {
	d := newBed(t, nil)
	w := d.joins("m", "a", 1)
	w.c.Close()
	d.settle(0)
	ctx, cancel := context.WithCancel(d.ctx())
	var publishing sync.WaitGroup
	sent := make([]int64, 3)
	for i := range sent {
		publishing.Go(func() {
			for ctx.Err() == nil {
				if d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: make([]byte, 500), QoS: 1}) == nil {
					sent[i]++
				}
			}
		})
	}
	dropped := int64(0)
	for range 5 {
		done, err := d.b.Purge(d.ctx(), "m")
		if err != nil {
			t.Fatal(err)
		}
		dropped += done.Messages
	}
	cancel()
	publishing.Wait()
	total := sent[0] + sent[1] + sent[2]
	left := int64(len(texts(t, d.b, "m", 0)))
	if dropped+left != total || purgedRows(d.b, "m")["a"] != uint64(dropped) {
		t.Errorf("%d published, %d dropped, %d left, the ledger has %v", total, dropped, left, purgedRows(d.b, "m"))
	}
}
