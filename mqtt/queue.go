package mqtt

import "time"

// QueueLimits bound the queue of a session or inbox. The zero value is an inbox's
// queue without bounds but that of memory.
type QueueLimits struct {
	MaxMemory   int           // bytes in memory while somebody reads the queue; 0: as the sessions of clients
	MaxDisk     int64         // bytes that are owed; 0: any number
	MaxMessages int64         // messages that are owed; 0: any number
	MaxAge      time.Duration // since a message was published; 0: any
	Overflow    Overflow      // what happens at MaxDisk and MaxMessages; empty: DropOldest
	Relaxed     bool          // a publisher's acknowledgement does not wait for this queue
}

// Overflow is what happens when a queue is full.
type Overflow string

// The four policies. Whatever is dropped is counted as lost.
const (
	DropOldest Overflow = "drop_oldest" // the oldest messages make room
	DropNewest Overflow = "drop_newest" // the new message is dropped
	Reject     Overflow = "reject"      // whoever publishes is told so, or waits
	Thin       Overflow = "thin"        // of each topic every second of the older messages makes room
)
