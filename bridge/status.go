package bridge

import (
	"fmt"
	"maps"
	"sync"
	"time"
)

// State is how far a bridge has come.
//
//	Run                   the wait is over              the server accepts,
//	 |                                                  the queue is open
//	 v                   .-------> dialing ------------------.
//	down ----------------'            |                      v
//	 ^ ^                              |                     up
//	 | '---- nobody accepts ----------'                      | |
//	 |                                                       | |
//	 |<----- lost, stalled, left, or the queue taken away ---' | ctx is done
//	 |                                                         v
//	 '------ all is acknowledged, or a second is over ----- draining
type State int

// The states.
const (
	Down     State = iota // waiting for the next try, or not running
	Dialing               // connecting to a server
	Up                    // connected; the queue is open
	Draining              // stopping: nothing is sent, acknowledgements are awaited
)

// String names the state.
func (s State) String() string {
	switch s {
	case Down:
		return "down"
	case Dialing:
		return "dialing"
	case Up:
		return "up"
	case Draining:
		return "draining"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// MarshalText writes the state as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Status is how a bridge fares. How much is queued, the broker's session
// bridge/NAME knows.
type Status struct {
	Name          string    `json:"name"`
	Server        string    `json:"server"` // connected, or tried last
	State         State     `json:"state"`
	Since         time.Time `json:"since"`          // since when it is up, or is not
	Error         string    `json:"error"`          // why it is not up, or was not the last time; in words to act on
	ErrorAt       time.Time `json:"error_at"`       // zero: never
	Acknowledged  uint64    `json:"acknowledged"`   // messages the server acknowledged; QoS 0: were written
	Refused       uint64    `json:"refused"`        // messages that can never be carried, and were dropped
	Unmatched     uint64    `json:"unmatched"`      // messages queued under rules that are gone, and dropped
	LastUnmatched string    `json:"last_unmatched"` // topic of the last of them
	Gone          []string  `json:"gone"`           // topics of former rules of out while messages wait that were queued under these
	DeadLetters   uint64    `json:"dead_letters"`   // messages the server refused for good, and put aside since the start
	InFlight      int       `json:"in_flight"`      // sent and not yet acknowledged
	LastAck       time.Time `json:"last_ack"`       // zero: never
	Connects      uint64    `json:"connects"`
	Returns       uint64    `json:"returns"` // to the first server, because it is well again

	Failures map[string]uint64 `json:"failures"` // tries and connections that failed, by cause

	Rate   float64 `json:"rate"`   // messages a second that were acknowledged lately
	Shrink float64 `json:"shrink"` // messages a second by which the backlog got shorter lately

	goneAt time.Time // when Gone was found

	In Downward `json:"in"` // what came from upstream
}

// leave ends a state in which the bridge was up or tried to be.
func (s *Status) leave() {
	if s.State == Up || s.State == Draining {
		s.Since = time.Now()
	}
	s.State, s.InFlight = Down, 0
}

// ToEmpty returns how long a backlog takes that goes on getting shorter as it did
// lately; false if it did not.
func (s *Status) ToEmpty(backlog int64) (time.Duration, bool) {
	d := float64(backlog) / s.Shrink
	if s.State != Up || backlog == 0 || s.Shrink <= 0 || d > forEver.Seconds() {
		return 0, false
	}
	return time.Duration(d * float64(time.Second)), true
}

// fail notes why the bridge is not up.
func (s *Status) fail(why error) {
	s.leave()
	s.Error, s.ErrorAt = why.Error(), time.Now()
	s.Failures[causeOf(why)]++
}

// monitor is the Status under its lock.
type monitor struct {
	mu     sync.Mutex
	status Status
	pace   pace
}

func (m *monitor) snapshot() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Failures = maps.Clone(s.Failures)
	return s
}

func (m *monitor) update(fn func(*Status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.status)
}

// measure has fn take note of how the bridge gets on.
func (m *monitor) measure(backlog int64, fn func(p *pace, now time.Time, acked uint64, backlog int64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.pace, time.Now(), m.status.Acknowledged, backlog)
	m.status.Rate, m.status.Shrink = max(0, m.pace.rate), m.pace.shrink
}

func (m *monitor) sent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.InFlight++
}

func (m *monitor) acknowledged(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.InFlight--
	m.status.Acknowledged++
	m.status.LastAck = now
}
