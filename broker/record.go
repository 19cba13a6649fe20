package broker

import (
	"sync/atomic"

	"tidegate/mqtt"
)

// record is the promise that goes with one message for durable sessions. It is
// kept, and whoever waits for it is told, as soon as the message is on disk or
// every owner whose queue is not relaxed has acknowledged it, whichever is first. While the owners keep up,
// it never gets to the disk.
type record struct {
	seq  uint64 // place in the journal's order
	body body
	must bool        // owed at QoS 2: on disk before it is sent, so that no crash can send it twice
	open atomic.Bool // items gated by this record may be sent

	// guarded by committer.mu
	state   recordState
	owners  []owner
	left    int   // owners who have not acknowledged, plus one while the router is at work
	held    int   // those of them for whom the promise is made, plus one likewise
	inboxes int   // those of these inside the process
	lost    bool  // to one of these: the ledger has to be on disk before anybody is told that it is safe
	due     int64 // broker time by which it has to be kept
	waiters []waiter
	gated   []*session // to be pumped when the gate opens
}

type recordState byte

const (
	waiting   recordState = iota // in memory only
	writing                      // in a commit under way
	committed                    // on disk
	dropped                      // acknowledged by all before it was written
)

// owner is a session that is owed the message.
type owner struct {
	s    *session
	tag  uint32
	done bool

	relaxed bool // nobody is promised that it is safe for this one
}

// waiter is somebody to be told that the gateway has taken responsibility: a
// client's connection that owes an answer, or a function.
type waiter struct {
	c    *conn
	turn uint64 // which of c's answers
	done func(error)
}

// stored tells w when something it waits for has got to the disk, or never will.
func (w waiter) stored(t *turn, err error) {
	switch {
	case err == nil:
		w.tell(t)
	case w.done != nil:
		w.done(err)
	}
}

// size is what the record costs in memory while it waits.
func (r *record) size() int { return r.body.size() + 200 }

// The tag of an owner keeps what the session needs to send the message again:
// packet identifier, QoS, whether it was retained, whether it came through a
// bridge or a shared subscription, and its ordinal.
func newTag(it *item) uint32 {
	tag := uint32(it.id) | uint32(it.qos)<<16
	if it.retain {
		tag |= 1 << 18
	}
	if it.relay {
		tag |= 1 << 19
	}
	if it.shared {
		tag |= 1 << 20
	}
	return tag | uint32(it.ordinal)<<21
}

// itemFromTag is the reverse, for a message read from the journal.
func itemFromTag(tag uint32) item {
	return item{
		claim:  claim{id: uint16(tag), qos: mqtt.QoS(tag >> 16 & 3)},
		retain: tag&(1<<18) != 0, relay: tag&(1<<19) != 0, shared: tag&(1<<20) != 0, ordinal: uint16(tag >> 21),
	}
}
