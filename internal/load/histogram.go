package load

import "math/bits"

// A histogram counts nanoseconds in buckets: one for each value below subBuckets,
// and that many for each power of two above, up to about nine minutes. So a
// quantile is off by less than 2 %. The zero value is empty.
type histogram struct {
	n       uint64
	highest int64
	buckets [powers * subBuckets]uint32
}

const (
	powers     = 34
	subBits    = 6
	subBuckets = 1 << subBits
)

// add counts one value. A negative one counts as 0.
func (h *histogram) add(ns int64) {
	ns = max(ns, 0)
	h.buckets[bucket(ns)]++
	h.n++
	h.highest = max(h.highest, ns)
}

// bucket is where ns is counted; what is larger than all is in the last.
func bucket(ns int64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(uint64(ns)) - subBits - 1
	return min(shift*subBuckets+int(ns>>shift), powers*subBuckets-1)
}

// middle is the middle of what bucket i counts.
func middle(i int) int64 {
	if i < subBuckets {
		return int64(i)
	}
	shift := i/subBuckets - 1
	return int64(i-shift*subBuckets)<<shift + int64(1)<<shift/2
}

// merge adds all that o has counted.
func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.highest = max(h.highest, o.highest)
}

// quantile is the value, in nanoseconds, below which the share q of all values
// lies; 0 if there are none.
func (h *histogram) quantile(q float64) int64 {
	rank := uint64(q * float64(h.n))
	for i, n := range h.buckets[:len(h.buckets)-1] {
		if rank < uint64(n) {
			return min(middle(i), h.highest)
		}
		rank -= uint64(n)
	}
	return h.highest
}
