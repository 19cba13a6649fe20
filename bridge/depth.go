package bridge

import "time"

// few is how much of the backlog may be under way at least, and is while base is
// measured.
const few = firstWindow

// slack is how much longer an acknowledgement may take in any case, so that a server
// without a round trip has enough to do.
const slack = 200 * time.Microsecond

// remeasure is how many rounds a base holds, or the first one.
const (
	remeasure      = 128
	remeasureFirst = 8
)

// depth is how much of the backlog may be under way beside live messages. What is more
// than link and server can have in hand only stands in a queue, and live messages
// behind it. So acknowledgements may take half as long again as they do with few under
// way: then a live message takes about twice as long as without a backlog, at most.
//
// It adapts once a round, which is as many acknowledgements as may be under way, of
// what was sent since the last. With a backlog there always is a queue, and how long an
// acknowledgement takes without one does not show. So now and then the backlog waits
// until few are under way, and that is measured with these. Of the last two measurements
// the shorter one holds: what gets in the way of one is seldom there at the next.
type depth struct {
	most    int           // what the window may be
	limit   int           // 0: nothing was live yet, and the backlog may have all
	base    time.Duration // what an acknowledgement takes with few under way
	last    time.Duration // what it took when that was measured last; 0: never
	measure bool          // base is measured in this round
	left    int           // rounds until it is
	since   time.Time     // the round began; zero: it does when few are under way
	sum     time.Duration // of what n acknowledgements took
	n       int
}

// begin has the depth adapt, because there is something live.
func (d *depth) begin() {
	if d.limit == 0 {
		d.limit, d.measure = d.most, true
	}
}

// of returns how much of the backlog may be under way if the window lets most of it, and
// how many places must be free for who has found none: while there is a queue, a third,
// which is one write instead of many and does not leave the server without work.
func (d *depth) of(most int) (limit, batch int) {
	switch {
	case d.limit == 0 || most <= min(d.limit, few):
		return most, 1
	case d.measure:
		return few, 1
	case d.limit >= most:
		return most, 1
	default:
		return d.limit, d.limit / 3
	}
}

// acknowledged takes note of an acknowledgement of what was sent then. Under is how much
// of the backlog still is under way, size that of the window.
func (d *depth) acknowledged(now, sent time.Time, under, size int) {
	switch {
	case d.limit == 0 || size <= few:
		return
	case d.since.IsZero():
		if under <= few {
			d.since = now
		}
		return
	case sent.Before(d.since):
		return
	}
	d.sum += now.Sub(sent)
	if d.n++; d.n >= min(d.limit, size) || d.measure && d.n >= few {
		d.round(now)
	}
}

// round ends one. The limit goes up or down by as much as acknowledgements took less or
// more time than they may.
func (d *depth) round(now time.Time) {
	took := d.sum / time.Duration(d.n)
	if d.measure {
		d.measured(took)
	}
	most := d.base + d.base/2 + slack
	change := min(max(float64(most)/float64(took), 0.5), 2)
	d.limit = min(max(int(float64(d.limit)*change), few), d.most)
	if d.left--; d.limit <= few {
		d.left, d.last = 0, 0 // the base may be wrong, or the link another one
	}
	d.measure, d.since = d.left <= 0, now
	if d.measure {
		d.since = time.Time{}
	}
	d.sum, d.n = 0, 0
}

// measured takes note that an acknowledgement took so long with few under way.
func (d *depth) measured(took time.Duration) {
	d.base, d.left = took, remeasureFirst
	if d.last > 0 {
		d.base, d.left = min(took, d.last), remeasure
	}
	d.last = took
}
