package broker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
)

// budget is the memory that all clients together may take. What they take is
// estimated, in whole grains and never for each message, so that counting costs
// next to nothing.
//
// What stays for as long as a client likes is refused early: retained messages at
// half of the limit, sessions and subscriptions at three quarters, connections at
// seven eighths. The rest is for what passes through: at the limit queues and buffers stop growing, and who holds the most is
// disconnected. A little more is taken until that has happened.
type budget struct {
	limit int64 // bytes
	used  atomic.Int64
	by    [uses]atomic.Int64
	short chan struct{} // holds a token when somebody has found no room
}

// use is something that memory is taken for.
type use byte

const (
	forConnections use = iota // with their stacks and topic aliases
	forPackets                // parts of packets of which the rest has not come
	forOutput                 // what sockets have not taken
	forQueues                 // what sessions are to be sent, and QoS 2 receipts
	forSessions               // and wills
	forSubscriptions
	forRetained
	forStore // what waits for the disk, beside messages: a retained message counts twice until it is written
	uses
)

var useNames = [uses]string{"connections", "packets", "output", "queues", "sessions", "subscriptions", "retained", "store"}

// What things cost, in bytes, beside what their owners give them to keep.
// "An idle connection" in docs/performance.md says where the first comes from.
const (
	connectionCost   = 5 << 10
	streamCost       = 40 << 10 // of TLS and WebSocket: buffers, and a deeper stack
	sessionCost      = 1 << 10
	subscriptionCost = 512
	levelCost        = 256 // of a filter
	retainedCost     = 256
	replayCost       = 96
	receiptCost      = 128
)

// grain is the unit that a charge grows in. Less than small is part of what a
// connection or session costs anyway.
const (
	grain = 16 << 10
	small = 2 << 10
)

// room reports whether there is room for more. If not, somebody is going to be
// disconnected, if that helps.
func (m *budget) room(what use) bool {
	most := m.limit
	switch what {
	case forRetained: // each costs as much again until it is written, which must not shut clients out
		most /= 2
	case forSessions, forSubscriptions:
		most -= most / 4
	case forConnections: // later, so that there is somebody to tell that there is no room for a session
		most -= most / 8
	}
	if m.used.Load() < most {
		return true
	}
	select {
	case m.short <- struct{}{}:
	default:
	}
	return false
}

// exhausted reports whether the limit is exceeded by so much that nobody can wait
// until those who hold the most are gone.
func (m *budget) exhausted() bool { return m.used.Load() >= m.limit+m.limit/8 }

// add takes n bytes, or gives them back if n is negative.
func (m *budget) add(what use, n int) {
	m.used.Add(int64(n))
	m.by[what].Add(int64(n))
}

// byName returns what is taken, and what of it for what.
func (m *budget) byName() (used uint64, by map[string]uint64) {
	by = make(map[string]uint64, uses)
	for what, name := range useNames {
		by[name] = uint64(max(0, m.by[what].Load()))
	}
	return uint64(max(0, m.used.Load())), by
}

// charge is what one owner has taken for a use.
type charge struct{ held atomic.Int64 }

// set makes the charge what n bytes need. The owner sees to it that there is one
// caller at a time.
func (c *charge) set(m *budget, what use, n int) {
	if n < small {
		n = 0
	}
	whole := int64(n+grain-1) / grain * grain
	if before := c.held.Load(); whole != before {
		c.held.Store(whole)
		m.add(what, int(whole-before))
	}
}

// errMemory is why the broker disconnects a client that it would not have if
// there were more memory.
var errMemory = errors.New("memory_limit is reached, and this client holds the most of it")

// errNoMemory is why the broker refuses what would stay.
var errNoMemory = errors.New("memory_limit is reached")

// relieve disconnects whoever holds the most whenever somebody has found no room,
// until ctx is done.
func (b *Broker) relieve(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.memory.short:
		}
		for _, c := range b.heaviest(b.memory.excess()) {
			if c.out.waiting.held.Load() > 0 { // it does not read, so it would not read a goodbye
				c.endNow(errMemory)
			} else {
				c.end(errMemory)
			}
		}
	}
}

// excess returns how many bytes of what passes through have to go, so that an
// eighth of the limit is left of it. There is none if it is not the problem.
func (m *budget) excess() int64 {
	passing := m.by[forPackets].Load() + m.by[forOutput].Load() + m.by[forQueues].Load()
	if passing < m.limit/4 {
		return 0
	}
	return passing - m.limit/8
}

// heaviest returns the connections that hold the most of what passes through and
// together at least so many bytes, if that many are held.
func (b *Broker) heaviest(bytes int64) (list []*conn) {
	held := b.weigh()
	for _, c := range slices.SortedFunc(maps.Keys(held), func(x, y *conn) int { return cmp.Compare(held[y], held[x]) }) {
		if bytes <= 0 || held[c] == 0 {
			break
		}
		bytes -= held[c]
		list = append(list, c)
	}
	return list
}

// weigh returns what each connection holds of what passes through.
func (b *Broker) weigh() map[*conn]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := make(map[*conn]int64, len(b.conns))
	for c := range b.conns {
		held[c] = c.kept.held.Load() + c.out.waiting.held.Load() + c.held.held.Load()
	}
	for _, s := range b.sessions {
		if s.user != nil {
			held[s.user] += s.holding.held.Load()
		}
	}
	return held
}
