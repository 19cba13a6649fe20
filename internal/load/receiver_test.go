package load

import "testing"

// arrival is a message that arrives.
type arrival struct{ pub, seq int }

func TestReceiver(t *testing.T) {
	type counts struct{ received, duplicates, unordered, foreign, latencies int64 }
	for _, c := range []struct {
		name  string
		lanes int
		come  []arrival
		want  counts
		each  []int64 // delivered to each publisher
	}{
		{"nothing", 1, nil, counts{}, []int64{0, 0}},
		{"in order", 1, []arrival{{0, 0}, {0, 1}, {0, 2}}, counts{received: 3, latencies: 3}, []int64{3, 0}},
		{"a gap is no disorder", 1, []arrival{{0, 0}, {0, 5}}, counts{received: 2, latencies: 2}, []int64{2, 0}},
		{"publishers have an order of their own", 1, []arrival{{0, 4}, {1, 0}, {0, 5}, {1, 1}}, counts{received: 4, latencies: 4}, []int64{2, 2}},
		{"swapped", 1, []arrival{{1, 1}, {1, 0}, {1, 2}}, counts{received: 3, unordered: 1, latencies: 3}, []int64{0, 3}},
		{"swapped on different topics", 2, []arrival{{0, 1}, {0, 0}, {0, 3}, {0, 2}}, counts{received: 4, latencies: 4}, []int64{4, 0}},
		{"swapped on one of two topics", 2, []arrival{{0, 2}, {0, 1}, {0, 0}}, counts{received: 3, unordered: 1, latencies: 3}, []int64{3, 0}},
		{"order is not looked at", 0, []arrival{{0, 9}, {0, 0}}, counts{received: 2, latencies: 2}, []int64{2, 0}},
		{"a duplicate has neither order nor latency", 1, []arrival{{0, 0}, {0, 1}, {0, 0}}, counts{received: 3, duplicates: 1, latencies: 2}, []int64{2, 0}},
		{"duplicates beside the ends of words", 0, []arrival{{0, 63}, {0, 64}, {0, 5000}, {0, 63}, {0, 64}, {0, 65}, {0, 5000}}, counts{received: 7, duplicates: 3, latencies: 4}, []int64{4, 0}},
		{"no such publisher", 1, []arrival{{2, 0}, {1 << 30, 0}}, counts{foreign: 2}, []int64{0, 0}},
		{"no such message", 1, []arrival{{0, maxCount}}, counts{foreign: 1}, []int64{0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec, pubs := testReceiver(c.lanes)
			payload := make([]byte, stampSize)
			for _, a := range c.come {
				stamp(payload, 0, a.pub, a.seq)
				rec.take(payload)
			}
			got := counts{rec.received, rec.duplicates, rec.unordered, rec.foreign, int64(rec.latency.n)}
			if got != c.want {
				t.Errorf("counted %+v, want %+v", got, c.want)
			}
			for i, want := range c.each {
				if n := pubs[i].delivered.Load(); n != want {
					t.Errorf("publisher %d was told of %d deliveries, want %d", i, n, want)
				}
			}
		})
	}
}

// testReceiver makes a receiver of two publishers without connections to a broker.
func testReceiver(lanes int) (*receiver, []*publisher) {
	r := &run{o: &Options{Size: stampSize}}
	var pubs []*publisher
	for i := range 2 {
		pubs = append(pubs, newPublisher(r, &conn{wake: make(chan struct{}, 1)}, &topology{}, i))
	}
	rec := newReceiver(r, pubs, lanes)
	rec.now = func() int64 { return 1000 }
	return rec, pubs
}

func TestReceiverShortPayload(t *testing.T) {
	rec, _ := testReceiver(1)
	rec.take(make([]byte, stampSize-1))
	rec.take(nil)
	if rec.foreign != 2 || rec.received != 0 {
		t.Errorf("counted %d foreign and %d received, want 2 and 0", rec.foreign, rec.received)
	}
}

func TestReceiverAmong(t *testing.T) {
	rec, _ := testReceiver(0)
	payload := make([]byte, stampSize)
	for _, seq := range []int{0, 1, 63, 64, 500} {
		stamp(payload, 0, 1, seq)
		rec.take(payload)
	}
	for n, want := range map[int64]int64{0: 0, 1: 1, 64: 3, 65: 4, 100_000: 5} {
		if got := rec.among(1, n); got != want {
			t.Errorf("%d of the first %d have come, want %d", got, n, want)
		}
		if got := rec.among(0, n); got != 0 {
			t.Errorf("%d of the other publisher's first %d have come", got, n)
		}
	}
}

// A publisher is woken once for many deliveries: when another one's follow, or
// when the connection has run dry.
func TestReceiverWakes(t *testing.T) {
	rec, pubs := testReceiver(1)
	payload := make([]byte, stampSize)
	woken := func(p *publisher) int { n := len(p.c.wake); drain(p.c.wake); return n }
	for seq := range 3 {
		stamp(payload, 0, 0, seq)
		rec.take(payload)
	}
	if woken(pubs[0]) != 0 {
		t.Error("publisher 0 was woken while its messages kept coming")
	}
	stamp(payload, 0, 1, 0)
	rec.take(payload)
	if woken(pubs[0]) != 1 || woken(pubs[1]) != 0 {
		t.Error("the first message of publisher 1 should have woken publisher 0 alone")
	}
	rec.tell(nil)
	if woken(pubs[0]) != 0 || woken(pubs[1]) != 1 {
		t.Error("the end of what there was to read should have woken publisher 1 alone")
	}
}

// drain empties the channel.
func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func TestReceiverAllocatesNothing(t *testing.T) {
	rec, _ := testReceiver(1)
	payload := make([]byte, stampSize)
	stamp(payload, 0, 0, 10_000)
	rec.take(payload)
	seq := 0
	if n := testing.AllocsPerRun(1000, func() {
		stamp(payload, 0, 0, seq)
		rec.take(payload)
		seq++
	}); n != 0 {
		t.Errorf("%v allocations for a message, want none", n)
	}
}
