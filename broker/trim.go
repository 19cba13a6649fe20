package broker

import (
	"cmp"
	"math"
	"slices"

	"tidegate/mqtt"
)

// A queue that is over its bounds gives up messages, from the oldest on that was
// never sent. They stand in the journal, or are on their way there; what the
// consumer's connection has is not touched. So there is one way to give up,
// whether the consumer is absent or slow.

// pass is one walk over what a session is owed, from the oldest on that may be
// given up.
type pass struct {
	s      *session
	t      *turn
	from   uint64  // it begins behind this place
	at     uint64  // everything up to here was looked at
	upTo   uint64  // everything up to here was on disk when the pass looked
	before cuts    // as they were
	acked  []acked // of what lies behind from, delivered past it
	live   uint64  // nothing up to here is on its way past the backlog

	judge  func(*item) fateOf // what becomes of a message
	level  uint8              // of what was looked at, afterwards
	looked int64              // bytes of it that were owed
	left   int64              // ... and still are
	ended  bool               // judge has said that it is enough
	next   int64              // when the first message that stays is too old; never: not known

	lost    amount // also what never got to the disk
	onDisk  amount // of lost
	rows    map[lossKey]amount
	filters []string // of the session, in their order
	topic   string   // the last one of a message that was lost ...
	filter  string   // ... and its filter
}

// fateOf is what judge says about a message: the reason to lose it, stays or
// enough.
type fateOf string

const (
	stays  fateOf = "stays"  // it is still owed, and the pass goes on
	enough fateOf = "enough" // the pass ends before it
)

// over returns why the session has to give something up, and how much; "" if it
// need not. The caller holds mu.
func (s *session) over() (reason string, much amount) {
	q := &s.bounds
	if !s.durable() || q.Overflow != mqtt.DropOldest && q.Overflow != mqtt.Thin {
		return "", much
	}
	if n := s.owed.Load(); q.MaxMessages > 0 && n > q.MaxMessages {
		reason, much.n = lostCount, n-q.MaxMessages+slack(q.MaxMessages, maxSlackMessages)
	}
	if q.MaxDisk > 0 && s.bytes > q.MaxDisk {
		reason, much.bytes = lostDisk, s.bytes-q.MaxDisk+slack(q.MaxDisk, maxSlackBytes)
	}
	if s.excess > much.bytes {
		reason, much.bytes = lostStore, s.excess
	}
	return reason, much
}

// full returns why there is no room for one more message, "" if there is. The
// caller holds mu.
func (s *session) full() (reason string) {
	q := &s.bounds
	switch {
	case q.MaxMessages > 0 && s.owed.Load() >= q.MaxMessages:
		return lostCount
	case q.MaxDisk > 0 && s.bytes >= q.MaxDisk:
		return lostDisk
	case s.b.commit.tight.Load() && (s.link == nil || s.behind):
		return lostStore
	}
	return ""
}

// slack is how much more room is made than is needed, so that it is not made for
// each message: a sixteenth.
func slack(bound, most int64) int64 { return min(bound/16, most) }

const (
	maxSlackMessages = 4096
	maxSlackBytes    = 4 << 20
)

// wantTrim has the session give up what is over its bounds, or too old, at the end of the
// turn. The caller holds mu.
func (s *session) wantTrim(t *turn) {
	if s.trims {
		return
	}
	if reason, _ := s.over(); reason != "" && s.stuck != s.tail || s.sweeps {
		s.trims = true
		t.trim = append(t.trim, s)
	}
}

// trim gives up what is over the bounds.
func (s *session) trim(t *turn) {
	for goOn := true; goOn; {
		p := s.beginPass(t)
		if p == nil {
			return
		}
		err := p.readDisk()
		goOn = s.endPass(p) && err == nil
	}
}

// beginPass returns a pass that has to be made, or nil. Whoever reads the journal
// for the session meanwhile looks again afterwards.
func (s *session) beginPass(t *turn) *pass {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trims = false
	if s.gone || s.filling {
		return nil
	}
	if s.sweeps {
		s.sweeps = false
		if p := s.beginSweep(t); p != nil {
			return p
		}
	}
	reason, much := s.over()
	if reason == "" {
		return nil
	}
	p := s.newPass(t)
	if s.bounds.Overflow == mqtt.Thin && p.thin(much) {
		return p
	}
	p.level, p.judge = nothing, func(*item) fateOf {
		if p.lost.n >= much.n && p.lost.bytes >= much.bytes {
			return enough
		}
		return fateOf(reason)
	}
	return p
}

// newPass makes the journal the only place of what was not sent, as if the
// consumer were absent. The caller holds mu, and has made sure that nobody reads
// the journal for the session.
func (s *session) newPass(t *turn) *pass {
	s.loaded, s.behind, s.filling = s.unread(), true, true
	s.ram.reset()
	s.ramBytes = 0
	s.tally()
	p := &pass{s: s, t: t, from: max(s.loaded, s.head()), before: slices.Clone(s.cuts), next: never, rows: make(map[lossKey]amount)}
	p.at = p.from
	p.acked, p.live = slices.Clone(s.beyond), s.live.below(math.MaxUint64)
	for filter := range s.subs {
		p.filters = append(p.filters, filter)
	}
	slices.Sort(p.filters)
	return p
}

