// Package limits is how the configuration bounds a queue: the same keys for the
// sessions of clients and for each bridge.
//
// There is one noun. A [Queue] is the section "queue".
package limits

import (
	"cmp"
	"math"
	"slices"
	"time"

	"tidegate/internal/check"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// Queue is a section "queue".
type Queue struct {
	MaxMemory   units.Size     `yaml:"max_memory"`   // while somebody reads the queue
	MaxDisk     units.Size     `yaml:"max_disk"`     // of what is owed
	MaxMessages int            `yaml:"max_messages"` // 0: any number
	MaxAge      units.Duration `yaml:"max_age"`      // 0: any
	Overflow    mqtt.Overflow  `yaml:"overflow"`     // one of overflows
	Durability  string         `yaml:"durability"`   // safe: a publisher's acknowledgement waits for the queue; relaxed: it does not
}

const (
	safe    = "safe"
	relaxed = "relaxed"
)

var overflows = []mqtt.Overflow{mqtt.DropOldest, mqtt.DropNewest, mqtt.Reject, mqtt.Thin}

// SetDefaults fills in what is not set; maxDisk is for who reads this queue.
func (q *Queue) SetDefaults(maxDisk units.Size) {
	q.MaxMemory = cmp.Or(q.MaxMemory, 256*units.KiB)
	q.MaxDisk = cmp.Or(q.MaxDisk, maxDisk)
	q.Overflow = cmp.Or(q.Overflow, mqtt.DropOldest)
	q.Durability = cmp.Or(q.Durability, safe)
}

// Check reports what is wrong with q once its defaults are filled in.
func (q *Queue) Check() check.Problems {
	var p check.Problems
	if q.MaxMemory < 4*units.KiB || q.MaxMemory > math.MaxInt32 {
		p.Add("max_memory", "%v is out of range; it takes 4KiB to 2047MiB", q.MaxMemory)
	}
	if q.MaxDisk < 64*units.KiB {
		p.Add("max_disk", "%v is too little for a queue; it takes 64KiB or more", q.MaxDisk)
	}
	if q.MaxMessages < 0 {
		p.Add("max_messages", "%d is no number of messages; write 1 or more, or 0 for any number", q.MaxMessages)
	}
	if age := time.Duration(q.MaxAge); age != 0 && age < time.Second {
		p.Add("max_age", "%v is too short for a queue; write 1s or more, or 0 for any age", q.MaxAge)
	}
	if !slices.Contains(overflows, q.Overflow) {
		p.Add("overflow", "%q is unknown: write drop_oldest, drop_newest, reject or thin", q.Overflow)
	}
	if q.Durability != safe && q.Durability != relaxed {
		p.Add("durability", "%q is unknown: write safe or relaxed", q.Durability)
	}
	return p
}

// Limits returns q as the broker takes it.
func (q *Queue) Limits() mqtt.QueueLimits {
	return mqtt.QueueLimits{
		MaxMemory: int(q.MaxMemory), MaxDisk: int64(q.MaxDisk), MaxMessages: int64(q.MaxMessages),
		MaxAge: time.Duration(q.MaxAge), Overflow: q.Overflow, Relaxed: q.Durability == relaxed,
	}
}
