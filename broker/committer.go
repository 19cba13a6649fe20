package broker

import (
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/mqtt"
	"tidegate/store"
)

// How long the committer waits. What nobody waits for may take a second, which
// spares the card; a failed commit is tried again after a second.
const (
	lazy       = int64(time.Second)
	retryAfter = int64(time.Second)
	never      = int64(1<<63 - 1)
)

// maxPend bounds how many records are remembered behind one that still waits.
const maxPend = 1 << 15

// committer is the only writer of the store. It gathers everything dirty into
// one commit: messages, positions of queues, packet identifiers, sessions,
// retained messages.
//
// order is held from the moment a record gets its place in the journal until all
// its owners have it, so a session's order is the journal's. mu is a leaf: no
// other lock is taken under it.
type committer struct {
	store    *store.Store
	memory   *budget
	log      *slog.Logger
	now      func() int64
	line     func() time.Time
	save     func(*store.Batch) error // store.Commit
	interval int64                    // commit_interval
	lead     lead
	flash    *flash
	disk     diskRoom    // refused and next are guarded by mu
	tight    atomic.Bool // the store is over its bounds
	maxBytes int         // of records that wait, before publishers are held back
	wake     chan struct{}

	order sync.Mutex

	mu        sync.Mutex
	pend      queue[*record] // in the order of seq; dropped ones are taken out when they reach the front
	bytes     int            // of pend, without dropped ones
	last      uint64         // the newest seq given out
	committed uint64         // all up to here are on disk or dropped
	due       int64          // no later than this the committer has to look again
	urgent    bool           // somebody is held up until the next commit: no budget may delay it
	rowsDue   int64          // when all that is not a record has to be on disk
	room      chan struct{}  // closed when bytes are below maxBytes again; nil: they are
	dead      int            // dropped ones in pend
	busy      bool           // a commit is under way
	rows      rows
	writing   int // size of those in the commit under way
	weight    int // what the budget was told of both
	marks     rows
	mirror    map[string]uint64 // hash of what is marked for sessions and shares, by key
	seed      maphash.Seed
	orphans   []uint32   // queues on disk that belong to no session
	dirty     []*session // whose position has changed
	then      []func(*turn, error)
	closed    bool
	failed    error // of the last commit; nil: it went well
	losses    *lossLedger
	rebuilt   uint64 // what store.StateRebuilt said last; only whoever commits uses it
	ended     int64  // when the last commit had ended; likewise
}

// soon is when a commit of what somebody waits for from now on is to begin, so that
// it ends within commit_interval.
func (c *committer) soon(now int64) int64 { return now + c.interval - c.lead.span.Load() }

// begin gives a message its place in the journal. The caller holds order and
// calls settle when all owners are noted.
func (c *committer) begin(b body) *record {
	r := &record{body: b, left: 1, held: 1, due: never}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	r.seq = c.last
	c.pend.push(r)
	c.bytes += r.size()
	return r
}

// owe notes that r is owed to s at the latest by due. The caller holds s.mu.
func (c *committer) owe(r *record, s *session, it *item, due int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := owner{s: s, tag: newTag(it), relaxed: s.bounds.Relaxed}
	r.owners = append(r.owners, o)
	r.left++
	r.due = min(r.due, due)
	if !o.relaxed {
		r.held++
	}
	if !o.relaxed && s.inbox {
		r.inboxes++
	}
}

// settle ends what begin began. w, if any, is told when the promise is kept.
func (c *committer) settle(t *turn, r *record, w waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.c != nil || w.done != nil {
		r.waiters = append(r.waiters, w)
	}
	r.left--
	if r.left == 0 {
		c.drop(t, r)
		c.trim()
		return
	}
	c.letGo(t, r)
	if r.inboxes == 0 && !r.must {
		c.openGate(t, r)
	}
	if c.bytes >= c.maxBytes/2 || c.pend.len() >= maxPend {
		r.due = t.now
		c.hurryLocked()
	}
	c.dueBy(r.due)
}

// wait adds somebody to be told when r is kept. It returns false if r is kept
// already.
func (c *committer) wait(r *record, w waiter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.state == committed || r.state == dropped || r.held == 0 {
		if r.lost {
			c.alsoBy(c.soon(c.now()), w.stored)
		}
		return r.lost
	}
	r.waiters = append(r.waiters, w)
	return true
}

