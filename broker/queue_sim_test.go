package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// queueSim plays one bounded queue at random. Its model is the list of numbers
// that were published, in their order, and what has become of each.
type queueSim struct {
	*bed
	rnd *rand.Rand
	q   mqtt.QueueLimits
	in  mqtt.Inbox // nil: the consumer is absent

	size  int // of a payload
	total int
	open  []mqtt.Delivery // received and not acknowledged
	got   map[int]int     // how often a number was received
	acked map[int]bool
	last  int // the highest number received over this connection
}

func (q *queueSim) step() {
	switch k := q.rnd.IntN(100); {
	case k < 50:
		q.publish(1 + q.rnd.IntN(8))
	case k < 60 && q.in == nil:
		q.in, q.last = q.opens(q.q), 0
	case k < 63 && q.in != nil:
		q.leave()
	case k < 90 && q.in != nil:
		q.receive(q.rnd.IntN(10))
		q.acknowledge(q.rnd.IntN(len(q.open) + 1))
	case k < 94:
		q.flush()
	case k < 97:
		if _, err := q.st.Compact(q.ctx(), q.b.StillOwed()); err != nil {
			q.t.Fatal(err)
		}
	case k == 97:
		q.leave()
		q.restart()
		q.opens(q.q).Close()
	case k == 98:
		q.flush() // so that nothing is lost, only sent again
		q.leave()
		q.crash()
		q.opens(q.q).Close()
	}
	q.bounded()
}

func (q *queueSim) publish(n int) {
	for range n {
		if q.queueOf("q").refuses.Load() {
			return // it would wait
		}
		q.total++
		q.number(q.total, q.size, 3)
	}
}

func (q *queueSim) leave() {
	if q.in != nil {
		q.in.Close()
		q.in, q.open = nil, nil
	}
}

// receive takes what comes, at most n.
func (q *queueSim) receive(n int) {
	for ; n > 0; n-- {
		in := q.in.(*inbox)
		m, ok := in.next(&in.box)
		if !ok {
			return
		}
		number := numberOf(q.t, m.Payload)
		if q.acked[number] {
			q.t.Fatalf("number %d comes again after it was acknowledged", number)
		}
		if number <= q.last {
			q.t.Fatalf("number %d comes behind %d", number, q.last)
		}
		q.last = number
		q.got[number]++
		q.open = append(q.open, m)
	}
}

// acknowledge acknowledges n of what was received, in any order. It is on disk
// then, so that nothing of it comes again.
func (q *queueSim) acknowledge(n int) {
	for range n {
		i := q.rnd.IntN(len(q.open))
		q.in.Ack(q.open[i].Seq)
		q.acked[numberOf(q.t, q.open[i].Payload)] = true
		q.open = slices.Delete(q.open, i, i+1)
	}
	if n > 0 {
		q.flush()
	}
}

// bounded wants the queue to be within its bounds, but for what was sent.
func (q *queueSim) bounded() {
	sent := int64(4 * (q.size + 100))
	q.waitFor("the bound", func() bool { // another turn may be about to make room
		have := q.queueOf("q").amount()
		return (q.q.MaxMessages == 0 || have.n <= q.q.MaxMessages+4) && (q.q.MaxDisk == 0 || have.bytes <= q.q.MaxDisk+sent)
	})
}

// end takes what is left and compares.
func (q *queueSim) end() {
	q.leave()
	q.in, q.last = q.opens(q.q), 0
	for end := time.Now().Add(patience); q.owed() > 0; {
		if time.Now().After(end) {
			q.t.Fatalf("%d messages do not come", q.owed())
		}
		q.receive(10)
		q.acknowledge(len(q.open))
	}
	lost := uint64(0)
	for _, l := range q.b.Losses() {
		lost += l.Count
	}
	if len(q.got)+int(lost) != q.total || q.q.Overflow == mqtt.Reject && lost > 0 {
		q.t.Errorf("%d were published, %d came and %d are lost", q.total, len(q.got), lost)
	}
	q.t.Logf("%d published, %d came, %d lost", q.total, len(q.got), lost)
}

func TestSimQueue(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, q := range []mqtt.QueueLimits{
		{MaxMessages: 60},
		{MaxDisk: 20_000},
		{MaxMessages: 7},
		{MaxMessages: 60, Overflow: mqtt.DropNewest},
		{MaxMessages: 60, Overflow: mqtt.Thin},
		{MaxDisk: 20_000, Overflow: mqtt.Thin},
		{MaxMessages: 60, Overflow: mqtt.Reject},
		{MaxDisk: 20_000, Overflow: mqtt.Reject},
	} {
		t.Run(fmt.Sprintf("%+v", q), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			d := newBed(t, func(d *bed) {
				d.segment = 64 * units.KiB
				d.opts.CommitInterval, d.opts.OnlineDelay = units.Duration(time.Millisecond), units.Duration(3*time.Millisecond)
			})
			q.MaxMemory = 4096
			m := queueSim{bed: d, rnd: rnd, q: q, size: 50 + rnd.IntN(500), got: make(map[int]int), acked: make(map[int]bool)}
			m.opens(q).Close()
			for end := time.Now().Add(time.Second / 2); time.Now().Before(end); {
				m.step()
			}
			m.end()
		})
	}
}
