package broker

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/mqtt"
)

// A long outage leaves the whole curve of each topic, coarser where it is older.
func TestThinnedQueueHasTheWholeCurve(t *testing.T) {
	interrupted(t, func(t *testing.T, d *bed, interrupt func()) {
		q := mqtt.QueueLimits{MaxDisk: 100_000, Overflow: mqtt.Thin}
		d.opens(q).Close()
		const topics, n, size = 5, 20_000, 50 // some 120 B each, 24 times the bound
		for part := range 4 {
			d.numbers(part*n/4+1, (part+1)*n/4, size, topics)
			if part == 1 || part == 2 {
				interrupt()
				d.opens(q).Close()
			}
			if have := d.queueOf("q").amount(); have.bytes > q.MaxDisk+1000 {
				t.Errorf("%d bytes are owed, the bound is %d", have.bytes, q.MaxDisk)
			}
			d.flush()
			if _, err := d.st.Compact(d.ctx(), d.b.StillOwed()); err != nil {
				t.Fatal(err)
			}
		}
		if size := d.filesOf(); size > 5*q.MaxDisk {
			t.Errorf("the files take %d bytes, the bound is %d", size, q.MaxDisk)
		}
		got := d.takeAll(d.opens(q))
		if lost, _ := d.lostOf(lostThinned); int(lost)+len(got) != n {
			t.Errorf("%d came and %d were thinned, of %d", len(got), lost, n)
		}
		wantCurves(t, got, topics, n)
	})
}

// wantCurves wants each topic's numbers to be there from the first to the last,
// without a gap that is large for its age.
func wantCurves(t *testing.T, got []int, topics, n int) {
	t.Helper()
	last := make([]int, topics)
	for i, number := range got {
		if i > 0 && number <= got[i-1] {
			t.Fatalf("number %d comes behind %d", number, got[i-1])
		}
		at := number % topics
		gap, age := number-last[at], n-last[at]
		if gap > topics+age/8 {
			t.Errorf("topic %d has nothing from %d to %d, of %d", at, last[at], number, n)
		}
		last[at] = number
	}
	for at, number := range last {
		if n-number >= 2*topics {
			t.Errorf("topic %d ends with %d, of %d", at, number, n)
		}
	}
	t.Logf("%d of %d came", len(got), n)
}

// With more topics than are numbered, and each of them rare, something of
// everything is there.
func TestThinningIsFairToManyTopics(t *testing.T) {
	d := newBed(t, nil)
	q := mqtt.QueueLimits{MaxMessages: 4000, Overflow: mqtt.Thin}
	d.opens(q).Close()
	const topics, rounds = maxOrdinals + 500, 12
	for round := range rounds {
		for topic := range topics {
			m := mqtt.Message{Topic: fmt.Sprint("t/", topic), Payload: []byte(fmt.Sprint(round)), QoS: 1}
			if err := d.b.PublishAsync(d.ctx(), m, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	seen := make(map[string]int)
	for in := d.opens(q); d.owed() > 0; {
		m, err := in.Recv(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		in.Ack(m.Seq)
		seen[m.Topic]++
	}
	if len(seen) < topics*95/100 {
		t.Errorf("of %d topics %d have something left", topics, len(seen))
	}
}

// When nothing can be thinned any more, the oldest goes.
func TestThinnedQueueDropsTheOldestInTheEnd(t *testing.T) {
	d := newBed(t, nil)
	q := mqtt.QueueLimits{MaxMessages: 100, Overflow: mqtt.Thin}
	d.opens(q).Close()
	for n := range 300 { // each topic has one message, the first, which is always kept
		m := mqtt.Message{Topic: fmt.Sprint("t/", n), Payload: []byte(fmt.Sprint(n)), QoS: 1}
		if err := d.b.PublishAsync(d.ctx(), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := d.takeAll(d.opens(q))
	wantRun(t, got, 300-len(got), 299)
	if lost, _ := d.lostOf(lostCount); len(got) > 100 || int(lost)+len(got) != 300 {
		t.Errorf("%d came and %d are lost", len(got), lost)
	}
}

// What is known of the bytes of a part is about right only. The queue keeps its bound
// also if that names a part in which nothing is.
func TestThinnedQueueKeepsItsBoundWhenItsPartsAreMisjudged(t *testing.T) {
	d := newBed(t, nil)
	q := mqtt.QueueLimits{MaxMessages: 20, Overflow: mqtt.Thin}
	d.opens(q).Close()
	d.numbers(1, 40, 100, 3)
	s := d.queueOf("q")
	s.mu.Lock()
	for i := range s.cuts {
		s.cuts[i].bytes = 0 // as if all that is owed were behind
	}
	s.mu.Unlock()
	for n := 41; n < 80; n++ {
		d.numbers(n, n, 100, 3)
		if have := s.amount().n; have > q.MaxMessages {
			t.Fatalf("after message %d the queue has %d, the bound is %d", n, have, q.MaxMessages)
		}
	}
}

// How coarse a queue becomes depends on how long the outage is, not on its levels.
func TestLevelsOfALongOutage(t *testing.T) {
	d := newBed(t, nil)
	q := mqtt.QueueLimits{MaxMessages: 1000, Overflow: mqtt.Thin}
	d.opens(q).Close()
	for part := 1; part <= 100; part++ {
		d.numbers((part-1)*1000+1, part*1000, 1, 1)
		if part == 10 || part == 100 {
			var text strings.Builder
			for _, r := range d.queueOf("q").withRest() {
				fmt.Fprintf(&text, " level %d %d bytes;", r.level, r.bytes)
			}
			t.Logf("%d times the bound:%s", part, text.String())
		}
	}
	if c := d.queueOf("q").cuts; len(c) > int(nothing) {
		t.Errorf("the cuts have %d entries: %v", len(c), c)
	}
	wantCurves(t, d.takeAll(d.opens(q)), 1, 100_000)
}
