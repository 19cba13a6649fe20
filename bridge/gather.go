package bridge

import "sync"

// maxGathered is how many bytes may wait to be written before whoever has more waits
// as well.
const maxGathered = 16 << 10

// gather makes one write of the PUBLISH packets that go out in one go. Paho writes
// each alone, which costs a system call, and over most networks a datagram. Whoever
// publishes calls expect before, and flush before it waits for anything. Paho
// hands packets on from goroutines of its own, later than that: the last one that was
// expected then takes all with it. Every other packet does so at once.
//
// Whoever has something to write writes it, and what others bring meanwhile. No
// lock is held then.
type gather struct {
	write func([]byte) error

	mu       sync.Mutex
	bytes    []byte // that wait
	spare    []byte // a buffer for what comes next
	expected uint64 // PUBLISH packets that paho was handed ...
	came     uint64 // ... and has handed on
	asked    uint64 // so many were expected when flush was called last
	due      bool   // bytes are to be written
	writing  bool
	written  chan struct{} // closed when the write under way has ended; nil: nobody waits for that
}

// expect announces one PUBLISH. Flush must follow.
func (g *gather) expect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expected++
}

// flush writes all that was expected, as soon as it has come.
func (g *gather) flush() error {
	g.mu.Lock()
	g.asked = g.expected
	g.due = g.due || g.came >= g.expected
	g.mu.Unlock()
	return g.drive()
}

// room waits until there is room for one packet more.
func (g *gather) room() {
	for wait := g.crowded(); wait != nil; wait = g.crowded() {
		<-wait
	}
}

// crowded returns what to wait for if there is no room.
func (g *gather) crowded() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.writing || len(g.bytes) < maxGathered {
		return nil
	}
	if g.written == nil {
		g.written = make(chan struct{})
	}
	return g.written
}

// put takes a packet of paho. Drive must follow.
func (g *gather) put(packet []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes = append(g.bytes, packet...)
	if len(packet) > 0 && packet[0]>>4 == typePublish {
		if g.came++; g.came > g.expected { // nobody calls flush for it
			g.expected, g.asked = g.came, g.came
		}
		g.due = g.due || g.came == g.asked || len(g.bytes) >= maxGathered
	} else {
		g.due = true
	}
}

// drive writes what is due, unless somebody does already, and returns the first error.
func (g *gather) drive() (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.writing && g.due && len(g.bytes) > 0 {
		failed := g.writeLocked()
		if err == nil {
			err = failed
		}
	}
	return err
}

// writeLocked writes what is there, without the lock.
func (g *gather) writeLocked() error {
	b := g.bytes
	g.bytes, g.spare, g.due, g.writing = g.spare[:0], nil, false, true
	g.mu.Unlock()
	err := g.write(b)
	g.mu.Lock()
	if g.writing = false; cap(b) <= 2*maxGathered {
		g.spare = b
	}
	if g.written != nil {
		close(g.written)
		g.written = nil
	}
	return err
}
