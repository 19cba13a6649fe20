package clock

import (
	"sync/atomic"
	"time"
)

// NewTest returns a clock for tests of other packages: the system's clock is ahead
// of the real time by ahead, and unsynchronised until synchronise is called.
func NewTest(t interface{ Helper() }, ahead time.Duration) (c *Clock, synchronise func()) {
	t.Helper()
	var right atomic.Bool
	c = &Clock{synced: right.Load, wall: func() time.Time {
		if right.Load() {
			return time.Now()
		}
		return time.Now().Add(ahead)
	}}
	_ = c.open() // there is no file to fail with
	return c, func() {
		right.Store(true)
		_ = c.Look()
	}
}
