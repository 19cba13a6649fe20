package broker

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// opens opens the inbox "q" for the filter t/# with these bounds and a window of 4.
func (d *bed) opens(q mqtt.QueueLimits) mqtt.Inbox {
	d.t.Helper()
	in, err := d.b.OpenInbox(d.ctx(), "q", mqtt.InboxOptions{MaxInflight: 4, Queue: q}, mqtt.Subscription{Filter: "t/#", QoS: 1})
	if err != nil {
		d.t.Fatal(err)
	}
	return in
}

// numbers publishes the numbers from first to last, padded to a size, in turn to
// some topics.
func (d *bed) numbers(first, last, size, topics int) {
	d.t.Helper()
	for n := first; n <= last; n++ {
		d.number(n, size, topics)
	}
}

func (d *bed) number(n, size, topics int) {
	d.t.Helper()
	payload := fmt.Sprint(n, " ", strings.Repeat("x", size))
	if err := d.b.PublishAsync(d.t.Context(), mqtt.Message{Topic: "t/" + strconv.Itoa(n%topics), Payload: []byte(payload), QoS: 1}, nil); err != nil {
		d.t.Fatal(err)
	}
}

// flush waits until everything is on disk.
func (d *bed) flush() {
	d.t.Helper()
	if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "flush", QoS: 1}); err != nil {
		d.t.Fatal(err)
	}
	saved := make(chan error, 1)
	d.b.commit.mu.Lock()
	d.b.commit.alsoBy(0, func(_ *turn, err error) { saved <- err })
	d.b.commit.mu.Unlock()
	if err := <-saved; err != nil {
		d.t.Fatal(err)
	}
}

// takeAll receives and acknowledges until nothing is owed, and returns the numbers.
func (d *bed) takeAll(in mqtt.Inbox) (got []int) {
	d.t.Helper()
	for d.owed() > 0 {
		got = append(got, d.takeOne(in))
	}
	return got
}

func (d *bed) takeOne(in mqtt.Inbox) int {
	d.t.Helper()
	m, err := in.Recv(d.ctx())
	if err != nil {
		d.t.Fatal(err)
	}
	in.Ack(m.Seq)
	return numberOf(d.t, m.Payload)
}

func numberOf(t testing.TB, payload []byte) int {
	t.Helper()
	text, _, _ := strings.Cut(string(payload), " ")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (d *bed) owed() int64 { return d.b.Backlog("q") }

func (d *bed) queueOf(id string) *session {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	if s := d.b.sessions[inboxKey(id)]; s != nil {
		return s
	}
	return d.b.sessions[id]
}

// sizes returns what the session is owed.
func (s *session) amount() amount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return amount{s.owed.Load(), s.bytes}
}

// wantRun wants the numbers from first to last, in order.
func wantRun(t *testing.T, got []int, first, last int) {
	t.Helper()
	for i, n := range got {
		if n != first+i {
			t.Fatalf("message %d is number %d, want %d", i, n, first+i)
		}
	}
	if len(got) != last-first+1 {
		t.Fatalf("got %d messages from %d on, want those up to %d", len(got), first, last)
	}
}

// lostOf returns how many messages the ledger has for a reason, and bytes.
func (d *bed) lostOf(reason string) (n, bytes uint64) {
	for _, l := range d.b.Losses() {
		if l.Reason == reason {
			n, bytes = n+l.Count, bytes+l.Bytes
		}
	}
	return n, bytes
}

// interrupted makes the bed's store small, and calls fn with each interruption.
func interrupted(t *testing.T, fn func(t *testing.T, d *bed, interrupt func())) {
	for name, interrupt := range map[string]func(*bed){
		"nothing":   func(*bed) {},
		"restart":   (*bed).restart,
		"power cut": (*bed).crash,
	} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, func(d *bed) { d.segment = 64 * units.KiB })
			fn(t, d, func() { d.flush(); interrupt(d) })
		})
	}
}

func TestOldestOfAnAbsentQueueMakeRoom(t *testing.T) {
	interrupted(t, func(t *testing.T, d *bed, interrupt func()) {
		q := mqtt.QueueLimits{MaxDisk: 200_000}
		d.opens(q).Close()
		const n = 2000 // of 1 kB
		d.numbers(1, n/2, 1000, 3)
		interrupt()
		in := d.opens(q)
		in.Close()
		d.numbers(n/2+1, n, 1000, 3)
		have := d.queueOf("q").amount()
		if have.bytes > q.MaxDisk || have.bytes < q.MaxDisk*14/16 {
			t.Errorf("%d messages with %d bytes are owed, the bound is %d", have.n, have.bytes, q.MaxDisk)
		}
		interrupt()
		in = d.opens(q)
		got := d.takeAll(in)
		wantRun(t, got[:4], got[0], got[0]+3) // they were sent when the inbox was open
		wantRun(t, got[4:], n-int(have.n)+5, n)
		if lost, bytes := d.lostOf(lostDisk); lost != n-uint64(have.n) || bytes < lost*1000 || bytes > lost*1010 {
			t.Errorf("%d messages with %d bytes are in the ledger, want %d", lost, bytes, n-have.n)
		}
		d.numbers(n+1, n+10, 1000, 3)
		wantRun(t, d.takeAll(in), n+1, n+10)
	})
}

