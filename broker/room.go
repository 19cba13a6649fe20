package broker

import (
	"fmt"
	"syscall"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// storeBounds are what the store may take of the disk, for all sessions together.
type storeBounds struct {
	maxSize int64 // of the data directory; 0: not bounded
	minFree int64 // what others are to find free on its file system
}

// diskRoom is what the committer knows of the disk. While there is none no message is
// written: positions, losses and sessions are, which need no new space and let
// queues drain. The caller of its methods is who commits.
type diskRoom struct {
	bounds  storeBounds
	refused bool   // the last try to write messages has failed
	next    int64  // when to try again, if refused
	asked   uint64 // how often the store had been compacted when a queue was last told to give something up; 0: none was
}

// margin is how much before a bound queues begin to give up, so that messages need
// not wait until space has come back, which it does in whole files.
func margin(bound int64) int64 { return bound / 16 }

// over returns how many bytes have to be given up, and why no messages may be
// written, if so. Where the system does not tell what is free, only the size counts.
func (c *committer) over(t *turn) (bytes int64, reason error) {
	b := c.disk.bounds
	sp, err := c.store.Space()
	if used := sp.Used(); b.maxSize > 0 {
		bytes = used - b.maxSize + margin(b.maxSize)
		if used > b.maxSize && t.b.holds() { // else it is the newest file, which goes when another one is begun
			reason = fmt.Errorf("the data directory holds %s, store.max_size is %v", inMiB(used), units.Size(b.maxSize))
		}
	}
	if b.minFree > 0 && err == nil {
		bytes = max(bytes, b.minFree+margin(b.minFree)-sp.Free)
		if sp.Free < b.minFree {
			reason = b.tooLittle(sp.Free)
		}
	}
	return bytes, reason
}

// tooLittle says that free bytes are. If there are none, it says what a write would.
func (b storeBounds) tooLittle(free int64) error {
	err := fmt.Errorf("the file system has %s left, store.min_free is %v", inMiB(free), units.Size(b.minFree))
	if free <= 0 {
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	return err
}

func inMiB(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/float64(units.MiB)) }

// admit returns why no messages may be written now, nil if they may. If the store
// is over its bounds the session that has the most on disk gives some of it up, by
// its policy; and if that is not enough after the store was compacted, the next one.
func (c *committer) admit(t *turn) error {
	c.mu.Lock()
	refused, next, before := c.disk.refused, c.disk.next, c.failed
	c.mu.Unlock()
	if refused && t.now < next {
		return before
	}
	bytes, reason := c.over(t)
	if was := c.tight.Swap(reason != nil); was && reason == nil {
		t.b.reopen()
	}
	if bytes <= 0 {
		c.disk.asked = 0
		return nil
	}
	if n := c.store.Compactions() + 1; c.disk.asked != n {
		c.disk.asked = n
		t.b.giveUp(t, bytes)
	} else {
		c.store.CompactSoon()
	}
	return reason
}

// withhold notes what became of a try to commit. refused says that all was written
// but messages, which are tried again after a while.
func (c *committer) withhold(t *turn, err error, refused bool) {
	c.mu.Lock()
	if refused && (!c.disk.refused || t.now >= c.disk.next) {
		c.disk.next = t.now + retryAfter
	}
	c.disk.refused = refused
	c.mu.Unlock()
	c.report(err)
}

// reopen lets those go on who were refused only because the store was full.
func (b *Broker) reopen() {
	for _, s := range b.durables() {
		s.mu.Lock()
		s.gauge()
		s.mu.Unlock()
	}
}

// holds reports whether any queue has something on disk.
func (b *Broker) holds() bool {
	for _, s := range b.durables() {
		b.commit.mu.Lock()
		n := s.stored.n
		b.commit.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

// durables returns all sessions that have a queue on disk.
func (b *Broker) durables() (list []*session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.queues {
		list = append(list, s)
	}
	return list
}

// giveUp has the session that has the most on disk, of those whose policy lets them,
// give up so many bytes.
func (b *Broker) giveUp(t *turn, bytes int64) {
	var (
		most *session
		held int64
	)
	for _, s := range b.durables() {
		if n := s.mayGive(); n > held {
			most, held = s, n
		}
	}
	if most == nil {
		return
	}
	most.mu.Lock()
	defer most.mu.Unlock()
	most.excess = bytes
	most.wantTrim(t)
}

// mayGive returns how many bytes the session has on disk, 0 if its policy does not
// let it give them up.
func (s *session) mayGive() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.bounds.Overflow != mqtt.DropOldest && s.bounds.Overflow != mqtt.Thin {
		return 0
	}
	s.b.commit.mu.Lock()
	defer s.b.commit.mu.Unlock()
	return s.stored.bytes
}
