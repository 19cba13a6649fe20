package broker

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/store"
)

// roomBed is a broker whose store may take so much.
func roomBed(t *testing.T, most, segment units.Size) (*bed, *logged) {
	log := new(logged)
	d := newBed(t, func(d *bed) {
		d.opts.MaxStoreSize, d.handler, d.segment = most, log.handler(), segment
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.st.Run(ctx, d.b.StillOwed) }()
	t.Cleanup(func() { cancel(); <-done })
	return d, log
}

// owe opens the inbox name for its own topic, and leaves it.
func (d *bed) owe(name string, q mqtt.QueueLimits) {
	d.t.Helper()
	in, err := d.b.OpenInbox(d.ctx(), name, mqtt.InboxOptions{Queue: q}, mqtt.Subscription{Filter: name, QoS: 1})
	if err != nil {
		d.t.Fatal(err)
	}
	in.Close()
}

// fill publishes messages until the store is full, no faster than the disk takes them.
// It returns how many, and what became of them.
func (d *bed) fill(topic string, full func() bool) (n int, kept chan error) {
	d.t.Helper()
	kept = make(chan error, 5000)
	for ; !full(); n++ {
		err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: topic, Payload: make([]byte, 1000), QoS: 1}, func(err error) { kept <- err })
		if err != nil || n > 4000 {
			d.t.Fatalf("after %d messages the store is not full, %v", n, err)
		}
		if n%20 == 19 {
			d.waitFor("answer of the disk", func() bool { return full() || len(kept) > n })
		}
	}
	return n, kept
}

// A store that is full goes on taking messages: the session that has the most on
// disk gives up its oldest, others keep all they are owed.
func TestFullStoreTakesFromWhoeverHasTheMost(t *testing.T) {
	d, log := roomBed(t, 16*units.MiB, units.MiB)
	d.owe("small", mqtt.QueueLimits{})
	d.owe("large", mqtt.QueueLimits{})
	const each = 10 // messages published together
	for i := range 400 {
		kept := make(chan error, each)
		for j := range each {
			name := "large"
			if j == 0 && i%5 == 0 {
				name = "small"
			}
			err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: name, Payload: make([]byte, 10_000), QoS: 1}, func(err error) { kept <- err })
			if err != nil {
				t.Fatal(err)
			}
		}
		for range each {
			if err := <-kept; err != nil {
				t.Fatal(err)
			}
		}
		if sp, _ := d.st.Space(); sp.Used() > int64(17*units.MiB) {
			t.Fatalf("after %d messages the store holds %d bytes", i*each, sp.Used())
		}
	}
	lost := map[string]uint64{}
	for _, l := range d.b.Losses() {
		if l.Reason != lostStore {
			t.Errorf("%+v", l)
		}
		lost[l.Session] += l.Count
	}
	if lost["small"] > 0 || lost["large"] < 2400 || lost["large"] > 3600 {
		t.Errorf("lost: %v", lost)
	}
	t.Logf("lost: %v; %d times messages were refused for a while", lost, strings.Count(log.String(), "cannot write"))
}

// Where nobody may give anything up messages are refused, with the reason, until
// somebody takes his.
func TestFullStoreWithNothingToGiveUpRefuses(t *testing.T) {
	d, log := roomBed(t, units.MiB/2, store.MinSegment)
	d.owe("keeper", mqtt.QueueLimits{Overflow: mqtt.Reject})
	n, kept := d.fill("keeper", func() bool { return d.b.Status().StoreError != "" })
	if len(kept) == n {
		t.Error("all messages are kept")
	}
	if why := d.b.Status().StoreError; !strings.Contains(why, "store.max_size is 512KiB") {
		t.Errorf("the reason is %q", why)
	}
	in, err := d.b.OpenInbox(d.ctx(), "keeper", mqtt.InboxOptions{MaxInflight: 10}, mqtt.Subscription{Filter: "keeper", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		m, err := in.Recv(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		in.Ack(m.Seq)
	}
	for range n {
		if err := <-kept; err != nil {
			t.Errorf("a message that waited: %v", err)
		}
	}
	wantStoreWorks(t, d)
	if strings.Count(log.String(), "cannot write to the store") != 1 || !strings.Contains(log.String(), "takes messages again") {
		t.Errorf("log: %s", log.String())
	}
}

// A queue that refuses messages because the store is full takes them again when
// there is room, though nothing of its own has changed.
func TestRefusingQueueOpensWhenTheStoreHasRoom(t *testing.T) {
	d, _ := roomBed(t, units.MiB/2, store.MinSegment)
	d.owe("other", mqtt.QueueLimits{Overflow: mqtt.DropNewest})
	d.owe("keeper", mqtt.QueueLimits{Overflow: mqtt.Reject})
	d.fill("other", d.b.commit.tight.Load)
	kept := make(chan error, 2)
	ctx := d.ctx()
	for range 2 { // the second finds the queue closed by the first
		go func() { kept <- d.b.Publish(ctx, mqtt.Message{Topic: "keeper", Payload: make([]byte, 1000), QoS: 1}) }()
		<-time.After(10 * time.Millisecond)
	}
	in, err := d.b.OpenInbox(ctx, "other", mqtt.InboxOptions{MaxInflight: 10, Queue: mqtt.QueueLimits{Overflow: mqtt.DropNewest}}, mqtt.Subscription{Filter: "other", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	for d.b.Backlog("other") > 0 {
		m, err := in.Recv(ctx)
		if err != nil {
			t.Fatal(err)
		}
		in.Ack(m.Seq)
	}
	in.Close()
	for range 2 {
		if err := <-kept; err != nil {
			t.Errorf("a message that waited: %v", err)
		}
	}
}

// A file system without a free byte is full, which a write would say as well if it were tried.
func TestAFullFileSystemIsCalledFull(t *testing.T) {
	b := storeBounds{minFree: 1 << 20}
	for free, want := range map[int64]string{
		0:       "no space left on device: the file system has 0.0 MiB left, store.min_free is 1MiB",
		1 << 19: "the file system has 0.5 MiB left, store.min_free is 1MiB",
	} {
		err := b.tooLittle(free)
		if err.Error() != want || errors.Is(err, syscall.ENOSPC) != (free == 0) {
			t.Errorf("%d bytes free: %v, want %s", free, err, want)
		}
	}
}
