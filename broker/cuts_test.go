package broker

import (
	"math/rand/v2"
	"testing"
	"time"
)

// What cuts say about each message is what a list with one entry for each says.
func TestCutsAgreeWithAListOfMessages(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const n = 60
	for range 300 {
		var c cuts
		var levels [n + 1]uint8
		for range 12 {
			from := rnd.Uint64N(n)
			to := from + 1 + rnd.Uint64N(n-from)
			level := uint8(rnd.UintN(uint(nothing) + 1))
			c = c.raise(from, to, level, 0, 0)
			for seq := from + 1; seq <= to; seq++ {
				levels[seq] = max(levels[seq], level)
			}
			for i := 1; i < len(c); i++ {
				if c[i].upTo <= c[i-1].upTo || c[i].level == c[i-1].level {
					t.Fatalf("%v is not in order, or has two ranges of one level", c)
				}
			}
		}
		from := rnd.Uint64N(n)
		for seq := from + 1; seq <= n; seq++ {
			ordinal := uint16(rnd.UintN(ordinals))
			want := levels[seq] < nothing && ordinal%(1<<levels[seq]) == 0
			if got := c.behind(from).keep(seq, ordinal); got != want {
				t.Fatalf("message %d with ordinal %d at level %d is kept: %v; %v", seq, ordinal, levels[seq], got, c)
			}
		}
	}
}

func TestBytesOfARangeFollowItsParts(t *testing.T) {
	c := cuts(nil).raise(0, 100, 1, 1000, 500)
	c = c.raise(0, 50, 2, 250, 125)
	c.settle(10, 25)
	c = c.raise(0, 20, nothing, 25, 0)
	c = c.raise(100, 120, 1, 60, 30)
	want := cuts{{20, nothing, 0}, {50, 2, 75}, {120, 1, 280}}
	for i := range want {
		if len(c) != len(want) || c[i] != want[i] {
			t.Fatalf("got %v, want %v", c, want)
		}
	}
}
