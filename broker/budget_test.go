package broker

import (
	"maps"
	"slices"
	"testing"
)

// audit compares what the budget says is taken with what is there, once the
// broker has stopped: a charge that is forgotten starves everybody in the end.
func (d *bed) audit() {
	d.t.Helper()
	b := d.b
	var want [uses]int64
	sessions := slices.Collect(maps.Values(b.sessions))
	for _, g := range b.shares {
		sessions = append(sessions, g.s)
	}
	for _, s := range sessions {
		want[forSessions] += int64(sessionCost + len(s.id) + costOfWill(s.will))
		want[forQueues] += s.holding.held.Load()
		for filter := range s.subs {
			want[forSubscriptions] += int64(costOfFilter(filter))
		}
		if n := s.ramBytes + s.window.len() + s.replay.len(); n > 0 && s.link == nil {
			d.t.Errorf("%q holds %d bytes and messages, and nobody is there", s.id, n)
		}
	}
	for _, m := range b.retained.list {
		want[forRetained] += int64(retainedCost + m.body.size())
	}
	want[forStore] = int64(b.commit.rows.size)
	var sum int64
	for what, name := range useNames {
		got := b.memory.by[what].Load()
		sum += got
		if got != want[what] {
			d.t.Errorf("%d bytes are taken for %s, of which %d are there", got, name, want[what])
		}
	}
	if used := b.memory.used.Load(); used != sum {
		d.t.Errorf("%d bytes are taken, the shares are %d", used, sum)
	}
}

func TestChargeGrowsInGrains(t *testing.T) {
	m := budget{limit: 1 << 20}
	var c charge
	for _, x := range []struct{ bytes, held int64 }{{0, 0}, {small - 1, 0}, {small, grain}, {grain, grain}, {grain + 1, 2 * grain}, {5, 0}} {
		c.set(&m, forQueues, int(x.bytes))
		if got := m.used.Load(); got != x.held || m.by[forQueues].Load() != x.held {
			t.Errorf("%d bytes are charged as %d, want %d", x.bytes, got, x.held)
		}
	}
}

func TestTheLastQuarterIsForWhatPassesThrough(t *testing.T) {
	m := budget{limit: 1000, short: make(chan struct{}, 1)}
	for _, x := range []struct {
		used           int
		stays, passing bool
	}{{0, true, true}, {749, true, true}, {750, false, true}, {999, false, true}, {1000, false, false}} {
		m.add(forSessions, x.used-int(m.used.Load()))
		if m.room(forSubscriptions) != x.stays || m.room(forOutput) != x.passing {
			t.Errorf("with %d of 1000 taken there is room for what stays: %v, for what passes through: %v", x.used, m.room(forSubscriptions), m.room(forOutput))
		}
	}
}
