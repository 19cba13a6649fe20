package store

import (
	"bytes"
	"fmt"
	"math"
)

// Batch is everything that is dirty. An empty batch is lawful and writes nothing.
type Batch struct {
	// Records to append, in ascending order of Seq, above every Seq that was
	// committed before.
	Records []Record

	// Queues whose position changed.
	Queues []Queue

	// Marks are small rows that change in the same transaction as Records and
	// Queues, as the packet identifiers of QoS 2 must. A nil Value deletes.
	// Table is not used.
	Marks []Row

	// Rows of state.db. A nil Value deletes. They become durable before the
	// rest of the batch.
	Rows []Row
}

// Record is one piece of data and those to whom it is owed.
type Record struct {
	Seq    uint64 // at least 1
	Owners []Owner
	Data   []byte
}

// Owner is one queue that a record is owed to.
type Owner struct {
	Queue uint32 // Queue.ID
	Tag   uint32 // means something to the caller only
}

// Queue is the position of one consumer in the sequence of records.
type Queue struct {
	ID uint32

	// Acked releases every record with Seq <= Acked that is owed to the queue.
	Acked uint64

	// Pending is how many records in the journal the queue is still owed. It must
	// not be too small: a queue with Pending 0 pins no segment, so what it is owed
	// may be removed. What was acknowledged out of order, behind Acked, need not
	// be counted; the caller knows of it from Note. After damage it is too large.
	Pending uint64

	// Note means something to the caller only. It is written with every change
	// of the queue, so it should be some tens of bytes.
	Note []byte

	// Gone forgets the queue. The other fields but ID are then ignored.
	Gone bool
}

// Row is a small value with a name.
type Row struct {
	Table      string
	Key, Value []byte
}

// maxKey is the longest key that bbolt takes (its MaxKeySize).
const maxKey = 32768

// maxData bounds the data of one record, so that its size fits 32-bit platforms
// with room to spare. MQTT's own bound is 256 MiB.
const maxData = 512 << 20

// hasJournal reports whether the journal part has anything to write.
func (b *Batch) hasJournal() bool {
	return len(b.Records) > 0 || len(b.Queues) > 0 || len(b.Marks) > 0
}

// check reports a mistake of the caller. It runs before anything is written, so
// that a refused batch leaves no trace.
func (b *Batch) check(last uint64) error {
	for i := range b.Records {
		r := &b.Records[i]
		if r.Seq <= last || r.Seq == math.MaxUint64 {
			return fmt.Errorf("commit record %d: its number must be above %d and ascend", r.Seq, last)
		}
		if len(r.Data) > maxData {
			return fmt.Errorf("commit record %d: %d bytes are more than %d", r.Seq, len(r.Data), maxData)
		}
		last = r.Seq
	}
	for _, rows := range [][]Row{b.Marks, b.Rows} {
		for _, r := range rows {
			if len(r.Key) == 0 || len(r.Key) > maxKey {
				return fmt.Errorf("commit row of table %q: the key has %d bytes, must have 1 to %d", r.Table, len(r.Key), maxKey)
			}
		}
	}
	for _, r := range b.Rows {
		if r.Table == "" || r.Table == metaBucket {
			return fmt.Errorf("commit row %q: %q cannot name a table", r.Key, r.Table)
		}
	}
	return nil
}

// clone makes q independent of the caller's memory.
func (q Queue) clone() Queue {
	q.Note = bytes.Clone(q.Note)
	return q
}