// gate registers s to be pumped when r's gate opens. It returns false if it is
// open. The caller holds s.mu.
func (c *committer) gate(r *record, s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.open.Load() {
		return false
	}
	if !slices.Contains(r.gated, s) {
		r.gated = append(r.gated, s)
	}
	return true
}

// acked notes that s has acknowledged r. It reports whether the record is, or
// is about to be, on disk, so that the acknowledgement has to get there too. The
// caller holds s.mu.
func (c *committer) acked(t *turn, r *record, s *session) (onDisk bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	onDisk = r.state == writing || r.state == committed
	for i := range r.owners {
		if o := &r.owners[i]; o.s == s && !o.done {
			c.release(t, r, o)
			c.trim()
			break
		}
	}
	return onDisk
}

// release takes o off those who are owed r. If it was the last, and no commit
// under way has r, the disk is not needed any more. The caller holds mu.
func (c *committer) release(t *turn, r *record, o *owner) {
	o.done = true
	r.left--
	if !o.relaxed {
		c.letGo(t, r)
	}
	if !o.relaxed && o.s.inbox {
		r.inboxes--
	}
	if r.inboxes == 0 && !r.must {
		c.openGate(t, r)
	}
	if r.left == 0 && (r.state == waiting || r.state == writing && !c.busy) {
		c.drop(t, r)
	}
}

// letGo notes one less for whom the promise is made. When there is none, whoever
// waits need not wait for the others. The caller holds mu.
func (c *committer) letGo(t *turn, r *record) {
	if r.held--; r.held == 0 {
		c.tell(t, r)
	}
}

// tell tells whoever waits for r that it is safe, or if a queue has lost it, at the
// end of the turn has that done when the ledger is on disk: what was acknowledged is
// delivered, queued or in the ledger, whenever a crash comes. The caller holds mu.
func (c *committer) tell(t *turn, r *record) {
	if r.lost {
		t.lost = append(t.lost, r.waiters...)
	} else {
		t.kept = append(t.kept, r.waiters...)
	}
	r.waiters = nil
}

// tellLost tells the list when what the ledger has by now is on disk.
func (c *committer) tellLost(list []waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range list {
		c.alsoBy(c.soon(c.now()), w.stored)
	}
}

// lost notes that a queue of s does not get r, which the ledger has at the end of
// the turn.
func (c *committer) lost(r *record, s *session) {
	if s.bounds.Relaxed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.lost = true
}

// drop keeps the promise without the disk. The caller holds mu.
func (c *committer) drop(t *turn, r *record) {
	r.state = dropped
	c.dead++
	c.keep(t, r)
}

// keep tells everybody who waits for r. The caller holds mu.
func (c *committer) keep(t *turn, r *record) {
	c.bytes -= r.size()
	c.tell(t, r)
	c.openGate(t, r)
	r.body, r.owners = body{}, nil
	c.ease()
}

// ease lets publishers go on that were held back. The caller holds mu.
func (c *committer) ease() {
	if c.room != nil && c.bytes < c.maxBytes/2 && c.roomy() {
		close(c.room)
		c.room = nil
	}
}

// openGate lets the items that wait for r go. The caller holds mu.
func (c *committer) openGate(t *turn, r *record) {
	if r.open.Swap(true) {
		return
	}
	t.pump = append(t.pump, r.gated...)
	r.gated = nil
}

// trim takes kept records off the front of pend, and all dropped ones when they
// have become the most. The caller holds mu.
func (c *committer) trim() {
	for c.pend.len() > 0 {
		r := *c.pend.front()
		if r.state == waiting || r.state == writing {
			break
		}
		if r.state == dropped {
			c.dead--
		}
		c.committed = c.pend.pop().seq
	}
	if c.dead > 64 && c.dead > c.pend.len()/2 {
		c.pend.keep(func(r *record) bool { return r.state != dropped })
		c.dead = 0
	}
}

// dueBy makes the committer look no later than when. The caller holds mu.
func (c *committer) dueBy(when int64) {
	if when >= c.due {
		return
	}
	c.due = when
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// hurry makes the next commit urgent, because memory or a consumer's window is held
// up until then.
func (c *committer) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hurryLocked()
}

