package bridge

import "time"

// few is how many messages may be under way while it is measured how long an
// acknowledgement takes at the least. Never is less of the backlog under way.
const few = firstWindow

// haste is how much longer than that an acknowledgement may take, beside half as
// long again, so that a server without a round trip gets enough at once to be busy.
const haste = 500 * time.Microsecond

// remeasure is after how many rounds that is measured anew.
const remeasure = 128

// depth is how much of the backlog may be under way, so that live messages do not
// wait behind it for long: what is more than link and server can have in hand only
// stands somewhere in a queue. So acknowledgements may take half as long again as
// with few under way, and a live message takes twice as long at most as without a backlog.
//
// It goes round by round. A round is as many acknowledgements, of what was sent since it began, as
// may be under way. Now and then the backlog waits until few are under way, and
// it is measured how long these take, as nothing else shows while there always is a backlog.
type depth struct {
	most    int
	limit   int           // 0: nothing was live yet, and the backlog may have all
	base    time.Duration // what an acknowledgement takes with few under way
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

// of returns how much of the backlog may be under way if it may be most at most, and
// for how many places who has found none waits, so that they are used in one go.
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

// acknowledged takes note of an acknowledgement of what was sent then. So much of the
// backlog is still under way, and size is the window's.
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

// round ends one: what is under way goes up or down as much as what acknowledgements
// took is below or above what they may take.
func (d *depth) round(now time.Time) {
	took := d.sum / time.Duration(d.n)
	if d.measure || d.limit <= few {
		d.base, d.left = took, remeasure
	}
	most := d.base + d.base/2 + haste
	change := min(max(float64(most)/float64(took), 0.5), 2)
	d.limit = min(max(int(float64(d.limit)*change), few), d.most)
	d.left--
	d.measure, d.since = d.left <= 0, now
	if d.measure {
		d.since = time.Time{}
	}
	d.sum, d.n = 0, 0
}
