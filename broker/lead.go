package broker

import (
	"sync/atomic"
	"time"
)

// tardy is how late a timer may be although a processor is free: the scheduler
// waits for network and timers together, in whole milliseconds.
const tardy = int64(time.Millisecond)

// lead is how long before commit_interval is over the commit of what somebody waits
// for begins, so that it ends in time: the mean of what commits took lately, and
// three times the mean deviation from it, but tardy at least. What they took is
// counted from when they were due, so that who comes late to it counts, too.
//
// It is half of commit_interval at most: on a disk that takes longer commits would
// only get smaller.
type lead struct {
	most  int64
	span  atomic.Int64 // nanoseconds
	takes atomic.Int64 // what commits took lately, of all lengths, in nanoseconds

	mean, spread int64 // only whoever commits uses them
}

// note notes what a commit took.
func (l *lead) note(took int64) {
	took = max(took, 0)
	l.takes.Add((took - l.takes.Load()) / 8)
	took = min(took, 2*l.most)
	if l.mean == 0 {
		l.mean = took // the first one
	}
	off := took - l.mean
	l.mean += off / 8
	l.spread += (max(off, -off) - l.spread) / 8
	l.span.Store(min(l.mean+max(3*l.spread, tardy), l.most))
}
