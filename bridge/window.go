package bridge

import (
	"sync"
	"time"
)

// firstWindow is how many messages may be under way over a fresh connection,
// before anything is known of it.
const firstWindow = 8

// window is how many messages may be under way just now. It begins small and
// grows by one with each acknowledgement. A slow one halves it, and from then on
// it grows by one for as many acknowledgements as it is wide. What is under way
// when the connection is lost can arrive twice.
type window struct {
	most int

	mu    sync.Mutex
	size  int
	quick bool // nothing was slow yet
	acked int  // acknowledgements since size changed last
	under int
	room  chan struct{} // holds one token while there may be room
}

func newWindow(first, most int) *window {
	return &window{most: most, size: min(first, most), quick: true, room: make(chan struct{}, 1)}
}

// enter takes a place, and waits for one. It returns false if done is first.
func (w *window) enter(done <-chan struct{}) bool {
	for !w.tryEnter() {
		select {
		case <-w.room:
		case <-done:
			return false
		}
	}
	return true
}

func (w *window) tryEnter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.under >= w.size {
		return false
	}
	w.under++
	return true
}

// leave gives a place back, after an acknowledgement that was slow or was not.
func (w *window) leave(slow bool) {
	w.mu.Lock()
	w.under--
	w.adapt(slow)
	w.mu.Unlock()
	select {
	case w.room <- struct{}{}:
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
	return w.under, w.size
}

// slowAfter is how old an acknowledgement is that narrows the window, so that a
// link which is only slow is not taken for stalled.
func slowAfter(stall time.Duration) time.Duration { return stall / 4 }
