//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
)

// ledger is what somebody has seen of numbered messages, by topic.
type ledger struct {
	watched
	topics map[string]*entries
}

// entries is what was seen of one topic.
type entries struct {
	seen       map[int]struct{}
	highest    int
	duplicates int
	disorder   []string // first occurrences that came too late
}

func newLedger() *ledger { return &ledger{topics: make(map[string]*entries)} }

// number reads what numbered messages carry: a reading's JSON, or digits and
// anything behind them.
func number(payload []byte) (int, bool) {
	payload = bytes.TrimPrefix(payload, []byte(`{"value":`))
	end := bytes.IndexFunc(payload, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(payload)
	}
	n, err := strconv.Atoi(string(payload[:end]))
	return n, err == nil
}

// add notes a message; one without a number is none of ours.
func (l *ledger) add(topic string, payload []byte) {
	if n, ok := number(payload); ok {
		l.update(func() { l.of(topic).add(n) })
	}
}

// of returns the entries of topic. The caller holds mu.
func (l *ledger) of(topic string) *entries {
	e := l.topics[topic]
	if e == nil {
		e = &entries{seen: make(map[int]struct{})}
		l.topics[topic] = e
	}
	return e
}

func (e *entries) add(n int) {
	if _, again := e.seen[n]; again {
		e.duplicates++
		return
	}
	e.seen[n] = struct{}{}
	if n < e.highest {
		e.disorder = append(e.disorder, fmt.Sprintf("%d came after %d", n, e.highest))
	}
	e.highest = max(e.highest, n)
}

// awaitNumber waits until message n of topic was seen.
func (l *ledger) awaitNumber(t testing.TB, topic string, n int) {
	t.Helper()
	l.await(t, fmt.Sprintf("message %d of %s", n, topic), func() bool {
		_, seen := l.of(topic).seen[n]
		return seen
	})
}

// awaitCount waits until n different messages of all topics were seen.
func (l *ledger) awaitCount(t testing.TB, n int) {
	t.Helper()
	l.await(t, fmt.Sprintf("%d messages", n), func() bool { return l.countLocked() >= n })
}

func (l *ledger) countLocked() (n int) {
	for _, e := range l.topics {
		n += len(e.seen)
	}
	return n
}

// count returns how many different messages were seen.
func (l *ledger) count() (n int) {
	l.look(func() { n = l.countLocked() })
	return n
}

// duplicates returns how often a message was seen that had been seen before.
func (l *ledger) duplicates() (n int) {
	l.look(func() {
		for _, e := range l.topics {
			n += e.duplicates
		}
	})
	return n
}

// message is one message's identity.
type message struct {
	topic string
	n     int
}

// all returns the messages that were seen, in order.
func (l *ledger) all() []message {
	var list []message
	l.look(func() {
		for _, topic := range slices.Sorted(maps.Keys(l.topics)) {
			for _, n := range slices.Sorted(maps.Keys(l.topics[topic].seen)) {
				list = append(list, message{topic, n})
			}
		}
	})
	return list
}

// without returns what this ledger has and other has not. prefix is what topics
// have in front there.
func (l *ledger) without(other *ledger, prefix string) []message {
	there := make(map[message]struct{})
	for _, m := range other.all() {
		there[m] = struct{}{}
	}
	return slices.DeleteFunc(l.all(), func(m message) bool {
		_, both := there[message{prefix + m.topic, m.n}]
		return both
	})
}

// checkOrder fails t unless the first occurrences of each topic ascend.
func (l *ledger) checkOrder(t testing.TB, who string) {
	t.Helper()
	l.look(func() {
		for topic, e := range l.topics {
			if len(e.disorder) > 0 {
				t.Errorf("%s: %d messages of %s out of order: %s", who, len(e.disorder), topic, some(e.disorder))
			}
		}
	})
}

// some is the beginning of a list that may be long.
func some[T any](list []T) string {
	if len(list) > 10 {
		return fmt.Sprintf("%v and %d more", list[:10], len(list)-10)
	}
	return fmt.Sprint(list)
}
