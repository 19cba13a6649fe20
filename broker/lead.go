package broker

import "sync/atomic"

// lead is how long before commit_interval is over the commit of what somebody waits
// for begins, so that it ends in time: the mean of what commits took lately, and
// twice the mean deviation from it. What they took is counted from when they were
// due, so that a processor which comes late to a timer counts, too.
//
// It is half of commit_interval at most: on a disk that takes longer commits would
// only get smaller.
type lead struct {
	most int64
	span atomic.Int64 // nanoseconds

	mean, spread int64 // only whoever commits uses them
}

// note notes what a commit took.
func (l *lead) note(took int64) {
	took = min(max(took, 0), 2*l.most)
	off := took - l.mean
	l.mean += off / 8
	l.spread += (max(off, -off) - l.spread) / 8
	l.span.Store(min(l.mean+2*l.spread, l.most))
}
