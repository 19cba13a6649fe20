package bridge

import (
	"sync"
	"time"

	"tidegate/internal/units"
)

// firstWindow is how many messages may be under way over a fresh connection,
// before anything is known of it.
const firstWindow = 8

// window is how many messages may be under way just now. It begins small and
// grows by one with each acknowledgement. A slow one halves it, and from then on
// it grows by one for as many acknowledgements as it is wide. What is under way
// when the connection is lost can arrive twice.
//
// The two streams share it: while both wait, live messages get what becomes free
// until they have their share, and the backlog gets the rest. As many places as
// live messages took lately are kept free of the backlog, and a few more, so that
// none of them need wait for an acknowledgement. Once there was a live message, the
// backlog gets no more than depth says.
type window struct {
	most  int
	share int           // of live messages, in percent
	slow  time.Duration // an acknowledgement that takes longer halves it
	idle  func()        // is called before somebody waits

	mu    sync.Mutex
	size  int
	quick bool // nothing was slow yet
	acked int  // acknowledgements since size changed last
	under [2]int
	waits [2]bool
	peaks [2]int           // the most live messages under way, in this round and the last
	round int              // acknowledgements until the next one
	last  stream           // that took a place last
	depth depth            // of the backlog
	room  [2]chan struct{} // each holds one token while there may be room
}

func newWindow(first, most int, share units.Percent, slow time.Duration) *window {
	return &window{
		most: most, share: int(share), slow: slow, idle: func() {}, size: min(first, most), quick: true, depth: depth{most: most},
		room: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
	}
}

// enter takes a place for a message of the stream, and waits for one. It returns
// false if done is first.
func (w *window) enter(done <-chan struct{}, of stream) bool {
	for !w.tryEnter(of) {
		w.idle()
		select {
		case <-w.room[of]:
		case <-done:
			return false
		}
	}
	return true
}

func (w *window) tryEnter(of stream) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.nudge(1 - of) // which may have waited for this one
	w.waits[of] = !w.free(of)
	if w.waits[of] {
		return false
	}
	w.under[of]++
	if of == live {
		w.depth.begin()
	}
	w.peaks[0] = max(w.peaks[0], w.under[live])
	w.last = of
	return true
}

// spare is the part of the window, one in so many places, that is kept free of the
// backlog beside what live messages took lately.
const spare = 32

// free reports whether the stream may take a place. The caller holds mu.
func (w *window) free(of stream) bool {
	left := w.size - w.under[live] - w.under[backlog]
	share := w.size * w.share / 100
	switch {
	case left <= 0:
		return false
	case share == 0 || share == w.size: // too small to be shared: in turn
		return !w.waits[1-of] || w.last != of
	case of == live:
		return w.under[live] < share || !w.waits[backlog]
	case w.waits[live] && w.under[live] < share:
		return false
	default:
		limit, batch := w.depth.of(w.size - min(share, max(w.peaks[0], w.peaks[1])+1+w.size/spare))
		room := limit - w.under[backlog]
		return room > 0 && (!w.waits[backlog] || room >= batch)
	}
}

// leave gives a place of the stream back, after the acknowledgement of what was sent
// then; zero if it needs none. The acknowledgement came now. Wake must follow, for several at once, so that what
// gets their places goes out together.
func (w *window) leave(of stream, sent, now time.Time) {
	w.mu.Lock()
	w.under[of]--
	if of == backlog && !sent.IsZero() {
		w.depth.acknowledged(now, sent, w.under[backlog], w.size)
	}
	if w.round--; w.round <= 0 {
		w.round, w.peaks = w.size, [2]int{w.under[live], w.peaks[0]}
	}
	w.adapt(!sent.IsZero() && now.Sub(sent) > w.slow)
	w.mu.Unlock()
}

// wake has those look again who wait for a place and can have one: a goroutine that
// wakes for nothing costs more than a message does.
func (w *window) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nudge(live)
	w.nudge(backlog)
}

// nudge is wake for one stream. The caller holds mu.
func (w *window) nudge(of stream) {
	if !w.waits[of] || !w.free(of) {
		return
	}
	select {
	case w.room[of] <- struct{}{}:
	default:
	}
}

// adapt changes the size. What was under way when it was halved is slow as well,
// and does not halve it again. The caller holds mu.
func (w *window) adapt(slow bool) {
	w.acked++
	switch {
	case slow && (w.quick || w.acked >= w.size):
		w.size, w.quick, w.acked = max(1, w.size/2), false, 0
	case !slow && w.size < w.most && (w.quick || w.acked >= w.size):
		w.size, w.acked = w.size+1, 0
	}
}

// load returns how many messages are under way, and how many may be.
func (w *window) load() (under, size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.under[live] + w.under[backlog], w.size
}

// slowAfter is how old an acknowledgement is that narrows the window, so that a
// link which is only slow is not taken for stalled.
func slowAfter(stall time.Duration) time.Duration { return stall / 4 }
