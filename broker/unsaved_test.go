package broker

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
)

// link is how a consumer's messages travel: the server takes each for one, and its
// acknowledgement is there a round trip after it was free to.
type link struct{ trip, each time.Duration }

// drain receives what recv hands out, at most n messages, and acknowledges it over the
// link. Before that it tells got the number that is the payload. It returns when recv
// fails, or all n are acknowledged.
func (l link) drain(ctx context.Context, in mqtt.Inbox, recv recvFunc, n int, got func(int)) {
	type owed struct {
		seq uint64
		due time.Time
	}
	under := make(chan owed, 1000)
	var acking sync.WaitGroup
	acking.Go(func() {
		for o := range under {
			if wait := time.Until(o.due); wait > 0 {
				time.Sleep(wait)
			}
			in.Ack(o.seq)
		}
	})
	var free time.Time // the server's, in the acknowledgement's time
	for range n {
		m, err := recv(ctx)
		if err != nil {
			break
		}
		if got != nil {
			i, _ := strconv.Atoi(string(m.Payload))
			got(i)
		}
		if free = free.Add(l.each); free.Before(time.Now().Add(l.trip)) {
			free = time.Now().Add(l.trip)
		}
		under <- owed{m.Seq, free}
	}
	close(under)
	acking.Wait()
}

// A gateway that loses its power while a queue drains has at most a window of messages
// that come again, those of both streams and those under way together.
func TestACrashDoublesOneWindow(t *testing.T) {
	for _, live := range []bool{false, true} {
		for _, took := range []time.Duration{300 * time.Microsecond, 10 * time.Millisecond} {
			t.Run(fmt.Sprintf("live first %v, %v for a commit", live, took), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crashes(t, live, took) })
			})
		}
	}
}

// A position is written so often that the consumer goes on, and no more often. Here
// the server takes what it needs for a message from each, and times are exact.
func TestAPositionIsWrittenWhenThatIsWorthIt(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		link
		took        time.Duration // a commit
		rate, batch float64       // at least, with a window of 100
	}{
		{link{0, 20 * us}, 200 * us, 49_000, 45},     // as fast as the server
		{link{20 * ms, 20 * us}, 200 * us, 4600, 9},  // 5,000 with positions that cost no time
		{link{20 * ms, 150 * us}, 200 * us, 4300, 9}, // acknowledgements do not come together
		{link{200 * ms, 20 * us}, 10 * ms, 450, 11},  //
		{link{20 * ms, 20 * us}, 10 * ms, 3000, 45},  // 3,333 if all of a window is acknowledged at once
		{link{20 * ms, 150 * us}, 10 * ms, 2500, 45}, //
		{link{0, 20 * us}, 10 * ms, 8000, 90},        // likewise 10,000
		{link{20 * ms, 20 * us}, 30 * ms, 1600, 80},  // likewise 2,000
		{link{0, us}, 30 * ms, 3000, 90},             // likewise 3,333
		{link{20 * ms, 150 * us}, 2 * ms, 3900, 9},   // many parts, one commit after the other
		{link{20 * ms, 20 * us}, 2 * ms, 4000, 9},    //
	} {
		for _, live := range []bool{false, true} {
			t.Run(fmt.Sprintf("live first %v, round trip %v, %v a message, %v a commit", live, c.trip, c.each, c.took), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rate, batch := drained(t, live, c.link, c.took)
					t.Logf("%.0f messages a second, %.0f for each commit", rate, batch)
					want := c.rate
					if live {
						want *= 0.92 // 2 places of 100 are kept for live messages, and what happens at one time has no order
					}
					if rate < want || batch < c.batch {
						t.Errorf("%.0f messages a second and %.1f for each commit, want %.0f and %.0f", rate, batch, want, c.batch)
					}
				})
			})
		}
	}
}

// A consumer that keeps one message to itself is sent the others no slower for that:
// the last of the window is never acknowledged then.
func TestAMessageThatIsKeptHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total = 2000
		d, disk := slowBed(t)
		in := backlog(t, d, mqtt.InboxOptions{MaxInflight: 100}, total)
		defer in.Close()
		*disk = 10 * time.Millisecond
		if _, err := in.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		link{each: 20 * time.Microsecond}.drain(t.Context(), in, in.Recv, total-1, nil)
		if took := time.Since(began); took > time.Second {
			t.Errorf("%d messages took %v, a hundred in 12 ms can go", total, took)
		}
	})
}

