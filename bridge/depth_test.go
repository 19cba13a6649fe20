package bridge

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// haul is a backlog that goes through a window to a server which takes one message
// after the other, beside live messages, or none.
type haul struct {
	window   int
	messages int
	live     bool
	each     time.Duration // what the server needs for a message
	trip     func(served int) time.Duration

	w      *window
	up     chan cargo
	down   chan cargo
	served int
}

// cargo is a message under way, or its acknowledgement.
type cargo struct {
	of   stream
	made time.Time // published, if it is live
	sent time.Time // to the server
	back time.Time // the acknowledgement comes
}

// steady is a round trip that never changes.
func steady(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// run returns how many messages the server takes a second in the last half of the
// backlog, and how long live ones took then to get there, sorted.
func (h *haul) run(t *testing.T) (perSecond float64, took []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		h.served, h.w = 0, newWindow(firstWindow, h.window, 50, time.Minute)
		h.up, h.down = make(chan cargo, h.window), make(chan cargo, h.window)
		var others sync.WaitGroup
		done := make(chan struct{})
		others.Go(h.confirm)
		others.Go(func() {
			for range h.messages {
				h.send(cargo{of: backlog}, done)
			}
		})
		if h.live {
			others.Go(func() { h.publish(done) })
		}
		for range h.messages / 2 {
			h.serve()
		}
		half, all := time.Now(), 0
		for range h.messages - h.messages/2 {
			live := h.serve()
			took, all = append(took, live...), all+1+len(live)
		}
		perSecond = float64(all) / time.Since(half).Seconds()
		close(done)
		close(h.down)
		others.Wait()
	})
	slices.Sort(took)
	return perSecond, took
}

// publish publishes live messages until done.
func (h *haul) publish(done chan struct{}) {
	beat := time.NewTicker(max(10*time.Millisecond, 10*h.each))
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			h.send(cargo{of: live, made: time.Now()}, done)
		case <-done:
			return
		}
	}
}

func (h *haul) send(c cargo, done chan struct{}) {
	if h.w.enter(done, c.of) {
		c.sent = time.Now()
		h.up <- c
	}
}

// serve takes messages up to the next one of the backlog, and returns how long live
// ones before it took.
func (h *haul) serve() (took []time.Duration) {
	for {
		c := <-h.up
		trip := h.trip(h.served)
		h.served++
		time.Sleep(time.Until(c.sent.Add(trip / 2))) // virtual
		time.Sleep(h.each)                           // virtual
		c.back = time.Now().Add(trip / 2)
		h.down <- c
		if c.of == backlog {
			return took
		}
		took = append(took, time.Since(c.made))
	}
}

func (h *haul) confirm() {
	for c := range h.down {
		if wait := time.Until(c.back); wait > 0 {
			h.w.wake()
			time.Sleep(wait) // virtual
		}
		h.w.leave(c.of, c.sent, time.Now())
	}
}

// Live messages do not wait long behind a backlog, which takes as long as without them.
func TestABacklogIsNoDeeperThanItMustBe(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		window int
		trip   time.Duration
		each   time.Duration // for the server
		want   time.Duration // the longest wait behind the backlog
	}{
		"no round trip":            {200, ms / 10, 18 * time.Microsecond, 3 * ms / 2},
		"no round trip, too small": {8, ms / 10, 18 * time.Microsecond, ms / 4},
		"20 ms":                    {250, 20 * ms, 18 * time.Microsecond, ms / 2},
		"200 ms":                   {1000, 200 * ms, 18 * time.Microsecond, ms / 2},
		"a modem":                  {100, 600 * ms, 50 * ms, 750 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			h := haul{window: c.window, messages: max(40*c.window, 4000), each: c.each, trip: steady(c.trip)}
			alone, _ := h.run(t)
			h.live = true
			beside, took := h.run(t)
			quiet := c.trip/2 + c.each
			t.Logf("%.0f/s alone, %.0f/s beside live messages, which take %v, at most %v; %v without a backlog", alone, beside, took[len(took)/2], took[len(took)-1], quiet)
			if longest := took[len(took)-1]; longest > quiet+c.want {
				t.Errorf("a live message took %v, want %v at most", longest, quiet+c.want)
			}
			if beside < alone*0.95 {
				t.Errorf("messages go at %.0f/s, want the %.0f/s that it has alone", beside, alone)
			}
		})
	}
}

// What a link takes at the least is found out again when it changes, and a link whose
// times differ is not held back.
func TestTheDepthFollowsTheLink(t *testing.T) {
	const ms = time.Millisecond
	random := rand.New(rand.NewPCG(1, 2))
	changing := func(from, to time.Duration) func(int) time.Duration {
		return func(n int) time.Duration {
			if n < 3000 {
				return from
			}
			return to
		}
	}
	for name, c := range map[string]struct {
		messages int
		each     time.Duration
		trip     func(n int) time.Duration
		want     time.Duration // the usual time of a live message
	}{
		"slower":    {15_000, ms / 100, changing(20*ms, 200*ms), 101 * ms},
		"faster":    {60_000, ms, changing(200*ms, ms), 20 * ms},
		"at random": {15_000, ms / 100, func(int) time.Duration { return 20*ms + time.Duration(random.Int64N(int64(40*ms))) }, 60 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			h := haul{window: 100, messages: c.messages, each: c.each, trip: c.trip}
			alone, _ := h.run(t)
			h.live = true
			beside, took := h.run(t)
			usual := took[len(took)/2]
			t.Logf("%.0f/s alone, %.0f/s beside live messages, which take %v", alone, beside, usual)
			if usual > c.want {
				t.Errorf("a live message takes %v, want %v at most", usual, c.want)
			}
			if beside < alone*0.95 {
				t.Errorf("messages go at %.0f/s, want the %.0f/s that it has alone", beside, alone)
			}
		})
	}
}

// A measurement that something got in the way of does not count, and a link that is slower
// does.
func TestAMeasurementIsNotTrustedAlone(t *testing.T) {
	const ms = time.Millisecond
	var d depth
	for _, c := range []struct{ took, want time.Duration }{{50 * ms, 50 * ms}, {ms, ms}, {50 * ms, ms}, {ms, ms}, {50 * ms, ms}, {20 * ms, 20 * ms}} {
		if d.measured(c.took); d.base != c.want {
			t.Errorf("the base is %v after %v, want %v", d.base, c.took, c.want)
		}
	}
}

func TestTheFirstMeasurementIsSoonRepeated(t *testing.T) {
	now := time.Now()
	d := depth{most: 100}
	d.begin()
	acknowledged := 0
	for d.left <= remeasureFirst && acknowledged < 100*d.most {
		sent := now
		now = now.Add(time.Millisecond)
		d.acknowledged(now, sent, few, d.most)
		acknowledged++
	}
	if most := (remeasureFirst + 1) * d.most; acknowledged > most {
		t.Errorf("after %d acknowledgements, want %d at most", acknowledged, most)
	}
}
