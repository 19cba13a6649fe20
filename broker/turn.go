package broker

// turn is what one goroutine does between two waits. It gathers what has to be
// done once no lock is held: answers that are due, sessions that may send more or
// are owed too much, connections to flush. A goroutine ends its turn before it waits for anything,
// so nothing gathered is ever left behind.
type turn struct {
	b     *Broker
	done  <-chan struct{} // ends a wait for memory; nil: never
	now   int64           // broker time when the turn began, in nanoseconds
	kept  []waiter
	lost  []waiter // to be told when the ledger is on disk
	pump  []*session
	trim  []*session
	fill  []*session
	flush []consumer

	errands []errand // of shared subscriptions

	scratch []byte // for a body that nobody keeps
}

// consumer is who reads a session: a network connection or an inbox.
type consumer interface {
	// takes reports whether a packet of so many bytes is not too large for the
	// consumer.
	takes(size int) bool

	// deliver hands over a message. It is called with the session's lock held
	// and does no I/O. It returns whether flush has to be called.
	deliver(it item, now int64, dup bool) (flush bool)

	// release hands over a PUBREL, likewise.
	release(id uint16) (flush bool)

	// full reports that limit bytes wait to be written; the consumer pumps its
	// session when that has changed.
	full(limit int) bool

	// flush does what deliver has left to do, without blocking.
	flush(t *turn)

	// end makes the consumer go because of why. It does not wait for that.
	end(why error)
}

// begin starts the next turn.
func (t *turn) begin() { t.now = t.b.now() }

// end does all that the turn has gathered, and what comes of it.
func (t *turn) end() {
	for {
		t.tell()
		switch {
		case len(t.errands) > 0:
			pop(&t.errands).run(t)
		case len(t.pump) > 0:
			s := pop(&t.pump)
			s.mu.Lock()
			s.pump(t)
			s.mu.Unlock()
		case len(t.trim) > 0:
			s := pop(&t.trim)
			s.trim(t)
		case len(t.fill) > 0:
			s := pop(&t.fill)
			s.refill(t)
		case len(t.flush) > 0:
			c := pop(&t.flush)
			c.flush(t)
		default:
			if cap(t.scratch) > maxScratch {
				t.scratch = nil
			}
			return
		}
	}
}

// maxScratch is what a turn may keep until the next.
const maxScratch = 1 << 10

// touch has c flushed when no lock is held. It is mostly the one of before.
func (t *turn) touch(c consumer) {
	if last := len(t.flush) - 1; last < 0 || t.flush[last] != c {
		t.flush = append(t.flush, c)
	}
}

// tell tells those whose promise is kept, in the order in which it was, and has the
// others told later.
func (t *turn) tell() {
	for i := 0; i < len(t.kept); i++ {
		w := t.kept[i]
		t.kept[i] = waiter{}
		w.tell(t)
	}
	t.kept = t.kept[:0]
	if len(t.lost) > 0 {
		t.b.commit.tellLost(t.lost)
		clear(t.lost)
		t.lost = t.lost[:0]
	}
}

func pop[T any](list *[]T) T {
	last := len(*list) - 1
	v := (*list)[last]
	var zero T
	(*list)[last] = zero
	*list = (*list)[:last]
	return v
}

func (w waiter) tell(t *turn) {
	if w.done != nil {
		w.done(nil)
		return
	}
	w.c.fulfil(t, w.turn)
}
