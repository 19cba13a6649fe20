package broker

import "tidegate/mqtt"

// body is a message as it travels in a PUBLISH: the length of the topic in two
// bytes, the topic, the payload. It is made once, shared by everybody who is
// owed the message, and never written.
type body []byte

func (b body) topicEnd() int   { return 2 + int(b[0])<<8 + int(b[1]) }
func (b body) topic() []byte   { return b[2:b.topicEnd()] }
func (b body) payload() []byte { return b[b.topicEnd():] }

// appendBody appends topic and payload as a body.
func appendBody[T string | []byte](dst []byte, topic T, payload []byte) body {
	dst = append(dst, byte(len(topic)>>8), byte(len(topic)))
	dst = append(dst, topic...)
	return append(dst, payload...)
}

// newBody copies topic and payload into a body of their own.
func newBody[T string | []byte](topic T, payload []byte) body {
	return appendBody(make([]byte, 0, 2+len(topic)+len(payload)), topic, payload)
}

// item is one message in the outbox of one session.
type item struct {
	body   body
	rec    *record // the promise it is part of, while that is not on disk; else nil
	gate   *record // not to be sent before this promise is kept; nil: at once
	seq    uint64  // its place in the journal's order; 0: the session is not durable
	id     uint16  // packet identifier; 0: chosen when it is sent
	qos    mqtt.QoS
	retain bool // sent because of a new subscription (section 3.3.1.3); to an inbox: as published
	known  bool // already released by the consumer: QoS 2 goes on with PUBREL
}

// itemOverhead is what an item costs in memory beside its body.
const itemOverhead = 64

func (it *item) size() int { return len(it.body) + itemOverhead }

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
