package load

import (
	"encoding/binary"
	"sync/atomic"

	"tidegate/mqtt/packet"
)

// A payload begins with when it was sent, by which publisher, and as which of its
// messages.
const stampSize = 16

func stamp(payload []byte, now int64, pub, seq int) {
	binary.LittleEndian.PutUint64(payload, uint64(now))
	binary.LittleEndian.PutUint32(payload[8:], uint32(pub))
	binary.LittleEndian.PutUint32(payload[12:], uint32(seq))
}

// receiver counts what one subscriber gets. The connection's read loop alone
// touches it, others read it when the loop has ended.
type receiver struct {
	now    func() int64 // nanoseconds
	pubs   []*publisher // told of deliveries
	lanes  int
	tracks []*track // of each publisher, made for its first message

	latency    histogram
	received   int64 // with duplicates
	duplicates int64
	unordered  int64
	foreign    int64        // payloads that no publisher of this run wrote
	last       atomic.Int64 // when the last one came

	news *publisher // has deliveries that it was not woken for; nil: none
}

// track is what has come of one publisher.
type track struct {
	seen []uint64 // a bit for each message
	next []int    // for each lane the lowest number that is in order
}

// newReceiver makes a receiver of messages from pubs. A publisher's messages whose
// numbers leave the same rest when divided by lanes share a topic, so they must
// come in order; with no lanes order is not looked at.
func newReceiver(r *run, pubs []*publisher, lanes int) *receiver {
	return &receiver{now: r.now, pubs: pubs, lanes: lanes, tracks: make([]*track, len(pubs))}
}

// attach makes c count what it gets in r, before its read loop runs.
func (r *receiver) attach(c *conn) {
	c.onPublish = func(m *packet.Publish) { r.take(m.Payload) }
	c.onIdle = func() { r.tell(nil) }
}

// take counts a message.
func (r *receiver) take(payload []byte) {
	if len(payload) < stampSize {
		r.foreign++
		return
	}
	pub := binary.LittleEndian.Uint32(payload[8:])
	seq := binary.LittleEndian.Uint32(payload[12:])
	if int64(pub) >= int64(len(r.pubs)) || seq >= maxCount {
		r.foreign++
		return
	}
	now := r.now()
	r.last.Store(now)
	r.received++
	t := r.track(int(pub))
	if !t.first(int(seq)) {
		r.duplicates++
		return
	}
	if r.lanes > 0 && !t.inOrder(int(seq), r.lanes) {
		r.unordered++
	}
	r.latency.add(now - int64(binary.LittleEndian.Uint64(payload)))
	p := r.pubs[pub]
	p.delivered.Add(1)
	r.tell(p)
}

// tell remembers that p has news, and wakes whoever had before: once for a
// sequence of messages of one publisher.
func (r *receiver) tell(p *publisher) {
	if r.news != nil && r.news != p {
		r.news.c.signal()
	}
	r.news = p
}

func (r *receiver) track(pub int) *track {
	if r.tracks[pub] == nil {
		r.tracks[pub] = &track{next: make([]int, r.lanes)}
	}
	return r.tracks[pub]
}

// first notes message seq and reports whether it had not come before.
func (t *track) first(seq int) bool {
	word, bit := seq/64, uint64(1)<<(seq%64)
	if word >= len(t.seen) {
		t.seen = append(t.seen, make([]uint64, max(word+1-len(t.seen), len(t.seen), 16))...)
	}
	if t.seen[word]&bit != 0 {
		return false
	}
	t.seen[word] |= bit
	return true
}

// inOrder reports whether no later message of its lane came before seq.
func (t *track) inOrder(seq, lanes int) bool {
	lane := seq % lanes
	if seq < t.next[lane] {
		return false
	}
	t.next[lane] = seq + 1
	return true
}

// among is how many messages of publisher pub with a number below n have come.
func (r *receiver) among(pub int, n int64) int64 {
	var count int64
	t := r.track(pub)
	for seq := range n {
		if word := int(seq / 64); word < len(t.seen) && t.seen[word]&(1<<(seq%64)) != 0 {
			count++
		}
	}
	return count
}
