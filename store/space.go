package store

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Space is what the store takes of its file system, and what is left there, in
// bytes and files.
type Space struct {
	Journal int64 // segments
	State   int64 // state.db
	Aside   int64 // damaged files that were set aside; only a person removes them

	Free       int64 // for this process
	Total      int64
	FreeFiles  int64 // inodes
	TotalFiles int64 // 0: the file system does not limit them
}

// Used is what the whole directory takes.
func (s Space) Used() int64 { return s.Journal + s.State + s.Aside }

// Space returns what the store takes and what is left. It asks only the file system,
// so it may be called with each commit.
func (s *Store) Space() (Space, error) {
	sp, err := fileSystem(s.dir)
	s.mu.Lock()
	sp.Aside = s.aside
	s.mu.Unlock()
	sp.Journal, sp.State = s.journalBytes(), s.stateBytes()
	return sp, err
}

// stateBytes is the length of state.db.
func (s *Store) stateBytes() int64 {
	s.mu.Lock()
	state := s.state
	s.mu.Unlock()
	if state == nil {
		return fileSize(filepath.Join(s.dir, stateName))
	}
	return state.size.Load()
}

// journalBytes sums up the files of the journal. Those that take no records do not
// change any more and are asked for once.
func (s *Store) journalBytes() (sum int64) {
	s.mu.Lock()
	segments := slices.Clone(s.segments)
	s.mu.Unlock()
	for _, g := range segments {
		if g.size.Load() == 0 {
			g.size.CompareAndSwap(0, fileSize(g.path))
		}
		sum += g.size.Load()
	}
	return sum
}

// measureAside sums up the damaged files that were set aside before.
func (s *Store) measureAside() {
	for _, dir := range []string{s.dir, s.journal()} {
		entries, err := os.ReadDir(dir)
		if err != nil { // it was read a moment ago
			s.log.Warn("store: files that were set aside may not count against store.max_size", "directory", dir, "error", err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), corruptInfix) {
				s.aside += fileSize(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// Held returns how many bytes of data the journal holds behind the position of
// queue, about: records that lie in one segment with the position are taken to be
// of equal size. It may read the summaries of segments, once each.
func (s *Store) Held(queue uint32) (bytes int64, err error) {
	s.mu.Lock()
	segments, q := slices.Clone(s.segments), s.queues[queue]
	active := segments[len(segments)-1].spans[queue]
	s.mu.Unlock()
	bytes = active.behind(q.Acked)
	for _, g := range segments[:len(segments)-1] {
		spans, err := s.spansOf(g)
		if err != nil {
			return bytes, err
		}
		bytes += spans[queue].behind(q.Acked)
	}
	return bytes, nil
}

// behind estimates how many bytes of the span lie behind the position acked.
func (s span) behind(acked uint64) int64 {
	switch {
	case acked >= s.last:
		return 0
	case acked < s.first:
		return int64(s.bytes)
	}
	return int64(float64(s.bytes) * float64(s.last-acked) / float64(s.last-s.first+1))
}
