package broker

import (
	"sync"
	"time"
)

// Strangers can make the broker log as often as they can connect, and a log may be
// on the card that is to last for years. So a line of that kind is written at most
// so often in so long.
const (
	hushAfter = 20
	hushFor   = int64(time.Minute)
)

// hush counts lines of one kind. Its mutex is a leaf.
type hush struct {
	mu    sync.Mutex
	ends  int64 // broker time when the minute is over
	lines int   // in it, written or not
}

// speak reports whether the next line is to be written, and how many before it
// were not.
func (h *hush) speak(now int64) (ok bool, kept int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now >= h.ends {
		kept = max(0, h.lines-hushAfter)
		h.ends, h.lines = now+hushFor, 0
	}
	h.lines++
	return h.lines <= hushAfter, kept
}
