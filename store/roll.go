package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// keepSpans is how many queues a sealed segment may hold something for to have
// that kept in memory. Otherwise its summary is read when the file is open.
const keepSpans = 64

func (s *Store) journal() string { return filepath.Join(s.dir, journalDir) }

// rollIfDue starts another segment if the active one is full or cannot be used
// on. Without records to write a full one will do: acknowledgements need no new
// space, so a queue drains also while the disk is full.
func (s *Store) rollIfDue(records bool) (rolled bool, err error) {
	full, err := s.tailFull(records)
	if err != nil {
		s.tail.suspect = true
	}
	if !s.tail.suspect && !full {
		return false, nil
	}
	if err := s.roll(); err != nil {
		return false, fmt.Errorf("start a new segment: %w", err)
	}
	return true, nil
}

// tailFull reports whether the active segment should take no more records. One
// that is large because of its marks and queues would make the next as large, so
// some of it must be records.
func (s *Store) tailFull(records bool) (full bool, err error) {
	t := &s.tail
	if !records || t.suspect {
		return false, nil
	}
	if t.sealed {
		return true, nil
	}
	if t.size < int64(s.size)/4 {
		return false, nil
	}
	err = t.file.view(func(tx *bolt.Tx) error {
		full = tx.Size() >= int64(s.size)
		return nil
	})
	return full, err
}

// roll seals the active segment and starts the next with all queues and marks.
// It may fail between any two steps and be called again; after a crash between
// them the segment that is newest then is complete.
func (s *Store) roll() error {
	if !s.tail.sealed && !s.tail.suspect {
		if err := s.seal(); err != nil {
			return err
		}
	}
	if err := s.takeBack(); err != nil {
		return err
	}
	next, err := s.createNext()
	if err != nil {
		return err
	}
	s.unnamed = true
	s.install(next)
	return s.nameJournal()
}

// seal writes what the active segment holds for each queue into it.
func (s *Store) seal() error {
	t := &s.tail
	txid := 0
	err := t.file.update(func(tx *bolt.Tx) error {
		txid = tx.ID()
		return errors.Join(putSummary(tx, t.segment.spans), putQueues(tx, s.looseBut(nil))) // only the writer changes them
	})
	s.wore(wearSegments, t.file.spent())
	if err != nil {
		s.doubt(err)
		return fmt.Errorf("seal %q: %w", t.file.path, err)
	}
	t.txid, t.sealed, t.made = txid, true, 0
	s.held()
	return nil
}

func putSummary(tx *bolt.Tx, spans map[uint32]span) error {
	b, err := tx.CreateBucketIfNotExists([]byte(summaryBucket))
	if err != nil {
		return err
	}
	for queue, sp := range spans {
		key := queueKey(queue)
		if err := b.Put(key, appendSpan(nil, sp, key)); err != nil {
			return err
		}
	}
	return nil
}

// createNext makes the segment behind the active one. Marks that cannot be read
// are lost with a message; a store that cannot be written any more would be worse.
func (s *Store) createNext() (next tail, err error) {
	old, first := s.tail.file, s.LastSeq()+1
	err = old.view(func(tx *bolt.Tx) error {
		next, err = s.createSegment(first, tx.Bucket([]byte(marksBucket)))
		return err
	})
	if isCorrupt(err) {
		s.log.Error("store: the marks (packet identifiers of QoS 2) cannot be read and are lost; messages under way may arrive twice",
			"file", old.path, "damage", err)
		s.mu.Lock()
		s.stats.StateRebuilt++
		s.mu.Unlock()
		next, err = s.createSegment(first, nil)
	}
	return next, err
}

// createSegment makes the segment whose first record will be first, with all
// queues and, if not nil, marks.
func (s *Store) createSegment(first uint64, marks *bolt.Bucket) (tail, error) {
	t := tail{segment: &segment{path: segmentPath(s.dir, first), first: first, spans: make(map[uint32]span)}}
	f, err := createFile(t.segment.path, segmentOptions(s.size), func(tx *bolt.Tx) error {
		t.txid = tx.ID()
		return s.putSnapshot(tx, first, marks)
	})
	if err != nil {
		return t, err
	}
	s.wore(wearSegments, f.spent())
	t.file = f
	return t, nil
}

func (s *Store) putSnapshot(tx *bolt.Tx, first uint64, marks *bolt.Bucket) error {
	meta := tx.Bucket([]byte(metaBucket))
	if err := meta.Put([]byte(firstKey), frame([]byte(firstKey), seqKey(first))); err != nil {
		return err
	}
	if _, err := tx.CreateBucket([]byte(queuesBucket)); err != nil {
		return err
	}
	if err := putQueues(tx, s.Queues()); err != nil {
		return err
	}
	b, err := tx.CreateBucket([]byte(marksBucket))
	if err != nil || marks == nil {
		return err
	}
	return marks.ForEach(func(k, v []byte) error { return b.Put(k, v) })
}

// install makes next the active segment. One that holds no record yet and starts
// at the same number was replaced on disk and leaves the chain.
func (s *Store) install(next tail) {
	old := s.tail
	s.pool.adopt(next.segment, next.file)
	s.tail = next
	s.held()
	s.positions.refused = false
	s.mu.Lock()
	n := len(s.segments)
	replaced := n > 0 && s.segments[n-1].first == next.segment.first
	if replaced {
		s.segments = slices.Delete(slices.Clone(s.segments), n-1, n)
	}
	if old.file != nil && len(old.segment.spans) > keepSpans {
		old.segment.spans = nil
	}
	s.segments = append(s.segments, next.segment)
	s.mu.Unlock()
	if old.file == nil {
		return
	}
	s.pool.release(old.segment)
	switch {
	case replaced:
		s.pool.drop(old.segment)
	case old.suspect:
		s.replace(old.segment, old.segment.spans) // what bbolt knows of the file may be wrong
	}
}

// removeReleased removes segments from the oldest on while no queue is owed
// anything in them. That a file cannot be removed is no failure of the commit;
// it is tried again with the next one.
func (s *Store) removeReleased() {
	removed := false
	for g := s.released(); g != nil; g = s.released() {
		if err := os.Remove(g.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Error("store: cannot remove a segment that nobody needs; the disk fills until it can be removed", "file", g.path, "error", err)
			break
		}
		removed = true
		s.forget(g)
	}
	if removed {
		s.positions.refused = false // there may be room now
		s.unnamed = true
		if err := s.nameJournal(); err != nil {
			s.log.Error("store: cannot sync the journal directory", "error", err)
		}
	}
}

// released returns the oldest segment if it is sealed and every queue that is
// owed anything is past it, as the newest segment has it.
func (s *Store) released() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.segments) < 2 {
		return nil
	}
	last := s.segments[1].first - 1
	for id := range s.queues {
		if q, _ := s.asHeld(id); q.Pending > 0 && q.Acked < last {
			return nil
		}
	}
	return s.segments[0]
}

// unchain takes g out of the list of segments.
func (s *Store) unchain(g *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.segments, g); i >= 0 {
		s.segments = slices.Delete(s.segments, i, i+1)
	}
}

// inChain reports whether the store is closed and whether g is still in the list
// of segments.
func (s *Store) inChain(g *segment) (closed, in bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed, slices.Contains(s.segments, g)
}
