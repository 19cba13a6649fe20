package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/store"
)

// liveInbox opens the inbox "up" of everything under a/, with live messages first.
func liveInbox(t *testing.T, d *bed, inflight int, q mqtt.QueueLimits) mqtt.Inbox {
	t.Helper()
	o := mqtt.InboxOptions{MaxInflight: inflight, LiveFirst: true, Queue: q}
	in, err := d.b.OpenInbox(d.ctx(), "up", o, mqtt.Subscription{Filter: "a/#", QoS: mqtt.ExactlyOnce})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// number publishes messages with numbers as payload, and waits until they are safe.
func number(t *testing.T, d *bed, from, to int) {
	t.Helper()
	safe := make(chan error, to-from)
	for i := from; i < to; i++ {
		m := mqtt.Message{Topic: "a/n", Payload: []byte(strconv.Itoa(i)), QoS: mqtt.AtLeastOnce}
		if err := d.b.PublishAsync(d.ctx(), m, func(err error) { safe <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range to - from {
		if err := <-safe; err != nil {
			t.Fatal(err)
		}
	}
}

// narrow are limits of a queue that make it leave memory soon, and nothing else.
var narrow = mqtt.QueueLimits{MaxMemory: 8192}

type recvFunc func(context.Context) (mqtt.Delivery, error)

// take receives the messages from up to, but without, to. It returns their places.
func take(t *testing.T, d *bed, recv recvFunc, from, to int) (seqs []uint64) {
	t.Helper()
	for i := from; i < to; i++ {
		m, err := recv(d.ctx())
		if err != nil || string(m.Payload) != strconv.Itoa(i) {
			t.Fatalf("got %q, %v; want %d", m.Payload, err, i)
		}
		seqs = append(seqs, m.Seq)
	}
	return seqs
}

func ackAll(in mqtt.Inbox, seqs []uint64) {
	for _, seq := range seqs {
		in.Ack(seq)
	}
}

// While the disk does not take how far the backlog has come, that waits for it, and live
// messages do not.
func TestLiveMessagesDoNotWaitForThePosition(t *testing.T) {
	d := newBed(t, nil)
	const inflight, backlog = 16, 100
	liveInbox(t, d, inflight, mqtt.QueueLimits{}).Close()
	number(t, d, 0, backlog)
	in := liveInbox(t, d, inflight, mqtt.QueueLimits{})
	free := make(chan struct{})
	goOn := d.betweenCommits()
	save := d.b.commit.save
	d.b.commit.save = func(b *store.Batch) error { <-free; return save(b) }
	goOn()
	asking, cancel := context.WithCancel(d.ctx())
	cancel()
	taken := 0
	for m, err := in.Recv(asking); err == nil; m, err = in.Recv(asking) { // what is there
		in.Ack(m.Seq)
		taken++
	}
	if taken < inflight/2 || taken > inflight {
		t.Errorf("%d messages of the backlog went, want at most %d", taken, inflight)
	}
	if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a/n", Payload: []byte(strconv.Itoa(backlog)), QoS: mqtt.AtLeastOnce}, func(error) {}); err != nil {
		t.Fatal(err)
	}
	ackAll(in, take(t, d, in.RecvLive, backlog, backlog+1))
	close(free)
	take(t, d, in.Recv, taken, taken+1)
	in.Close()
	d.stop()
}

func TestLiveMessagesPassTheBacklog(t *testing.T) {
	d := newBed(t, nil)
	const inflight, backlog, total = 10, 300, 340
	liveInbox(t, d, inflight, mqtt.QueueLimits{}).Close()
	number(t, d, 0, backlog)
	in := liveInbox(t, d, inflight, mqtt.QueueLimits{})
	first := take(t, d, in.Recv, 0, 5) // not acknowledged for now
	for n := backlog; n < total; n += 2 {
		published := make(chan error, 1)
		go func() {
			published <- d.b.Publish(d.ctx(), mqtt.Message{Topic: "a/n", Payload: []byte(strconv.Itoa(n)), QoS: mqtt.AtLeastOnce})
		}()
		ackAll(in, take(t, d, in.RecvLive, n, n+1)) // before it need be written
		if err := <-published; err != nil {
			t.Fatal(err)
		}
		number(t, d, n+1, n+2)
		ackAll(in, take(t, d, in.RecvLive, n+1, n+2)) // after it was
	}
	s := d.b.sessions[inboxKey("up")]
	s.mu.Lock()
	if len(s.beyond) != 1 {
		t.Errorf("%d acknowledgements behind the backlog take %d ranges", total-backlog, len(s.beyond))
	}
	s.mu.Unlock()
	d.crash()
	in = liveInbox(t, d, inflight, mqtt.QueueLimits{})
	again := take(t, d, in.Recv, 0, 5)
	if !slices.Equal(first, again) {
		t.Errorf("%v came again as %v", first, again)
	}
	ackAll(in, again)
	for n := 5; n < backlog; n++ {
		ackAll(in, take(t, d, in.Recv, n, n+1))
	}
	if n := d.b.Backlog("up"); n > inflight {
		t.Errorf("%d live messages come again after a crash, with a window of %d", n, inflight)
	}
}

// A consumer that does not take live messages gets them in their place.
func TestLiveMessagesWithoutRoomAreBacklog(t *testing.T) {
	d := newBed(t, nil)
	liveInbox(t, d, 10, narrow).Close()
	number(t, d, 0, 100)
	in := liveInbox(t, d, 10, narrow)
	number(t, d, 100, 500)
	live := 0
	got := make(map[string]bool)
	for {
		ctx, cancel := context.WithTimeout(d.ctx(), 50*time.Millisecond)
		m, err := in.RecvLive(ctx)
		cancel()
		if err != nil {
			break
		}
		live++
		got[string(m.Payload)] = true
		in.Ack(m.Seq)
	}
	if live < 5 || live > 100 {
		t.Errorf("%d of 400 messages found room", live)
	}
	for last := -1; len(got) < 500; {
		m, err := in.Recv(d.ctx())
		n, _ := strconv.Atoi(string(m.Payload))
		if err != nil || got[string(m.Payload)] || n < last {
			t.Fatalf("got %s, %v after %d", m.Payload, err, last)
		}
		last, got[string(m.Payload)] = n, true
		in.Ack(m.Seq)
	}
	if n := d.b.Backlog("up"); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// A backlog that waits for its rate must not keep live messages from being handed
// out, nor the other way round.
func TestNeitherStreamFillsTheWindow(t *testing.T) {
	d := newBed(t, nil)
	liveInbox(t, d, 10, narrow).Close()
	number(t, d, 0, 100)
	in := liveInbox(t, d, 10, narrow)
	number(t, d, 100, 200)
	seqs := take(t, d, in.RecvLive, 100, 108)
	seqs = append(seqs, take(t, d, in.Recv, 0, 1)...)
	ackAll(in, seqs)
	seqs = take(t, d, in.Recv, 1, 9)
	seqs = append(seqs, take(t, d, in.RecvLive, 108, 109)...)
	ackAll(in, seqs)
	take(t, d, in.Recv, 9, 11)
}

// However narrow the window is, a backlog that waits for its rate leaves a place for a live
// message, if there is more than one.
func TestTheBacklogLeavesAPlace(t *testing.T) {
	for _, inflight := range []int{2, 3} {
		d := newBed(t, nil)
		liveInbox(t, d, inflight, narrow).Close()
		number(t, d, 0, 10)
		in := liveInbox(t, d, inflight, narrow)
		take(t, d, in.Recv, 0, inflight-1)
		number(t, d, 10, 11)
		take(t, d, in.RecvLive, 10, 11)
	}
	d := newBed(t, nil)
	liveInbox(t, d, 1, narrow).Close()
	number(t, d, 0, 2)
	in := liveInbox(t, d, 1, narrow)
	ackAll(in, take(t, d, in.Recv, 0, 1))
	take(t, d, in.Recv, 1, 2)
}

// streams is what a consumer with lanes got over one opening.
type streams struct {
	live, backlog int // the highest number of each
	unacked       []uint64
}

// TestLiveSim publishes, opens, receives, acknowledges in any order, closes,
// restarts and crashes at random, in a queue without bounds and in full ones. The
// journal has to agree with what is owed at each stop, see reckon, and at the end
// nothing may be missing but what stands in the ledger.
func TestLiveSim(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for name, q := range map[string]mqtt.QueueLimits{
		"no bounds":     {},
		"few messages":  {MaxMessages: 60},
		"few bytes":     {MaxDisk: 5000},
		"the newest go": {MaxMessages: 60, Overflow: mqtt.DropNewest},
	} {
		t.Run(name, func(t *testing.T) { liveSim(t, rand.New(rand.NewPCG(seed, 0)), q) })
	}
}

func liveSim(t *testing.T, rnd *rand.Rand, q mqtt.QueueLimits) {
	q.MaxMemory = 4096
	d := newBed(t, func(d *bed) {
		d.opts.CommitInterval, d.opts.OnlineDelay = units.Duration(time.Millisecond), units.Duration(3*time.Millisecond)
	})
	const inflight = 8
	got := make(map[int]int)
	open := func() (mqtt.Inbox, *streams) {
		return liveInbox(t, d, inflight, q), &streams{live: -1, backlog: -1}
	}
	in, now := open()
	receive := func(recv recvFunc, highest *int, wait time.Duration) bool {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		m, err := recv(ctx)
		if err != nil {
			return false
		}
		n, _ := strconv.Atoi(string(m.Payload))
		if n <= *highest {
			t.Fatalf("%d came after %d", n, *highest)
		}
		*highest = n
		got[n]++
		now.unacked = append(now.unacked, m.Seq)
		return true
	}
	total, opens, crashes := 0, 0, 0
	publish := func() {
		m := mqtt.Message{Topic: "a/n", Payload: []byte(strconv.Itoa(total)), QoS: mqtt.QoS(1 + rnd.IntN(2))}
		if err := d.b.PublishAsync(d.ctx(), m, nil); err != nil {
			t.Fatal(err)
		}
		total++
	}
	acked := func(n int) {
		for ; n > 0 && len(now.unacked) > 0; n-- {
			i := rnd.IntN(min(3, len(now.unacked)))
			in.Ack(now.unacked[i])
			now.unacked = slices.Delete(now.unacked, i, i+1)
		}
	}
	reopen := func() {
		in, now = open()
		opens++
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		switch k := rnd.IntN(1000); {
		case k < 400:
			for range 1 + rnd.IntN(3) {
				publish()
			}
		case k < 600:
			receive(in.RecvLive, &now.live, time.Millisecond)
		case k < 780:
			receive(in.Recv, &now.backlog, time.Millisecond)
		case k < 990:
			acked(1 + rnd.IntN(4))
		case k < 995:
			in.Close()
			for range rnd.IntN(50) {
				publish()
			}
			reopen()
		case k < 997:
			d.restart()
			reopen()
		case k < 999 && crashes < 10:
			if q.MaxDisk > 0 || q.MaxMessages > 0 {
				d.flush() // the ledger
			} else if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a/n", Payload: []byte(strconv.Itoa(total)), QoS: 1}); err != nil {
				t.Fatal(err) // what is confirmed is safe, and so is all before it
			} else {
				total++
			}
			d.crash()
			crashes++
			reopen()
		}
	}
	for d.b.Backlog("up") > 0 {
		receive(in.RecvLive, &now.live, time.Millisecond)
		receive(in.Recv, &now.backlog, time.Millisecond)
		acked(3)
	}
	var missing []int
	twice := 0
	for n := range total {
		if got[n] == 0 {
			missing = append(missing, n)
		}
		twice += max(0, got[n]-1)
	}
	lost := 0
	for _, l := range d.b.Losses() {
		lost += int(l.Count)
	}
	// What was received and has to come again can be given up instead.
	if again := lost - len(missing); again < 0 || again > (opens+1)*inflight {
		t.Errorf("of %d messages %d are missing, and the ledger has %d", total, len(missing), lost)
	}
	if most := (opens + 1) * inflight; twice > most {
		t.Errorf("%d messages came twice over %d openings of a window of %d", twice, opens, inflight)
	}
	t.Logf("%d messages, %d openings, %d crashes, %d came twice, %d lost", total, opens, crashes, twice, lost)
}

// A range of acknowledged places survives the store.
func TestNoteKeepsRanges(t *testing.T) {
	n := note{lastID: 7, sent: 120, sized: true, beyond: []acked{{from: 110, seq: 150}, {from: 199, seq: 200, released: true}}}
	if again := parseNote(n.append(nil, 100), 100); fmt.Sprint(again) != fmt.Sprint(n) {
		t.Errorf("%v became %v", n, again)
	}
	old := []byte{1, 0, 7, 20, 20 << 1, 30<<1 | 1}
	want := note{lastID: 7, sent: 120, beyond: []acked{{from: 119, seq: 120}, {from: 129, seq: 130, released: true}}}
	if got := parseNote(old, 100); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("version 1 is read as %v, want %v", got, want)
	}
}
