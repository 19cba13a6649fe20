package bridge

import "time"

// handful is how many acknowledgements are worth waking up for. A server that is near
// sends each alone, and to be woken for each costs both sides as much as the message.
// So the goroutine that reads sleeps until there are so many.
type handful struct {
	since time.Time
	came  int     // since then
	rate  float64 // a second, of those before
}

const (
	// gathering is how long it takes until there is a handful. What is slower, as behind
	// a network with a window of 250, goes one by one: there a round trip would take that much longer.
	gathering = 150 * time.Microsecond

	// sample is how many acknowledgements tell their rate.
	sample = 128

	// handfulTime is for a handful that does not come together.
	handfulTime = time.Millisecond
)

// took notes an acknowledgement.
func (h *handful) took() { h.came++ }

// of returns how many they are, if so many messages are owed an acknowledgement: a quarter at
// most, so that the server never waits for us. They are a power of two, since the socket
// has to be told of each change.
func (h *handful) of(owed int, now time.Time) int {
	if h.came >= sample {
		h.rate = float64(h.came) / now.Sub(h.since).Seconds()
		h.came = 0
	}
	if h.came == 0 {
		h.since = now
	}
	most := min(owed/4, int(h.rate*gathering.Seconds()))
	n := 1
	for n*2 <= most {
		n *= 2
	}
	return n
}