// A consumer that takes less than it could is not in need of positions.
func TestAPositionIsSeldomWrittenForWhoIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total = 1000
		d, disk := slowBed(t)
		in := backlog(t, d, mqtt.InboxOptions{MaxInflight: 100, LiveFirst: true}, total)
		defer in.Close()
		*disk = 200 * time.Microsecond
		commits := d.st.Stats().Commits
		slowly := func(ctx context.Context) (mqtt.Delivery, error) {
			time.Sleep(2 * time.Millisecond)
			return in.Recv(ctx)
		}
		link{trip: 20 * time.Millisecond}.drain(t.Context(), in, slowly, total, nil)
		if n := d.st.Stats().Commits - commits; n > total/50 {
			t.Errorf("%d commits for %d messages, want at most one for each 50", n, total)
		}
	})
}

// backlog opens an inbox that is owed so many messages, all of them on disk.
func backlog(t *testing.T, d *bed, o mqtt.InboxOptions, n int) mqtt.Inbox {
	open := func() mqtt.Inbox {
		in, err := d.b.OpenInbox(t.Context(), "up", o, mqtt.Subscription{Filter: "a/#", QoS: mqtt.AtLeastOnce})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	open().Close()
	number(t, d, 0, n)
	time.Sleep(3 * time.Second) // nothing is left to commit
	return open()
}

// drained drains a queue over the link, with a disk that takes so long for a commit.
// It returns the messages for each second and for each commit.
func drained(t *testing.T, live bool, l link, took time.Duration) (rate, batch float64) {
	const total = 3000
	d, disk := slowBed(t)
	in := backlog(t, d, mqtt.InboxOptions{MaxInflight: 100, LiveFirst: live}, total)
	defer in.Close()
	*disk = took
	commits, began := d.st.Stats().Commits, time.Now()
	l.drain(t.Context(), in, in.Recv, total, nil)
	ended := time.Now()
	time.Sleep(2 * took)
	return total / ended.Sub(began).Seconds(), total / float64(d.st.Stats().Commits-commits)
}

// A window of a few messages, of which live ones keep the last, does not wait for the second
// within which a position is written in any case.
func TestANarrowWindowGoesOn(t *testing.T) {
	for _, limit := range []int{1, 2, 3, 4, 5, 10} {
		for _, live := range []bool{false, true} {
			t.Run(fmt.Sprintf("window %d, live first %v", limit, live), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const total = 300
					d, disk := slowBed(t)
					in := backlog(t, d, mqtt.InboxOptions{MaxInflight: limit, LiveFirst: live}, total)
					defer in.Close()
					*disk = time.Millisecond
					began := time.Now()
					link{20 * time.Millisecond, 0}.drain(t.Context(), in, in.Recv, total, nil)
					if took := time.Since(began); took > total*50*time.Millisecond {
						t.Errorf("%d messages take %v", total, took)
					}
				})
			})
		}
	}
}

func crashes(t *testing.T, live bool, took time.Duration) {
	const inflight, backlog = 20, 3000
	d, disk := slowBed(t)
	open := func() mqtt.Inbox {
		o := mqtt.InboxOptions{MaxInflight: inflight, LiveFirst: live}
		in, err := d.b.OpenInbox(t.Context(), "up", o, mqtt.Subscription{Filter: "a/#", QoS: mqtt.AtLeastOnce})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	open().Close()
	number(t, d, 0, backlog)
	next := backlog
	for round := range 10 {
		*disk = took
		came := make(map[int]bool)
		var mu sync.Mutex
		note := func(n int) { mu.Lock(); came[n] = true; mu.Unlock() }
		in := open()
		ctx, cancel := context.WithCancel(t.Context())
		var receiving sync.WaitGroup
		l := link{trip: 5 * time.Millisecond, each: 50 * time.Microsecond}
		receiving.Go(func() { l.drain(ctx, in, in.Recv, backlog, note) })
		receiving.Go(func() { l.drain(ctx, in, in.RecvLive, backlog, note) })
		for range 20 + round {
			time.Sleep(time.Millisecond)
			d.owes(mqtt.Message{Topic: "a/n", Payload: []byte(strconv.Itoa(next)), QoS: mqtt.AtLeastOnce})
			next++
		}
		synctest.Wait()
		dir := d.snapshot()
		mu.Lock()
		before := came
		came = make(map[int]bool)
		mu.Unlock()
		cancel()
		receiving.Wait()
		in.Close()
		d.goBack(dir)
		twice := 0
		err := d.b.QueueMessages("up", 0, func(m mqtt.Delivery) bool {
			if n, _ := strconv.Atoi(string(m.Payload)); before[n] {
				twice++
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		d.slow(disk)
		if len(before) < inflight || twice > inflight {
			t.Errorf("after %d messages %d come again, with a window of %d", len(before), twice, inflight)
		}
	}
}
