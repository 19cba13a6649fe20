package clock

import (
	"path/filepath"
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

// OpenTest is [Open] for tests of other packages, on a machine whose clock says
// wall and knows itself to be right when synced says so.
func OpenTest(t interface{ Helper() }, dir string, wall func() time.Time, synced func() bool) (*Clock, error) {
	t.Helper()
	c := &Clock{path: filepath.Join(dir, "clock.json"), wall: wall, synced: synced}
	return c, c.open()
}
