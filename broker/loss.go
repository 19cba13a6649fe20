package broker

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"tidegate/mqtt"
)

// Why a message that a session was owed is not delivered.
const (
	lostMemory  = "max_memory"  // the queue in memory was full
	lostExpired = "expired"     // its message expiry interval was over
	lostSize    = "packet_size" // larger than the consumer takes
)

// lossOther stands for the session and filter of losses that have no row of
// their own any more.
const lossOther = "other"

// maxLosses bounds the rows of the ledger, apart from one "other" per reason.
const maxLosses = 1000

// Loss is a row of the loss ledger: messages at QoS 1 or 2 that a session was
// owed because of a subscription and did not get. It counts since the gateway
// started.
type Loss struct {
	Session string    `json:"session"`
	Filter  string    `json:"filter"` // of the subscription; "other": ended meanwhile, or too many rows
	Reason  string    `json:"reason"`
	Count   uint64    `json:"count"`
	Bytes   uint64    `json:"bytes"` // in memory: topic, payload and properties
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

type lossKey struct{ session, filter, reason string }

// lossLedger counts what was lost. Its mutex is a leaf.
type lossLedger struct {
	mu   sync.Mutex
	rows map[lossKey]*Loss
}

// add counts one message.
func (l *lossLedger) add(k lossKey, bytes int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	row := l.rows[k]
	if row == nil && len(l.rows) >= maxLosses {
		k.session, k.filter = lossOther, lossOther
		row = l.rows[k]
	}
	if row == nil {
		row = &Loss{Session: k.session, Filter: k.filter, Reason: k.reason, First: now}
		if l.rows == nil {
			l.rows = make(map[lossKey]*Loss)
		}
		l.rows[k] = row
	}
	row.Count++
	row.Bytes += uint64(bytes)
	row.Last = now
}

// list returns a copy of all rows, in the order of session, filter and reason.
func (l *lossLedger) list() []Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Loss, 0, len(l.rows))
	for _, row := range l.rows {
		list = append(list, *row)
	}
	slices.SortFunc(list, func(x, y Loss) int {
		return cmp.Or(cmp.Compare(x.Session, y.Session), cmp.Compare(x.Filter, y.Filter), cmp.Compare(x.Reason, y.Reason))
	})
	return list
}

// Losses returns the loss ledger.
func (b *Broker) Losses() []Loss { return b.losses.list() }

// lose counts a message that the session was owed. The caller holds mu.
func (s *session) lose(it *item, reason string) {
	s.drop(1)
	if it.qos == mqtt.AtMostOnce {
		return
	}
	k := lossKey{strings.TrimPrefix(s.id, "\x00"), s.owedBy(string(it.body.topic())), reason}
	s.b.losses.add(k, it.body.size(), time.Now())
}

// owedBy returns the first filter, in their order, that matches the topic.
func (s *session) owedBy(topic string) string {
	owed := ""
	for filter := range s.subs {
		if (owed == "" || filter < owed) && mqtt.Match(filter, topic) {
			owed = filter
		}
	}
	return cmp.Or(owed, lossOther)
}
