package store

import (
	"maps"

	bolt "go.etcd.io/bbolt"
)

// What the store writes for, beside the tables of state.db, each of which is a
// part of its own.
const (
	wearMessages  = "messages"  // records
	wearPositions = "positions" // of queues
	wearMarks     = "marks"
	wearSegments  = "segments" // making and sealing them, and the names in the directory
	wearRewrite   = "rewrite"  // of segments and damaged files
)

// Wear is what was written to the disk for one part of the store. File systems
// with a journal of their own write more.
type Wear struct {
	Bytes uint64 // in whole pages, as they are written
	Syncs uint64
}

func (w Wear) plus(o Wear) Wear { return Wear{w.Bytes + o.Bytes, w.Syncs + o.Syncs} }

// Wear returns what the store has written since it was opened, by part.
func (s *Store) Wear() map[string]Wear {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.wear)
}

// Written returns how many bytes that is.
func (s *Store) Written() (bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wear {
		bytes += w.Bytes
	}
	return bytes
}

func (s *Store) wore(part string, w Wear) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wear[part] = s.wear[part].plus(w)
}

// shareWear divides what one transaction has written among parts, by how many
// bytes it was given for each. The syncs are those of the largest.
func (s *Store) shareWear(w Wear, given map[string]int) {
	if w == (Wear{}) {
		return
	}
	all, largest := 0, ""
	for part, n := range given {
		if all += n; largest == "" || n > given[largest] {
			largest = part
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for part, n := range given {
		s.wear[part] = s.wear[part].plus(Wear{Bytes: w.Bytes * uint64(n) / uint64(all)})
	}
	s.wear[largest] = s.wear[largest].plus(Wear{Syncs: w.Syncs})
}

// given returns how many bytes the journal part of b has for each part.
func (b *Batch) given() map[string]int {
	given := make(map[string]int)
	for i := range b.Records {
		given[wearMessages] += recordSize(&b.Records[i])
	}
	for i := range b.Queues {
		given[wearPositions] += queueSize + len(b.Queues[i].Note)
	}
	for _, m := range b.Marks {
		given[wearMarks] += rowSize(m)
	}
	return given
}

// queueSize is about what a position takes without its note.
const queueSize = 32

func rowSize(r Row) int { return frameSize + recordOverhead + len(r.Key) + len(r.Value) }

func givenRows(rows []Row) map[string]int {
	given := make(map[string]int)
	for _, r := range rows {
		given[r.Table] += rowSize(r)
	}
	return given
}

// spent returns what was written to f since it was last asked. Only whoever
// writes calls it.
func (f *boltFile) spent() Wear {
	w := f.wear
	f.wear = Wear{}
	return w
}

// commit commits tx and notes what that writes: its pages, a meta page, a sync
// after each of both, and one when the file grows.
func (f *boltFile) commit(tx *bolt.Tx) error {
	err := tx.Commit()
	grown := f.measure()
	stats := tx.Stats()
	f.wear.Bytes += uint64(stats.GetPageAlloc()) + pageSize
	f.touched.Add(stats.GetPageAlloc())
	if f.db.NoSync {
		return err
	}
	f.wear.Syncs += 2
	if grown {
		f.wear.Syncs++
	}
	return err
}
