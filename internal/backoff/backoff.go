// Package backoff says how long to wait before the next try.
//
// There is one noun. A [Backoff] is the sequence of waits of one thing that is
// tried again and again: a device to open, a server to dial.
package backoff

import (
	"math/rand/v2"
	"time"
)

// The limits of the zero [Backoff].
const (
	DefaultMin = time.Second
	DefaultMax = 30 * time.Second
)

// Backoff hands out waits with full jitter: each is drawn evenly between Min
// and a ceiling that starts at twice Min and doubles with each try up to Max.
// The draw reaches over the whole span, so that a fleet which lost the same
// server at the same moment does not come back in step; the floor keeps a
// device that fails at once from being tried in a tight loop.
//
// The zero value is ready for use. It is not safe for concurrent use.
type Backoff struct {
	Min time.Duration // shortest wait; 0 means DefaultMin
	Max time.Duration // longest wait; 0 means DefaultMax, less than Min means Min

	// Source is where the draws come from; nil means the process's own.
	Source rand.Source

	ceiling time.Duration // of the next draw; 0: the first
}

// Next returns the wait before the next try.
func (b *Backoff) Next() time.Duration {
	low, high := b.limits()
	if b.ceiling == 0 {
		b.ceiling = double(low, high)
	}
	wait := low + b.draw(b.ceiling-low)
	b.ceiling = double(b.ceiling, high)
	return wait
}

// Reset makes the next wait a short one again, after a try that went well.
func (b *Backoff) Reset() { b.ceiling = 0 }

func (b *Backoff) limits() (low, high time.Duration) {
	low, high = b.Min, b.Max
	if low <= 0 {
		low = DefaultMin
	}
	if high <= 0 {
		high = DefaultMax
	}
	return low, max(low, high)
}

// double is 2*d, or high where that would be more or overflow.
func double(d, high time.Duration) time.Duration {
	if d > high/2 {
		return high
	}
	return 2 * d
}

// draw returns a duration in [0, span].
func (b *Backoff) draw(span time.Duration) time.Duration {
	if b.Source == nil {
		return rand.N(span + 1)
	}
	return time.Duration(rand.New(b.Source).Int64N(int64(span) + 1))
}
