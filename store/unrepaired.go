package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// unrepaired stands for the newest segment while there is no room on the disk to
// write anew what parses of it, or to begin one at all. It is read as it is, and
// nothing is committed before it is repaired. It stands for a sealed one likewise,
// which holds up nobody.
type unrepaired struct {
	*segment
	damage  error // nil: there is no such file yet
	why     error // it could not be written
	salvage *salvage
	reading sync.RWMutex // held by whoever reads the records
	closed  bool
	seqs    []uint64             // the records that parse
	marks   map[string]savedRow  // likewise
	rest    func(*bolt.Tx) error // writes all that is not a record
}

// leave makes u the newest segment.
func (s *Store) leave(u *unrepaired) {
	s.log.Error("store: there is no room for the newest segment; nothing is taken until there is, and what it still holds is delivered",
		"file", u.path, "damage", u.damage, "error", u.why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unrepaired = u
	if n := len(u.seqs); n > 0 {
		s.last = max(s.last, u.seqs[n-1])
	}
	if !slices.Contains(s.segments, u.segment) {
		s.segments = append(s.segments, u.segment)
	}
}

// asIs returns how g is to be read, nil for one that is sound.
func (s *Store) asIs(g *segment) *unrepaired {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range []*unrepaired{s.unrepaired, s.sealedAsIs} {
		if u != nil && u.segment == g {
			return u
		}
	}
	return nil
}

// err is why bbolt cannot open the segment.
func (u *unrepaired) err() error {
	if u.damage == nil {
		return &CorruptError{Path: u.path, Err: errMissing}
	}
	return u.damage
}

// read is readChunk for it.
func (u *unrepaired) read(c *chunk, queue uint32, after, limit uint64) (next uint64, err error) {
	u.reading.RLock()
	defer u.reading.RUnlock()
	if u.closed {
		return after, u.damage
	}
	next = limit
	from, _ := slices.BinarySearch(u.seqs, after+1)
	_ = u.salvage.each(u.seqs[from:], func(seq uint64, value []byte) error {
		if seq > limit {
			return errEnough
		}
		if !c.copyRecord(queue, seqKey(seq), value) {
			next = seq
			return errEnough
		}
		return nil
	})
	return next, nil
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// eachMark is Marks for it.
func (u *unrepaired) eachMark(fn func(key, value []byte) error) error {
	return eachSaved(u.marks, fn)
}

// mend repairs the newest segment if that could not be done before. The caller holds
// commit.
func (s *Store) mend() error {
	u := s.unrepaired
	if u == nil {
		return nil
	}
	err := s.roomFor(fileSize(u.path) + growStep)
	if err == nil {
		err = s.repairLate(u)
	}
	if err != nil {
		return fmt.Errorf("write the newest segment: %w", err)
	}
	s.mu.Lock()
	s.unrepaired = nil
	s.mu.Unlock()
	s.log.Info("store: there is room for the newest segment")
	return nil
}

// roomFor fails if there is no room for so many bytes. Whoever tries again and again
// to write them would wear the card out.
func (s *Store) roomFor(bytes int64) error {
	if sp, err := s.Space(); err == nil && sp.Free < bytes {
		return fmt.Errorf("it takes %d bytes, %d are free: %w", bytes, sp.Free, syscall.ENOSPC)
	}
	return nil
}

// repairLate writes the segment and opens it.
func (s *Store) repairLate(u *unrepaired) error {
	if u.damage == nil {
		next, err := s.createSegment(u.first, nil)
		if err != nil {
			return err
		}
		s.install(next)
		return s.nameJournal()
	}
	if _, err := s.writeSalvaged(u.segment, u.salvage, u.damage, u.seqs, u.rest); err != nil {
		return err
	}
	return s.openNewest(u.segment)
}