func (c *committer) hurryLocked() {
	if c.urgent {
		return
	}
	c.urgent = true
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// alsoBy notes that something which is not a record has to be on disk by when,
// and what to do then. The caller holds mu.
func (c *committer) alsoBy(when int64, then func(*turn, error)) {
	if then != nil {
		c.then = append(c.then, then)
	}
	c.rowsDue = min(c.rowsDue, when)
	c.dueBy(when)
}

// absent makes everything that s is owed due, now that it is gone. The caller
// holds s.mu.
func (c *committer) absent(s *session, due int64) {
	c.eachOwed(s, func(r *record, _ *owner) bool {
		r.due = min(r.due, due)
		c.dueBy(r.due)
		return true
	})
}

// forget takes s off everything it is owed, because the session has ended. The
// caller holds s.mu.
func (c *committer) forget(t *turn, s *session) {
	c.eachOwed(s, func(r *record, o *owner) bool {
		r.lost = r.lost || !o.relaxed
		c.release(t, r, o)
		return true
	})
}

// eachOwed calls fn, under mu, for the records that s is owed and that are not on
// disk, in order, until fn returns false. If asOf is given and the journal has
// grown beyond it, nothing is called and the result is false.
func (c *committer) eachOwed(s *session, fn func(*record, *owner) bool, asOf ...uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(asOf) > 0 && asOf[0] != c.committed {
		return false
	}
	for i := range c.pend.len() {
		r := *c.pend.at(i)
		if r.state != waiting && r.state != writing {
			continue
		}
		owners := r.owners // fn may be the last that needs them
		for j := range owners {
			if o := &owners[j]; o.s == s && !o.done && !fn(r, o) {
				return true
			}
		}
	}
	return true
}

// committedSeq returns the place in the journal up to which everything is on
// disk or needs not be.
func (c *committer) committedSeq() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.committed
}

// lastSeq returns the newest place in the journal that was given out.
func (c *committer) lastSeq() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// notBefore makes sure that no place in the journal up to seq is given out
// again. Positions on disk may be ahead of the journal, whose newest messages
// were acknowledged before they were written.
func (c *committer) notBefore(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, seq)
	c.committed = c.last
}

// unstore notes that s is owed n records less of those on disk, with so many bytes.
func (c *committer) unstore(s *session, n, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.stored.add(-n, -bytes)
	s.stored = amount{max(0, s.stored.n), max(0, s.stored.bytes)}
}

// also makes the committer look at everything else by when.
func (c *committer) also(when int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alsoBy(when, nil)
}

// weigh tells the budget what the rows take. The caller holds mu.
func (c *committer) weigh() {
	weight := c.rows.size + c.writing
	c.memory.add(forStore, weight-c.weight)
	c.weight = weight
}

// mark notes a row that goes with the records, likewise.
func (c *committer) mark(key, value []byte, due int64, then func(*turn, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks.put(store.Row{Key: key, Value: value})
	c.alsoBy(due, then)
}

// moved notes that the position of s has changed. The caller holds s.mu.
func (c *committer) moved(s *session, due int64, then func(*turn, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.movedLocked(s)
	c.alsoBy(due, then)
}

func (c *committer) movedLocked(s *session) {
	if !s.moved {
		s.moved = true
		c.dirty = append(c.dirty, s)
	}
}

// crowded reports whether a publisher has to be held back.
func (c *committer) crowded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed || !c.roomy()
}

// maxThen bounds how many answers may wait for the disk.
const maxThen = 1 << 14

// roomy reports whether there is memory for more that waits for the disk. The
// caller holds mu.
func (c *committer) roomy() bool { return c.bytes < c.maxBytes && len(c.then) < maxThen }

// waitRoom holds a publisher back while the records that wait for the disk use
// up their memory. It fails when done is closed, or the committer has ended.
func (c *committer) waitRoom(done <-chan struct{}) error {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return mqtt.ErrClosed
		}
		if c.roomy() {
			c.mu.Unlock()
			return nil
		}
		c.hurryLocked()
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-done:
			return mqtt.ErrClosed
		}
	}
}
