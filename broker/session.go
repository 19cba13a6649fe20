package broker

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"tidegate/broker/auth"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// session is everything that is kept for one client identifier or one inbox
// (MQTT 3.1.1, section 4.1): its subscriptions, what it is owed, and what it has
// handed in at QoS 2.
//
// A durable session has a number in the store. While it is absent, what it is
// owed stands in the journal only, so it uses no memory to speak of. When its
// consumer comes back, or the gateway starts again, the same path reads it from
// there: position, then page after page.
type session struct {
	b     *Broker
	id    string
	inbox bool   // its consumer is inside the process
	queue uint32 // number in the store; 0: the session ends with its connection

	unclaimed bool // of an inbox: nobody opens it any more; written with Broker.mu and mu held, read with either

	// guarded by Broker.mu
	user      *conn        // who has it, from CONNECT to the end
	will      *packet.Will // of the last connection, held back; nil: none
	willDelay uint32       // for how many seconds

	dropped atomic.Uint64 // messages that a bound has cost it
	owed    atomic.Int64  // messages it has not acknowledged, if durable
	refuses atomic.Bool   // no more may be published to it; written with mu held

	mu     sync.Mutex
	gone   bool   // ended for good
	expiry uint32 // seconds it outlives its connection
	link   consumer
	subs   map[string]mqtt.Subscription

	identified bool // one of subs has, or had, an identifier

	identity auth.Identity // who connected last; written with mu and trie.mu held, read with either

	// outbox.go: what it is owed, in order: window, then ram, then, if behind,
	// the journal from loaded on.
	limit    int // of the window
	window   window
	ram      queue[item]
	ramBytes int
	live     *lane         // past the backlog; nil: all goes in one order
	replay   queue[replay] // retained messages still to be sent, before ram
	bounds   mqtt.QueueLimits
	bytes    int64   // of what it is owed, as amount has them
	excess   int64   // bytes that it has to give up because the store is over its bounds
	holding  charge  // for window, ram, replay and received
	behind   bool    // more is owed than window and ram hold
	filling  bool    // refill or a pass is reading
	trims    bool    // somebody's turn ends with trim
	sweeps   bool    // ... which is to look for what is too old
	sweepAt  int64   // when the alarm for that is set; never: it is not
	from     uint64  // its queue began behind this place
	loaded   uint64  // all that is owed up to here is acknowledged, in the window or in ram
	tail     uint64  // the newest that is owed
	stuck    uint64  // over its bounds with nothing to give up, when this was tail
	came     traffic // what it has been owed since the gateway's start, if durable
	sent     uint64  // the newest that was sent over any connection
	lastID   uint16
	mixed    bool  // packet identifiers in the window are not in order
	pace     int64 // smoothed time between sending and acknowledgement, in nanoseconds; with lanes of live messages only
	trip     int64 // likewise, of all messages

	// position.go: what the store knows of it.
	beyond   []acked           // behind the cursor
	unsaved  int               // acknowledgements that are not on disk
	saving   int               // those of them in the commit under way
	before   uint64            // the newest that was under way when the last commit had ended; 0: nothing was
	cuts     cuts              // what of the journal is not owed any more
	cutting  cuts              // of the commit under way
	cut      cuts              // as the store knows them
	ordinals map[uint64]uint16 // of the next message of a topic, by its hash
	guessed  bool              // owed is: the position on disk was damaged
	sized    bool              // bytes is known

	// receive.go
	received map[uint16]*receipt // QoS 2 messages that the client has not released

	// shared.go
	share  *share   // whose queue it is; nil: that of a client or inbox
	shares []*share // in which it takes part
	visit  uint32   // changes with its consumer
	coming int      // QoS 2 messages on their way from shares

	// guarded by committer.mu
	stored amount // on disk, that it is owed
	moved  bool   // its position is to be written
}

func (s *session) durable() bool { return s.queue != 0 }

// attach gives the session a consumer, and begins to send what it is owed. An
// inbox may still have another one, which loses it.
func (s *session) attach(t *turn, link consumer, limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil {
		s.link.end(errTakenOver)
		s.detachLocked(t)
	}
	s.link, s.limit = link, limit
	s.live = laneFor(link, s.b.commit.lastSeq())
	s.changed(t)
	t.fill = append(t.fill, s)
	if s.durable() && s.owed.Load() > 0 {
		s.b.commit.moved(s, t.now+lazy, nil) // so that after a crash it is known what was sent
	}
}

