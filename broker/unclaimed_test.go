package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tidegate/mqtt"
)

// fillUnclaimed leaves two messages for the inbox of a bridge, none for another one, and one
// for a client.
func fillUnclaimed(t *testing.T, d *bed) {
	t.Helper()
	d.dial("client", durable).subscribe("old/#", 1)
	for _, name := range []string{"old", "empty", "kept"} {
		d.inbox("bridge/"+name, name+"/#").Close()
	}
	for i := range 2 {
		publishText(t, d, "old/a", fmt.Sprint(i))
	}
}

func publishText(t *testing.T, d *bed, topic, text string) {
	t.Helper()
	if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: topic, Payload: []byte(text), QoS: 1}); err != nil {
		t.Fatal(err)
	}
}

// unclaim says that nobody opens the inboxes of bridges but that of kept.
func unclaim(t *testing.T, d *bed, want ...string) {
	t.Helper()
	var have []string
	for _, s := range d.b.Unclaim(func(name string) bool { return name != "bridge/kept" }) {
		have = append(have, fmt.Sprint(s.ID, " ", s.Queued))
	}
	if !slices.Equal(have, want) {
		t.Errorf("unclaimed with messages: %q, want %q", have, want)
	}
}

// names returns the queues, with a star behind those that nobody claims.
func queueNames(b *Broker) string {
	var list []string
	for _, q := range b.Queues() {
		star := ""
		if q.Unclaimed {
			star = "*"
		}
		list = append(list, q.Name+star)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// What nobody opens any more keeps what it is owed, gets nothing more, and goes on where it
// was once somebody opens it. What is owed nothing goes.
func TestAnUnclaimedInboxKeepsWhatItHas(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		fillUnclaimed(t, d)
		for i := range 3 {
			interrupt()
			unclaim(t, d, "bridge/old 2")
			publishText(t, d, "old/a", fmt.Sprint("missed ", i))
			publishText(t, d, "empty/a", "missed")
			if have := queueNames(d.b); have != "bridge/kept bridge/old* client" {
				t.Fatalf("queues %s", have)
			}
		}
		in := d.inbox("bridge/old", "old/#")
		publishText(t, d, "old/a", "2")
		for i := range 3 {
			m, err := in.Recv(d.ctx())
			if err != nil || string(m.Payload) != fmt.Sprint(i) {
				t.Fatalf("received %q, %v; want %d", m.Payload, err, i)
			}
			in.Ack(m.Seq)
		}
		if have := queueNames(d.b); have != "bridge/kept bridge/old client" {
			t.Errorf("queues %s", have)
		}
	})
}

// It is known from the store alone, for commands on a gateway that is stopped.
func TestUnclaimedOutlivesARestart(t *testing.T) {
	d := newBed(t, nil)
	fillUnclaimed(t, d)
	unclaim(t, d, "bridge/old 2")
	d.restart()
	if have := queueNames(d.b); have != "bridge/kept bridge/old* client" {
		t.Errorf("queues %s", have)
	}
	d.inbox("bridge/old", "old/#").Close()
	d.restart()
	if have := queueNames(d.b); have != "bridge/kept bridge/old client" {
		t.Errorf("queues %s, after it was opened", have)
	}
}

// Purge leaves nothing of it, not even what it has received at QoS 2.
func TestPurgeRemovesWhatNobodyClaims(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		fillUnclaimed(t, d)
		for _, name := range []string{"old", "empty"} {
			in := d.inbox("bridge/"+name, name+"/#")
			d.once(in, 7, "once", false)
			in.Close()
		}
		interrupt()
		unclaim(t, d, "bridge/empty 0", "bridge/old 2") // its receipts are worth something
		purge(t, d, "bridge/kept", 0, 0)
		purge(t, d, "bridge/empty", 0, 0)
		purge(t, d, "bridge/old", 2, 0)
		if have := queueNames(d.b); have != "bridge/kept client" {
			t.Errorf("queues %s", have)
		}
		if _, err := d.b.Purge(d.ctx(), "bridge/old"); !errors.Is(err, ErrNoQueue) {
			t.Errorf("purge it again: %v", err)
		}
		d.restart()
		if have := queueNames(d.b); have != "bridge/kept client" {
			t.Errorf("queues %s, after a restart", have)
		}
		d.once(d.inbox("bridge/old", "old/#"), 7, "again", false)
	})
}
