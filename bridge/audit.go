package bridge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tidegate/internal/clock"
	"tidegate/mqtt"
)

// maxSeen bounds the messages of a bridge that an [Audit] remembers to tell what
// comes twice. Duplicates follow a lost connection closely.
const maxSeen = 20000

// maxWays bounds the bridges that an [Audit] tells apart.
const maxWays = 10000

// Audit reads envelopes upstream and counts, for each bridge of each gateway, what
// is missing and what came twice. Its methods are called from one goroutine.
type Audit struct {
	ways map[string]*way
}

// Tally is what an [Audit] knows of one bridge.
type Tally struct {
	Gateway    string `json:"gateway"`
	Bridge     string `json:"bridge"`
	Messages   uint64 `json:"messages"` // each once
	Duplicates uint64 `json:"duplicates"`
	Missing    uint64 `json:"missing"` // that others behind them show to have been sent
	Late       uint64 `json:"late"`    // came behind others that were sent later
	Starts     uint64 `json:"starts"`  // of the gateway, seen from the count beginning anew
	Unsynced   uint64 `json:"unsynced"`
}

// way is a Tally and what it takes to go on.
type way struct {
	Tally
	n     uint64           // of the newest message
	last  place            // of the newest message
	seen  map[place]uint64 // n of a message
	order []place          // of seen
}

// place is what identifies a message of a gateway.
type place struct {
	boot uint32
	seq  uint64
}

func (p place) before(q place) bool {
	return cmp.Or(cmp.Compare(p.boot, q.boot), cmp.Compare(p.seq, q.seq)) < 0
}

// String is p as "BOOT.SEQ".
func (p place) String() string { return fmt.Sprintf("%d.%d", p.boot, p.seq) }

// NewAudit returns one that has seen nothing.
func NewAudit() *Audit { return &Audit{ways: make(map[string]*way)} }

var errNoEnvelope = errors.New("it has no envelope: set envelope: json, or properties, for the bridge")

// ofGateway reports whether m is what the server keeps about a gateway.
func ofGateway(m mqtt.Message) bool {
	return strings.HasSuffix(m.Topic, "/status") && (string(m.Payload) == online || string(m.Payload) == offline)
}

// Add takes a message, and returns a line about what it shows to be wrong, or "".
// It fails for one without an envelope.
func (a *Audit) Add(m mqtt.Message) (finding string, err error) {
	e, ok := EnvelopeOf(m)
	if !ok && ofGateway(m) {
		return "", nil
	}
	if !ok {
		return "", errNoEnvelope
	}
	if e.Seq == 0 {
		return "", nil // QoS 0 promises nothing
	}
	key := e.Gateway + "/" + e.Bridge
	w := a.ways[key]
	if w == nil {
		if len(a.ways) == maxWays {
			return "", fmt.Errorf("more than %d bridges cannot be told apart", maxWays)
		}
		w = &way{Tally: Tally{Gateway: e.Gateway, Bridge: e.Bridge}, n: e.N - 1, seen: make(map[place]uint64)}
		a.ways[key] = w
	}
	if finding = w.add(&e); finding != "" {
		finding = key + ": " + finding
	}
	return finding, nil
}

func (w *way) add(e *Envelope) string {
	at := place{e.Boot, e.Seq}
	if n, again := w.seen[at]; again {
		w.Duplicates++
		if n != e.N { // sent again by another start, which counts anew
			w.restart(e.N)
			w.n = e.N
		}
		return fmt.Sprintf("message %v came again", at)
	}
	w.note(at, e.N)
	w.Messages++
	if e.TimeQuality == clock.Unsynced {
		w.Unsynced++
	}
	if at.before(w.last) {
		w.Late++
		w.Missing -= min(w.Missing, 1)
		return fmt.Sprintf("message %v came late, behind %v", at, w.last)
	}
	w.restart(e.N)
	missing, after := e.N-w.n-1, w.last
	w.n, w.last = e.N, at
	if missing == 0 {
		return ""
	}
	w.Missing += missing
	return fmt.Sprintf("%d missing between the messages %v and %v", missing, after, at)
}

// restart notes that the count began anew, if n shows that.
func (w *way) restart(n uint64) {
	if n <= w.n {
		w.Starts++
		w.n = 0
	}
}

// note keeps the message in mind.
func (w *way) note(at place, n uint64) {
	w.seen[at] = n
	w.order = append(w.order, at)
	if len(w.order) > maxSeen {
		for _, old := range w.order[:maxSeen/2] {
			delete(w.seen, old)
		}
		w.order = slices.Clone(w.order[maxSeen/2:])
	}
}

// Tallies returns what is known of each bridge, by gateway and bridge.
func (a *Audit) Tallies() []Tally {
	var list []Tally
	for _, w := range a.ways {
		list = append(list, w.Tally)
	}
	slices.SortFunc(list, func(x, y Tally) int {
		return cmp.Or(cmp.Compare(x.Gateway, y.Gateway), cmp.Compare(x.Bridge, y.Bridge))
	})
	return list
}