// What the consumer has, or may have, stays; what is dropped behind it does not
// come again.
func TestOldestOfASlowQueueMakeRoomBehindWhatWasSent(t *testing.T) {
	interrupted(t, func(t *testing.T, d *bed, interrupt func()) {
		q := mqtt.QueueLimits{MaxMessages: 50, MaxMemory: 8192}
		in := d.opens(q)
		d.numbers(1, 500, 200, 1)
		if have := d.queueOf("q").amount(); have.n > 50 {
			t.Errorf("%d messages are owed", have.n)
		}
		var first []int
		for range 2 {
			m, err := in.Recv(d.ctx())
			if err != nil {
				t.Fatal(err)
			}
			first = append(first, numberOf(t, m.Payload))
		}
		wantRun(t, first, 1, 2)
		interrupt()
		in = d.opens(q)
		d.numbers(501, 600, 200, 1)
		got := d.takeAll(in)
		wantRun(t, got[:4], 1, 4) // they were sent
		wantRun(t, got[4:], 600-len(got)+5, 600)
		if lost, _ := d.lostOf(lostCount); int(lost)+len(got) != 600 {
			t.Errorf("%d messages came and %d are lost, of 600", len(got), lost)
		}
	})
}

func TestNewestAreDroppedUntilThereIsRoom(t *testing.T) {
	for name, q := range map[string]mqtt.QueueLimits{
		lostCount: {MaxMessages: 20, Overflow: mqtt.DropNewest},
		lostDisk:  {MaxDisk: 20 * 170, Overflow: mqtt.DropNewest},
	} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, nil)
			in := d.opens(q)
			in.Close()
			d.numbers(1, 100, 96, 1)
			in = d.opens(q)
			got := d.takeAll(in)
			wantRun(t, got, 1, len(got))
			lost, _ := d.lostOf(name)
			if len(got) < 19 || len(got) > 21 || len(got)+int(lost) != 100 {
				t.Errorf("%d came and %d are lost, want 20 and 80", len(got), lost)
			}
			d.numbers(101, 110, 96, 1)
			wantRun(t, d.takeAll(in), 101, 110)
		})
	}
}

func TestQueueOfAClientIsBounded(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMessages = 10 })
	sub := d.dial("sub", durable)
	sub.subscribe("a/+", 1)
	sub.subscribe("b", 1)
	sub.Close()
	d.waitFor("the end of the connection", func() bool { return d.b.Status().Connections == 0 })
	pub := d.dial("pub", nil)
	for n := range 30 {
		pub.publish([]string{"a/x", "b"}[n%2], strconv.Itoa(n), 1)
	}
	sub = d.dial("sub", durable)
	for n := 20; n < 30; n++ {
		sub.want([]string{"a/x", "b"}[n%2], strconv.Itoa(n), 1)
	}
	sub.wantNothing()
	d.wantLosses("sub a/+ max_messages 10", "sub b max_messages 10")
}

func (d *bed) numbersTo(topic string, n int) {
	d.t.Helper()
	for i := 1; i <= n; i++ {
		if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: topic, Payload: []byte(strconv.Itoa(i)), QoS: 1}, nil); err != nil {
			d.t.Fatal(err)
		}
	}
}

// nextPublish wants any message.
func (w *wire) nextPublish() (p packet.Publish) {
	w.t.Helper()
	if err := p.Decode(w.next()); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// What a member has under way stays with it.
func TestQueueOfAShareIsBounded(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		d.b.cfg.Queue.MaxMessages, d.cfg.Queue.MaxMessages = 40, 40
		m := d.joins("m", "$share/g/a", 1)
		d.numbersTo("a", 100)
		var ids []uint16
		for n := 1; n <= 32; n++ {
			ids = append(ids, m.wantPublish("a", strconv.Itoa(n), 1).ID)
		}
		for _, id := range ids[1:] {
			m.ack(packet.TypePuback, id)
		}
		next, _ := strconv.Atoi(string(m.nextPublish().Payload))
		if next < 93 || next > 95 { // 40, less what is made room for at a time
			t.Errorf("number %d follows", next)
		}
		for n := next + 1; n <= 100; n++ {
			m.wantPublish("a", strconv.Itoa(n), 1)
		}
		m.fence() // all that it has acknowledged is noted
		d.flush()
		interrupt()
		m.c.Close()
		m = d.connect("m", true)
		m.wantPublish("a", "1", 1)
		for n := next; n <= 100; n++ {
			m.wantPublish("a", strconv.Itoa(n), 1)
		}
	})
}

