package store

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// OpenReadOnly opens the store in dir, which no process may have open for writing,
// and changes nothing in it, whatever it finds: what Open would set aside is passed
// over and reported to Options.Log. Several processes may do that at a time; none
// can write meanwhile. The error is ErrLocked, ErrNewerFormat, a CorruptError if
// state.db cannot be read, or what the operating system says.
func OpenReadOnly(dir string, o Options) (*Store, error) {
	o.SegmentSize = DefaultSegment
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	s := newStore(dir, o)
	s.readOnly = true
	if err := s.openForReading(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) openForReading() (err error) {
	if err := checkRestored(s.dir); err != nil {
		return err
	}
	if s.state, err = openFile(filepath.Join(s.dir, stateName), bolt.Options{ReadOnly: true}, nil); err != nil {
		return err
	}
	if err := s.readNoted(); err != nil {
		return err
	}
	lost, _, err := s.listJournal()
	if err != nil {
		return err
	}
	s.missNewest(lost)
	if err := s.findPositions(); err != nil {
		return err
	}
	for len(s.segments) > 0 {
		g := s.segments[len(s.segments)-1]
		if err = s.openNewest(g); !isCorrupt(err) {
			break
		}
		s.passOver(g.path, err)
		s.unchain(g)
	}
	if len(s.segments) == 0 {
		return cmp.Or(err, fmt.Errorf("%q holds no segment", s.journal()))
	}
	s.measureAside()
	return err
}

// newestOptions are those of the segment that takes commits, or would.
func (s *Store) newestOptions() bolt.Options {
	if s.readOnly {
		return bolt.Options{ReadOnly: true}
	}
	return segmentOptions(s.size)
}

// passOver says once what setAside would move.
func (s *Store) passOver(path string, damage error) {
	s.log.Error("store: damaged file passed over; the gateway sets it aside when it starts", "file", path, "damage", damage)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.FilesQuarantined++
}