// head is the newest place in the journal of what was sent, or lent. The caller
// holds mu.
func (s *session) head() uint64 {
	if s.share != nil {
		return s.share.drawn
	}
	return s.sent
}

// readDisk looks at what is on disk.
func (p *pass) readDisk() error {
	c := p.s.b.commit
	p.upTo = c.committedSeq()
	now := p.s.b.now()
	line := p.s.b.lineAt(now)
	var it item
	err := c.store.Read(p.s.queue, p.at, p.upTo, func(seq uint64, tag uint32, data []byte) bool {
		var err error
		it = itemFromTag(tag)
		if it.body, err = viewBody(data, now, line); err != nil {
			return true // whoever reads it says so
		}
		it.seq = seq
		return p.look(&it, true)
	})
	switch {
	case err != nil:
		p.s.b.log.Error("cannot read what a session gives up", "session", p.s.id, "error", err)
		p.ended = true
	case !p.ended:
		p.at = max(p.at, p.upTo)
	}
	return err
}

// look notes what becomes of a message, and reports whether to go on. The body of
// it may be a view.
func (p *pass) look(it *item, onDisk bool) (goOn bool) {
	if it.seq > p.live {
		p.ended = true
		return false
	}
	if !p.before.keep(it.seq, it.ordinal) || inAny(p.acked, it.seq) {
		p.at = it.seq
		return true
	}
	fate, cost := p.judge(it), int64(it.body.cost())
	if fate == enough {
		p.ended = true
		return false
	}
	p.at = it.seq
	p.looked += cost
	if fate == stays {
		p.left += cost
		return true
	}
	p.lost.add(1, cost)
	if onDisk {
		p.onDisk.add(1, cost)
	}
	key := lossKey{p.s.name(), p.filterOf(it.body.topic()), string(fate)}
	row := p.rows[key]
	row.add(1, int64(it.body.size()))
	p.rows[key] = row
	return true
}

// filterOf returns the filter because of which a message of the topic is owed.
func (p *pass) filterOf(topic []byte) string {
	if string(topic) != p.topic {
		p.topic = string(topic)
		i := slices.IndexFunc(p.filters, func(f string) bool { return mqtt.Match(unshared(f), p.topic) })
		if p.filter = ""; i >= 0 {
			p.filter = p.filters[i]
		}
	}
	return cmp.Or(p.filter, lossOther)
}

// endPass looks at what is on its way to the disk and then takes out all that the
// pass gives up. It reports whether there may be more to do.
func (s *session) endPass(p *pass) (goOn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling = false
	if s.gone {
		return false
	}
	caughtUp := p.ended || p.waiting()
	if s.link != nil {
		p.t.fill = append(p.t.fill, s)
	}
	progress := p.lost.n > 0 || p.level < nothing && p.at > p.from
	if progress {
		p.settle()
	} else if caughtUp {
		s.excess = 0 // it has nothing more to give
	}
	if !caughtUp && p.next == never {
		p.next = p.t.now
	}
	s.sweepLater(p.t, p.next)
	switch reason, _ := s.over(); {
	case reason == "":
		return false
	case progress || !caughtUp, p.level < nothing && s.nothingBehind():
		return true
	}
	s.stuck = s.tail
	return false
}

// waiting looks at what is not on disk. It returns false if a commit came
// between. The caller holds the session's mu.
func (p *pass) waiting() bool {
	c := p.s.b.commit
	return c.eachOwed(p.s, func(r *record, o *owner) bool {
		if r.seq <= p.at {
			return true
		}
		it := itemFromTag(o.tag)
		it.body, it.seq = r.body, r.seq
		before := p.lost.n
		goOn := p.look(&it, r.state == writing)
		if p.lost.n > before {
			r.lost = r.lost || !o.relaxed
			c.release(p.t, r, o)
		}
		return goOn
	}, p.upTo)
}

// settle takes out what the pass gives up. The caller holds the session's mu.
func (p *pass) settle() {
	s, c := p.s, p.s.b.commit
	s.owed.Add(-p.lost.n)
	s.bytes = max(0, s.bytes-p.lost.bytes)
	s.excess = max(0, s.excess-p.lost.bytes)
	s.gauge()
	if p.lost.n > 0 {
		s.drop(uint64(p.lost.n))
	}
	for key, lost := range p.rows {
		s.enterLoss(key, uint64(lost.n), uint64(lost.bytes))
	}
	c.unstore(s, p.onDisk.n, p.onDisk.bytes)
	s.cuts = s.cuts.raise(p.from, p.at, p.level, p.looked, p.left)
	if p.level == nothing && s.loaded == p.from {
		s.loaded = p.at
		s.tail = max(s.tail, s.loaded)
	}
	s.cuts = s.cuts.behind(s.cursor())
	c.moved(s, p.t.now+lazy, nil)
}
