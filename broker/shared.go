package broker

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"tidegate/mqtt"
)

// share is a shared subscription (MQTT 5.0, section 4.8.2): of the messages of one
// filter, each goes to one member of a group. It is a session without a client.
// Its queue is as durable and as bounded as any other; in place of a connection it
// has members, who draw from it as their windows have room.
//
// A QoS 1 message is lent: it stays in the share's window until the member
// acknowledges it, and comes back when the member goes. A QoS 2 message is handed
// over: it becomes the member's own, in the same commit in which it leaves the
// share, because nobody else may get it any more [MQTT-4.8.2-4] [MQTT-4.8.2-5].
type share struct {
	filter string   // $share/GROUP/FILTER
	s      *session // its queue, which is a session with FILTER as its only subscription

	// guarded by s.mu
	members []*member        // written with trie.mu held as well, read with either
	next    int              // the member who is asked first
	drawn   uint64           // every message up to this place was passed on once, or need not be
	again   map[uint64]*loan // messages up to there that are to be passed on again
	aside   int              // messages in the window that nobody who is connected may read

	waits atomic.Bool // it has a message for whoever gets room
}

// member is a session that takes part in a share.
type member struct {
	s   *session
	sub mqtt.Subscription
	ids []uint32 // its identifier, if it has one
}

// loan is a message that a share has in the window of a member.
type loan struct {
	from  *share
	seq   uint64   // its place in the journal
	to    *session // nil: nobody
	visit uint32   // of to, at the time
	queue uint32   // number of to in the store; 0: it has none
	id    uint16   // packet identifier with to; 0: it was not sent
}

const sharePrefix = "$share/"

func isShared(filter string) bool { return strings.HasPrefix(filter, sharePrefix) }

var (
	errShareName = errors.New("the filter is not $share/GROUP/FILTER with a group of at least one character, without + and #")
	errShares    = errors.New("there are as many shared subscriptions as max_sessions allows")
)

// checkShare says what is wrong with the filter of a shared subscription
// [MQTT-4.8.2-1] [MQTT-4.8.2-2], or nil.
func checkShare(filter string) error {
	name, inner, _ := strings.Cut(strings.TrimPrefix(filter, sharePrefix), "/")
	if name == "" || inner == "" || strings.ContainsAny(name, "+#") {
		return errShareName
	}
	return nil
}

// joinShare makes s a member of the share with the filter of sub, or changes what
// it wants of it.
func (b *Broker) joinShare(t *turn, s *session, sub mqtt.Subscription) (had bool, err error) {
	if err := checkShare(sub.Filter); err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.shares[sub.Filter]
	if g == nil && len(b.shares) >= b.cfg.Limits.MaxSessions {
		return false, errShares
	}
	if had, err = s.subscribe(sub); err != nil {
		return false, err
	}
	if g == nil {
		g = b.newShare(sub.Filter)
		b.commit.putTwice(g.row(), b.commit.soon(t.now), nil)
	}
	g.enter(s, sub)
	t.look(g)
	return had, nil
}

// newShare makes a share without members. The caller holds mu.
func (b *Broker) newShare(filter string) *share {
	g := b.emptyShare(filter)
	b.giveQueue(g.s)
	return g
}

// emptyShare makes one without a queue. The caller holds mu.
func (b *Broker) emptyShare(filter string) *share {
	g := &share{filter: filter, s: &session{b: b, id: filter, bounds: b.cfg.Queue.Limits()}, again: make(map[uint64]*loan)}
	g.s.share = g
	b.shares[filter] = g
	b.memory.add(forSessions, sessionCost+len(filter))
	return g
}

// leaveShare takes s out of the share with the filter. What was lent to it stays
// with it until it is acknowledged [MQTT-3.10.4-3].
func (b *Broker) leaveShare(t *turn, s *session, filter string) (had bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if had = s.unsubscribe(filter); had {
		b.withdraw(t, b.shares[filter], s)
	}
	return had
}

// leaveShares takes s, which has ended, out of all. The caller holds mu.
func (b *Broker) leaveShares(t *turn, s *session) {
	s.mu.Lock()
	shares := slices.Clone(s.shares)
	s.mu.Unlock()
	for _, g := range shares {
		b.withdraw(t, g, s)
	}
}

// withdraw takes s out of g, which ends with its last member. The caller holds mu.
func (b *Broker) withdraw(t *turn, g *share, s *session) {
	if g.remove(s) > 0 {
		g.tune()
		t.look(g)
		return
	}
	b.disband(t, g)
}

// disband ends a share. The caller holds mu.
func (b *Broker) disband(t *turn, g *share) {
	delete(b.shares, g.filter)
	b.memory.add(forSessions, -sessionCost-len(g.filter))
	delete(b.queues, g.s.queue)
	g.s.finish(t, lostEnded)
}

// enter makes s a member with the subscription sub.
func (g *share) enter(s *session, sub mqtt.Subscription) {
	g.s.mu.Lock()
	i := slices.IndexFunc(g.members, func(m *member) bool { return m.s == s })
	if i < 0 {
		i = len(g.members)
		g.setMembers(append(g.members, &member{s: s}))
		s.mu.Lock()
		s.shares = append(s.shares, g)
		s.mu.Unlock()
	}
	m := g.members[i]
	m.sub, m.ids = sub, nil
	if sub.ID != 0 {
		m.ids = []uint32{sub.ID}
	}
	g.s.mu.Unlock()
	g.tune()
}

