package backoff

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestWaitsStayBetweenMinAndTheDoublingCeiling(t *testing.T) {
	for seed := range uint64(200) {
		b := Backoff{Min: time.Second, Max: 10 * time.Second, Source: rand.NewPCG(seed, 0)}
		for try, ceiling := range []time.Duration{2e9, 4e9, 8e9, 10e9, 10e9, 10e9} {
			if wait := b.Next(); wait < time.Second || wait > ceiling {
				t.Fatalf("seed %d, try %d: waits %v, want 1s to %v", seed, try, wait, ceiling)
			}
		}
	}
}

func TestTheDrawReachesOverTheWholeSpan(t *testing.T) {
	const tries = 2000
	low, high := time.Hour, time.Duration(0)
	b := Backoff{Min: time.Second, Max: 9 * time.Second, Source: rand.NewPCG(1, 2)}
	for range 4 { // to the ceiling
		b.Next()
	}
	for range tries {
		wait := b.Next()
		low, high = min(low, wait), max(high, wait)
	}
	if low > 1100*time.Millisecond || high < 8900*time.Millisecond {
		t.Errorf("%d draws lie between %v and %v, want nearly 1s and 9s", tries, low, high)
	}
}

func TestTheSameSourceGivesTheSameWaits(t *testing.T) {
	a, b := Backoff{Source: rand.NewPCG(7, 7)}, Backoff{Source: rand.NewPCG(7, 7)}
	for range 10 {
		if x, y := a.Next(), b.Next(); x != y {
			t.Fatalf("%v and %v", x, y)
		}
	}
}

func TestResetStartsAgain(t *testing.T) {
	b := Backoff{Min: time.Second, Max: time.Hour}
	for range 12 {
		b.Next()
	}
	b.Reset()
	if wait := b.Next(); wait < time.Second || wait > 2*time.Second {
		t.Errorf("the first wait after Reset is %v, want 1s to 2s", wait)
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		b         Backoff
		low, high time.Duration
	}{
		"zero value":   {Backoff{}, DefaultMin, DefaultMax},
		"max below":    {Backoff{Min: time.Minute, Max: time.Second}, time.Minute, time.Minute},
		"only min":     {Backoff{Min: time.Hour}, time.Hour, time.Hour},
		"largest max":  {Backoff{Min: 1, Max: math.MaxInt64 - 1}, 1, math.MaxInt64 - 1},
		"negative min": {Backoff{Min: -1, Max: time.Minute}, DefaultMin, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			for range 100 {
				if wait := c.b.Next(); wait < c.low || wait > c.high {
					t.Fatalf("waits %v, want %v to %v", wait, c.low, c.high)
				}
			}
		})
	}
}
