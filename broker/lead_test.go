package broker

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
	"tidegate/store"
)

// slowBed has an absent consumer and a disk on which a commit takes as long as is
// stored in took.
func slowBed(t *testing.T) (d *bed, took *time.Duration) {
	d, took = newBed(t, func(d *bed) { d.cfg.Listeners = nil }), new(time.Duration)
	in, err := d.b.OpenInbox(t.Context(), "away", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "#", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	d.slow(took)
	return d, took
}

// slow makes a commit of the broker, which was just started, take as long as is stored in
// took.
func (d *bed) slow(took *time.Duration) {
	time.Sleep(3 * time.Second) // nothing is left to commit
	synctest.Wait()
	save := d.b.commit.save
	d.b.commit.save = func(b *store.Batch) error {
		time.Sleep(*took)
		return save(b)
	}
}

// wait publishes one message and returns how long its acknowledgement took.
func (d *bed) wait() time.Duration {
	d.t.Helper()
	began := time.Now()
	if err := d.b.Publish(context.Background(), mqtt.Message{Topic: "a", Payload: []byte("x"), QoS: 1}); err != nil {
		d.t.Fatal(err)
	}
	return time.Since(began)
}

// waits does so n times, each a second after the last, and returns the longest and the
// shortest of those behind the first skip.
func (d *bed) waits(n, skip int) (longest, shortest time.Duration) {
	shortest = time.Hour
	for i := range n {
		took := d.wait()
		if i >= skip {
			longest, shortest = max(longest, took), min(shortest, took)
		}
		time.Sleep(time.Second)
	}
	return longest, shortest
}

// Whoever waits for a commit waits for commit_interval, the commit included, once it
// is known how long one takes.
func TestCommitsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, took := slowBed(t)
		if got := d.wait(); got != 9*time.Millisecond {
			t.Errorf("a commit that takes no time is waited for %v, want commit_interval less a late timer", got)
		}
		for _, c := range []struct {
			took, longest, shortest time.Duration
		}{
			{3 * time.Millisecond, 9 * time.Millisecond, 8 * time.Millisecond},
			{30 * time.Millisecond, 35 * time.Millisecond, 35 * time.Millisecond}, // it waits for half an interval at least
			{500 * time.Microsecond, 9 * time.Millisecond, 8 * time.Millisecond},
			{0, 9 * time.Millisecond, 8 * time.Millisecond},
		} {
			*took = c.took
			longest, shortest := d.waits(60, 50)
			if longest > c.longest || shortest < c.shortest {
				t.Errorf("commits of %v are waited for %v to %v, want %v to %v", c.took, shortest, longest, c.shortest, c.longest)
			}
		}
	})
}

// A commit that takes now long, now short, is nearly always begun early enough.
func TestCommitsOfAllLengthsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, took := slowBed(t)
		late := 0
		for i := range 400 {
			*took = time.Duration(500+i*377%1000) * time.Microsecond // evenly from 0.5 to 1.5 ms
			if d.wait() > 10*time.Millisecond && i > 50 {
				late++
			}
			time.Sleep(time.Second)
		}
		if late > 3 {
			t.Errorf("of 350 acknowledgements %d came late", late)
		}
	})
}

// Many retained messages do not wait for commit_interval, few do: a publisher whose
// window is full sends nothing more while it waits.
func TestManyRowsAreCommittedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		time.Sleep(3 * time.Second) // nothing is left to commit
		for _, n := range []int{enoughRows - 1, enoughRows} {
			began, before := time.Now(), d.st.Stats().Commits
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					m := mqtt.Message{Topic: fmt.Sprint("kept/", i), Payload: []byte("x"), QoS: 1, Retain: true}
					if err := d.b.Publish(context.Background(), m); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if got := time.Since(began); (got == 0) != (n == enoughRows) {
				t.Errorf("%d retained messages are acknowledged after %v", n, got)
			}
			if got := d.st.Stats().Commits - before; got != 1 {
				t.Errorf("%d retained messages took %d commits, want one", n, got)
			}
		}
	})
}
