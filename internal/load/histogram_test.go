package load

import (
	"math"
	"testing"
)

func TestQuantiles(t *testing.T) {
	uniform := make([]int64, 100_000)
	for i := range uniform {
		uniform[i] = int64(i+1) * 1000
	}
	for _, c := range []struct {
		name   string
		values []int64
		want   map[float64]int64
	}{
		{"none", nil, map[float64]int64{.5: 0, 1: 0}},
		{"one", []int64{700}, map[float64]int64{0: 700, .5: 700, 1: 700}},
		{"small ones are exact", []int64{1, 2, 3, 63}, map[float64]int64{0: 1, .25: 2, .5: 3, .75: 63}},
		{"a negative one counts as 0", []int64{-5, 9}, map[float64]int64{0: 0, .5: 9}},
		{"uniform", uniform, map[float64]int64{.5: 50e6, .9: 90e6, .99: 99e6, 1: 100e6}},
		{"beyond the last bucket", []int64{1, 1 << 60}, map[float64]int64{0: 1, .5: 1 << 60, 1: 1 << 60}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var even, odd histogram
			for i, v := range c.values {
				[]*histogram{&even, &odd}[i%2].add(v)
			}
			even.merge(&odd)
			if even.n != uint64(len(c.values)) {
				t.Errorf("counted %d of %d", even.n, len(c.values))
			}
			for q, want := range c.want {
				if got := even.quantile(q); math.Abs(float64(got-want)) > .02*float64(want) {
					t.Errorf("quantile %v is %d, want %d within 2 %%", q, got, want)
				}
			}
		})
	}
}

// Every bucket counts what its middle says, so that no value is misplaced.
func TestBuckets(t *testing.T) {
	for i := range powers * subBuckets {
		if got := bucket(middle(i)); got != i {
			t.Fatalf("the middle of bucket %d, %d, is counted in %d", i, middle(i), got)
		}
	}
}

func TestSummary(t *testing.T) {
	var h histogram
	if h.summary() != nil {
		t.Error("an empty histogram has a summary")
	}
	for range 3 {
		h.add(10_000)
	}
	h.add(1_234_560)
	if got, want := *h.summary(), (Latency{P50: 10, P90: 1234.6, P99: 1234.6, Max: 1234.6}); math.Abs(got.P50-want.P50) > .2 || got.P99 != want.P99 || got.Max != want.Max {
		t.Errorf("summary %+v, want %+v", got, want)
	}
}