// detach takes the consumer away, if the session still has it. It returns for how
// many seconds the session is to be kept.
func (s *session) detach(t *turn, link consumer) (keep uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == link {
		s.detachLocked(t)
	}
	return s.expiry
}

// detachLocked makes the journal the only place of what is owed.
func (s *session) detachLocked(t *turn) {
	s.link = nil
	s.changed(t)
	if !s.durable() {
		s.loseRest(lostEnded)
	} else if s.window.len() > 0 {
		s.b.commit.moved(s, t.now+lazy, nil) // so that a restart does not forget what was sent
	}
	s.loaded, s.behind = s.cursor(), true
	s.live = nil
	s.window.slots.reset()
	s.ram.reset()
	s.replay.reset()
	s.ramBytes, s.mixed = 0, false
	s.tally()
	due := s.b.commit.soon(t.now)
	if s.bounds.Relaxed {
		due = t.now + max(s.b.commit.interval, lazy)
	}
	s.b.commit.absent(s, due)
}

// changed tells the shares of which the session is a member, or was, that its
// consumer came or went. The caller holds mu.
func (s *session) changed(t *turn) {
	s.visit++
	for _, g := range s.shares {
		t.look(g)
	}
	for i := range s.window.len() {
		if l := s.window.slots.at(i).loan; l != nil {
			t.look(l.from)
		}
	}
}

// finish ends the session for good. What it is still owed is lost for reason.
func (s *session) finish(t *turn, reason string) {
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return
	}
	s.gone = true
	s.b.alarms.drop(alarmKey{s, queueAges})
	s.link = nil
	s.open()
	s.loseRest(reason)
	s.window.slots.reset()
	s.ram.reset()
	s.live = nil
	s.replay.reset()
	s.ramBytes = 0
	subs := s.subs
	s.subs = nil
	if s.durable() {
		s.b.commit.forget(t, s)
		s.b.commit.moved(s, t.now+lazy, nil)
		s.b.commit.putTwice(s.erased(), t.now+lazy, nil)
	}
	s.forgetReceived()
	s.tally()
	s.mu.Unlock()
	for filter := range subs {
		s.b.unsubscribe(s, filter)
	}
}

// maxLevels bounds the depth of a filter, each level of which costs memory.
const maxLevels = 200

var (
	errTooDeep       = fmt.Errorf("the filter has more than %d levels", maxLevels)
	errSubscriptions = errors.New("the session has as many subscriptions as max_subscriptions allows")
)

// subscribe adds or changes a subscription and reports whether there was one with
// its filter, or says why not.
func (s *session) subscribe(sub mqtt.Subscription) (had bool, err error) {
	if strings.Count(sub.Filter, "/") >= maxLevels {
		return false, errTooDeep
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, had = s.subs[sub.Filter]
	switch {
	case s.gone:
		return false, mqtt.ErrClosed
	case !had && len(s.subs) >= s.b.cfg.Limits.MaxSubscriptions:
		return false, errSubscriptions
	case !had && !s.inbox && s.share == nil && !s.b.memory.room(forSubscriptions):
		return false, errNoMemory
	}
	if s.subs == nil {
		s.subs = make(map[string]mqtt.Subscription)
	}
	s.subs[sub.Filter] = sub
	s.identified = s.identified || sub.ID != 0
	s.b.subscribe(s, sub, had)
	return had, nil
}

// unsubscribe ends the subscription with the filter, and reports whether there
// was one.
func (s *session) unsubscribe(filter string) (had bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, had = s.subs[filter]; had {
		delete(s.subs, filter)
		s.b.unsubscribe(s, filter)
	}
	return had
}

// replaceSubs gives the session exactly the subscriptions subs. It reports
// whether that has changed anything.
func (s *session) replaceSubs(subs []mqtt.Subscription) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]mqtt.Subscription)
	for _, sub := range subs {
		next[sub.Filter] = sub
		if before, had := s.subs[sub.Filter]; !had || before != sub {
			s.b.subscribe(s, sub, had)
			changed = true
		}
	}
	for filter := range s.subs {
		if _, keep := next[filter]; !keep {
			s.b.unsubscribe(s, filter)
			changed = true
		}
	}
	s.subs = next
	return changed
}

// save writes the session's row. then, if not nil, is called when it is on disk,
// or with the reason why it never will be.
func (s *session) save(due int64, then func(*turn, error)) {
	s.mu.Lock()
	row := s.row()
	s.mu.Unlock()
	s.b.commit.putTwice(row, due, then)
}
