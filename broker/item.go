package broker

import (
	"math/bits"
	"slices"

	"tidegate/mqtt"
)

// item is one message in the outbox of one session.
type item struct {
	claim
	body    body
	gate    *record  // not to be sent before this promise is kept; nil: at once
	ids     []uint32 // MQTT 5: of the subscriptions that match
	ordinal uint16   // among the messages of its topic, see cuts
	retain  bool     // sent because of a new subscription (section 3.3.1.3), or kept as published
	relay   bool     // it came through a bridge, ours or another gateway's
	known   bool     // already released by the consumer: QoS 2 goes on with PUBREL
	shared  bool     // owed because of a shared subscription
}

// claim is what a session has to know of a message until that is acknowledged.
type claim struct {
	rec   *record // the promise it is part of, while that is not on disk; else nil
	seq   uint64  // its place in the journal's order; 0: the session is not durable
	after uint64  // if live: the message before it that the session was owed
	loan  *loan   // a share has it in the window of a member; else nil
	cost  uint32  // on disk, in bytes, if the session is durable
	id    uint16  // packet identifier; 0: chosen when it is sent
	qos   mqtt.QoS
	live  bool // it goes past the backlog, see lane
}

// itemOverhead is what an item costs in memory beside its body.
const itemOverhead = 96

func (it *item) size() int { return it.body.size() + itemOverhead }

// diskOverhead is what a message costs on disk beside its body, about: record,
// owner, and its share of the pages around them.
const diskOverhead = 64

// cost is what the message takes on disk.
func (b *body) cost() uint32 { return uint32(len(b.buf)) + diskOverhead }

// amount is how much somebody is owed.
type amount struct {
	n     int64 // messages
	bytes int64 // of them on disk, were they all there
}

func (a *amount) add(n, bytes int64) { a.n, a.bytes = a.n+n, a.bytes+bytes }

// wireSize is how many bytes the PUBLISH of MQTT 5 has, with so many of properties
// that are added to those of the message and of the session.
func (it *item) wireSize(added int) int {
	props := len(it.body.properties()) + added
	for _, id := range it.ids {
		props += 1 + varintSize(int(id))
	}
	n := len(it.body.plain()) + varintSize(props) + props
	if it.qos != mqtt.AtMostOnce {
		n += 2
	}
	return 1 + varintSize(n) + n
}

// varintSize is how many bytes a variable byte integer takes (MQTT 5.0, section
// 1.5.5).
func varintSize(n int) int { return max(1, (bits.Len(uint(n))+6)/7) }

// queue is a first-in first-out list that reuses its memory.
type queue[T any] struct {
	list []T
	head int
}

func (q *queue[T]) len() int    { return len(q.list) - q.head }
func (q *queue[T]) front() *T   { return &q.list[q.head] }
func (q *queue[T]) at(i int) *T { return &q.list[q.head+i] }

func (q *queue[T]) push(v T) {
	if q.head > len(q.list)/2 && len(q.list) == cap(q.list) {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	q.list = append(q.list, v)
}

// grow makes room for n more.
func (q *queue[T]) grow(n int) { q.list = slices.Grow(q.list, n) }

func (q *queue[T]) pop() T {
	var zero T
	v := q.list[q.head]
	q.list[q.head] = zero
	q.head++
	if q.head == len(q.list) {
		q.list, q.head = q.list[:0], 0
	}
	return v
}

// remove takes out the i-th element.
func (q *queue[T]) remove(i int) T {
	if i == 0 {
		return q.pop()
	}
	v := *q.at(i)
	if i < q.len()/2 { // the shorter side moves
		copy(q.list[q.head+1:q.head+i+1], q.list[q.head:q.head+i])
		q.pop()
		return v
	}
	copy(q.list[q.head+i:], q.list[q.head+i+1:])
	var zero T
	q.list[len(q.list)-1] = zero
	q.list = q.list[:len(q.list)-1]
	return v
}

// keep takes out all elements that want refuses.
func (q *queue[T]) keep(want func(T) bool) {
	n := 0
	for i := range q.len() {
		if v := *q.at(i); want(v) {
			q.list[n] = v
			n++
		}
	}
	clear(q.list[n:])
	q.list, q.head = q.list[:n], 0
}

// reset empties the list and gives its memory back.
func (q *queue[T]) reset() { *q = queue[T]{} }