// remove takes s out and returns how many are left.
func (g *share) remove(s *session) (left int) {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	g.setMembers(slices.DeleteFunc(slices.Clone(g.members), func(m *member) bool { return m.s == s }))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shares = slices.DeleteFunc(s.shares, func(other *share) bool { return other == g })
	return len(g.members)
}

// setMembers changes who takes part, and with it who may read. The caller holds
// s.mu.
func (g *share) setMembers(members []*member) {
	t := &g.s.b.trie
	t.mu.Lock()
	defer t.mu.Unlock()
	g.members, t.cached = members, nil
}

// tune subscribes to what the members want, taken together.
func (g *share) tune() {
	sub := mqtt.Subscription{Filter: unshared(g.filter), RetainAsPublished: true}
	g.s.mu.Lock()
	for _, m := range g.members {
		sub.QoS = max(sub.QoS, m.sub.QoS)
	}
	before, had := g.s.subs[sub.Filter]
	g.s.mu.Unlock()
	if had && before == sub {
		return
	}
	if _, err := g.s.subscribe(sub); err != nil { // it has one subscription, and its members' was lawful
		g.s.b.log.Error("cannot share a subscription", "filter", g.filter, "error", err)
	}
}

// mayRead reports whether one of the members may read the topic. The caller holds
// trie.mu.
func (g *share) mayRead(may func(*session) bool) bool {
	return slices.ContainsFunc(g.members, func(m *member) bool { return may(m.s) })
}

// lookAtShares lets all of them notice that rights have changed.
func (b *Broker) lookAtShares() {
	t := b.newTurn(nil)
	defer b.endTurn(t)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.shares {
		t.look(g)
	}
}

// look takes notice of who is there, who came and who went. What was lent to a
// connection that has ended comes back, with all that follows it, from where it
// is stored. That is how a session whose consumer went gets its messages again.
func (g *share) look(t *turn) {
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.limit = g.room()
	g.takeBack(t)
	switch {
	case s.limit > 0 && s.link == nil:
		s.link = g
		t.fill = append(t.fill, s)
		if s.owed.Load() > 0 {
			s.b.commit.moved(s, t.now+lazy, nil) // so that after a crash it is known what was lent
		}
	case s.limit == 0 && s.link != nil && s.window.len() == 0: // else somebody who left still has some
		s.detachLocked(t)
	}
	s.pump(t)
}

// room returns how many messages the connected members take at a time.
func (g *share) room() (n int) {
	for _, m := range g.members {
		m.s.mu.Lock()
		if m.s.link != nil {
			n += m.s.limit
		}
		m.s.mu.Unlock()
	}
	return n
}

// takeBack takes what is with nobody out of the window. The caller holds s.mu.
func (g *share) takeBack(t *turn) {
	some := false
	g.s.window.slots.keep(func(sl slot) bool {
		if sl.loan.isOut() {
			return true
		}
		g.again[sl.seq] = sl.loan
		some = true
		return false
	})
	g.aside = 0
	if some {
		g.rewind(t)
		g.s.b.commit.moved(g.s, t.now+lazy, nil) // so that a restart does not forget what was lent
	}
}

// isOut reports whether the member still has the message in its window.
func (l *loan) isOut() bool {
	if l.to == nil {
		return false
	}
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	return l.to.visit == l.visit
}

// rewind makes what has come back the next to be read. The caller holds s.mu.
func (g *share) rewind(t *turn) {
	s := g.s
	first := s.unread()
	for seq := range g.again {
		first = min(first, seq-1)
	}
	s.loaded, s.behind = first, true
	s.ram.reset()
	s.ramBytes = 0
	t.fill = append(t.fill, s)
}

// hasDrawn reports whether a message that is read from the journal is with a
// member or done. The caller holds s.mu.
func (g *share) hasDrawn(seq uint64) bool { return seq <= g.drawn && g.again[seq] == nil }

// errand is what a share has to do once no lock is held, because locks of shares
// are taken before those of their members.
type errand struct {
	g       *share
	loan    *loan // acknowledged; nil: none
	ordered bool  // something waits that needs a place in the journal
}

// look notes that members of g came or went.
func (t *turn) look(g *share) {
	if e := (errand{g: g}); !slices.Contains(t.errands, e) {
		t.errands = append(t.errands, e)
	}
}

func (e errand) run(t *turn) {
	switch {
	case e.loan != nil:
		e.g.repaid(t, e.loan)
	case e.ordered:
		e.g.pumpOrdered(t)
	default:
		e.g.look(t)
	}
}

// The methods of a consumer. A share passes messages on by itself.

func (g *share) takes(int) bool                 { return true }
func (g *share) deliver(item, int64, bool) bool { return false }
func (g *share) release(uint16) bool            { return false }
func (g *share) full(int) bool                  { return false }
func (g *share) flush(*turn)                    {}

// end makes all members go.
func (g *share) end(why error) {
	for _, m := range g.members {
		m.s.mu.Lock()
		if m.s.link != nil {
			m.s.link.end(why)
		}
		m.s.mu.Unlock()
	}
}
