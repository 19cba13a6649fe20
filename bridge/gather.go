package bridge

import "sync"

// maxGathered is how many bytes may wait to be written before whoever has more waits
// as well.
const maxGathered = 16 << 10

// gather makes one write of the PUBLISH packets that go out in one go. The clients
// write each alone, which costs a system call, and over most networks a datagram.
// Whoever publishes calls flush before it waits for anything. Every other packet goes
// out at once, behind what is there.
//
// Whoever has something to write writes it, and what others bring meanwhile. No
// lock is held then.
type gather struct {
	write func([]byte) error

	mu      sync.Mutex
	bytes   []byte // that wait
	spare   []byte // a buffer for what comes next
	due     bool   // bytes are to be written
	writing bool
	written chan struct{} // closed when the write under way has ended; nil: nobody waits for that
	failed  error         // of a write, which may have stopped in the middle of a packet, so that nothing can follow
}

// flush writes what is there.
func (g *gather) flush() error {
	g.mu.Lock()
	g.due = g.due || len(g.bytes) > 0
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
	return g.wait()
}

// settle waits until nobody writes, and all that was due is written or has failed.
func (g *gather) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.writing {
		written := g.wait()
		g.mu.Unlock()
		<-written
		g.mu.Lock()
	}
}

// wait returns what is closed when the write under way has ended. The caller holds mu.
func (g *gather) wait() <-chan struct{} {
	if g.written == nil {
		g.written = make(chan struct{})
	}
	return g.written
}

// put takes a packet. Drive must follow.
func (g *gather) put(packet []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil {
		return
	}
	g.bytes = append(g.bytes, packet...)
	publish := len(packet) > 0 && packet[0]>>4 == typePublish
	g.due = g.due || !publish || len(g.bytes) >= maxGathered
}

// drive writes what is due, unless somebody does already, and returns why nothing is
// written any more.
func (g *gather) drive() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.failed == nil && !g.writing && g.due && len(g.bytes) > 0 {
		g.failed = g.writeLocked()
	}
	return g.failed
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