// filesOf returns how many bytes the journal's files take.
func (d *bed) filesOf() (bytes int64) {
	d.t.Helper()
	err := filepath.WalkDir(filepath.Join(d.dir, "journal"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if os.IsNotExist(err) {
			return nil
		}
		bytes += info.Size()
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return bytes
}

func TestSpaceOfWhatIsDroppedComesBack(t *testing.T) {
	d := newBed(t, func(d *bed) { d.segment = 64 * units.KiB })
	q := mqtt.QueueLimits{MaxDisk: 200_000}
	in := d.opens(q)
	d.numbers(1, 4, 1000, 1) // they are sent, and pin the journal's first file
	for range 4 {
		if _, err := in.Recv(d.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	in.Close()
	for n := 5; n < 3000; n += 100 {
		d.numbers(n, n+99, 1000, 1)
		d.flush() // else the oldest would go before they get to the disk
	}
	d.flush()
	if _, err := d.st.Compact(context.Background(), d.b.StillOwed()); err != nil {
		t.Fatal(err)
	}
	if size := d.filesOf(); size > 700_000 {
		t.Errorf("3 MB were published; the files take %d bytes, the bound is %d", size, q.MaxDisk)
	}
	got := d.takeAll(d.opens(q))
	wantRun(t, got[:4], 1, 4)
	wantRun(t, got[4:], 3004-len(got)+5, 3004)
}

// The queue's size makes no difference to memory, and neither does what it gives up.
func TestBoundIsExceededByATurnAtMost(t *testing.T) {
	d := newBed(t, nil)
	q := mqtt.QueueLimits{MaxMessages: 1000}
	d.opens(q).Close()
	s := d.queueOf("q")
	for n := range 3000 {
		d.number(n, 10, 1)
		if have := s.amount(); have.n > 1000 {
			t.Fatalf("%d messages are owed after %d", have.n, n)
		}
	}
}

// What was lost when it was to be sent is not lost again when the queue is full.
func TestWhatTheConsumerDoesNotTakeIsLostOnce(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMessages = 4 })
	small := func(o *client.Options) {
		kept5(1000)(o)
		o.ManualAck = true
		o.Properties = o.Properties.AppendUint(packet.PropMaximumPacketSize, 100)
	}
	leave := func(sub *peer) {
		sub.Close()
		d.waitFor("the end of the connection", func() bool { return d.b.Status().Connections == 0 })
	}
	sub := d.dial("sub", small)
	sub.subscribe("a", 1)
	leave(sub)
	publish := func(payload string) {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: []byte(payload), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	publish("1")
	publish(strings.Repeat("x", 200))
	sub = d.dial("sub", small)
	sub.want("a", "1", 1)
	d.waitFor("the loss", func() bool { n, _ := d.lostOf(lostSize); return n == 1 })
	leave(sub)
	for n := 2; n <= 9; n++ {
		publish(strconv.Itoa(n))
	}
	d.wantLosses("sub a max_messages 5", "sub a packet_size 1")
}

// An inbox that nobody opens after a restart keeps what it has, and does not grow
// for ever.
func TestInboxThatNobodyOpensIsBounded(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxDisk = 64 * units.KiB })
	d.opens(mqtt.QueueLimits{}).Close()
	d.numbers(1, 200, 1000, 1)
	d.flush()
	d.restart()
	d.numbers(201, 215, 1000, 1)
	if n := d.owed(); n != 215 {
		t.Errorf("%d messages are owed after the restart, want all 215", n)
	}
	d.numbers(216, 1000, 1000, 1)
	if n := d.owed(); n < 190 || n > 225 {
		t.Errorf("%d messages are owed in the end, want those of the restart and an eighth", n)
	}
	got := d.takeAll(d.opens(mqtt.QueueLimits{}))
	wantRun(t, got, 1000-len(got)+1, 1000)
}

// What is under way may be more than a queue may hold: then what comes is given up at
// once, and nobody waits.
func TestBoundsBelowTheWindow(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMessages = 8 })
	m := d.joins("m", "a", 1)
	for i := range 40 {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: strconv.AppendInt(nil, int64(i), 10), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	var lost int64
	for _, l := range d.b.Losses() {
		lost += int64(l.Count)
	}
	if queued := d.b.Queues()[0].Messages; queued+lost != 40 || queued > 33 || lost == 0 {
		t.Errorf("%d are queued, %d lost", queued, lost)
	}
	m.wantPublish("a", "0", 1)
}

// A queue all of which was sent is over its bound and has nothing to give up. What
// comes next is not sent, so it goes at once.
func TestQueueThatIsOverItsBoundGivesUpTheNextMessage(t *testing.T) {
	d := newBed(t, nil)
	in := d.opens(mqtt.QueueLimits{MaxMessages: 3})
	d.numbers(1, 4, 1, 1) // the window has room for four
	for n := 5; n < 10; n++ {
		d.numbers(n, n, 1, 1)
		if have := d.owed(); have != 4 {
			t.Fatalf("after message %d the queue has %d, of which 4 were sent", n, have)
		}
	}
	wantRun(t, d.takeAll(in), 1, 4)
}
