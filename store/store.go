package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/internal/units"
)

// The bounds of Options.SegmentSize: below, the fixed pages of a segment
// outweigh its records; above, 32-bit boards cannot map enough of them.
const (
	DefaultSegment = 16 * units.MiB
	MinSegment     = 64 * units.KiB
	MaxSegment     = 128 * units.MiB
)

// Options of [Open].
type Options struct {
	// SegmentSize is when a segment of the journal takes no more records, from
	// 64 KiB to 128 MiB. 0 means 16 MiB. It may change between openings.
	SegmentSize units.Size

	// CompactInterval is how often Run looks for segments that are mostly dead.
	// 0 means a minute.
	CompactInterval time.Duration

	// Log gets one line for each file set aside and each damaged record. Nil
	// discards them.
	Log *slog.Logger
}

// Store is an open directory. Its methods may be called from any goroutine.
//
// Locks: Store.rewriting is taken before Store.commit, and that before Store.mu
// and before pool.mu. The latter two are never held together, and none but
// rewriting is held while a callback runs.
type Store struct {
	dir   string
	size  units.Size
	every time.Duration // between two looks of Run
	log   *slog.Logger
	pool  *pool

	readOnly bool // by OpenReadOnly: nothing in dir is ever changed

	bufs sync.Pool // of *chunk

	rewriting sync.Mutex // held by whoever writes a segment anew

	// commit is held by whoever writes.
	commit    sync.Mutex
	state     *boltFile
	tail      tail
	positions positionsFile
	scratch   []byte   // where the values of a batch are put together
	unnamed   bool     // the journal directory has changes that are not synced
	noted     uint64   // first record of the segment that state.db takes for the newest
	unnoted   bool     // it could not be told
	damaged   *salvage // whose file is open: what somebody may still read of an unrepaired segment

	// mu guards what readers see. The active segment is the last one.
	mu              sync.Mutex
	segments        []*segment
	unrepaired      *unrepaired      // the last one, if it is; nil: it is sound. Written with commit held, too
	sealedAsIs      *unrepaired      // a sealed one that is read as it is, nil: there is none
	unrepairedState *unrepairedState // of state.db; likewise
	last            uint64           // highest Seq committed
	queues          map[uint32]Queue
	loose           map[uint32]Queue    // what the newest segment has of those whose position only the positions file has
	corrupt         map[uint64]struct{} // records reported as damaged, at most maxReported
	stats           Stats
	wear            map[string]Wear
	aside           int64 // bytes of files set aside
	closed          bool

	moved       atomic.Bool   // a queue has, since Run looked
	soon        chan struct{} // holds a token when Run is to look at once
	compactions atomic.Uint64
}

// maxReported bounds the memory for damaged records. More of them are counted
// each time they are met.
const maxReported = 1024

// Stats says what the store holds and did. Counters start at 0 when it is opened.
type Stats struct {
	Segments     int    // of the journal
	JournalBytes int64  // length of their files
	StateBytes   int64  // length of state.db
	FirstSeq     uint64 // no record in the journal is lower
	LastSeq      uint64 // highest ever committed
	Queues       int

	Commits           uint64        // that wrote something
	Records           uint64        // committed
	RecordBytes       uint64        // of their Data
	FailedCommits     uint64        // Commit returned an error
	PositionsRefused  uint64        // by their file; the newest segment took them instead
	LastCommit        time.Duration // how long the last one took
	CommitTime        time.Duration // all of them together
	SegmentsRemoved   uint64        // because nobody needs them any more
	SegmentsRewritten uint64        // smaller, without what nobody needs
	CorruptRecords    uint64        // skipped because their checksum fails
	CorruptRows       uint64        // likewise, of state.db, marks and queues
	FilesQuarantined  uint64        // renamed to *.corrupt-<time>
	FilesMisplaced    uint64        // of the journal, which had another's name
	FilesMissing      uint64        // state.db was not there, and a journal was; or the newest segment
	TailLost          bool          // the newest segment was not there, or nothing of it parsed: how many records it held is not known
	StateLost         bool          // state.db was not there, or was written anew when the store was opened: rows may be lost
	Unrepaired        bool          // there is no room to repair the newest segment, so nothing is committed, or state.db, so no rows are
	StateRebuilt      uint64        // state.db was written anew, or marks were lost, while the store was open
	LastCommitFailure error         // nil after a commit that worked
}

// Open opens the store in dir, which it creates if needed. It reads state.db and
// the newest segment and looks at no other, so its time does not grow with the
// backlog. Damaged files are set aside and reported to Options.Log; the error is
// ErrLocked, ErrNewerFormat or what the operating system says.
func Open(dir string, o Options) (*Store, error) {
	o.SegmentSize = cmp.Or(o.SegmentSize, DefaultSegment)
	if o.SegmentSize < MinSegment || o.SegmentSize > MaxSegment {
		return nil, fmt.Errorf("open store: segment size %v must be from %v to %v", o.SegmentSize, MinSegment, MaxSegment)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := newStore(dir, o)
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.Close())
	}
	return s, nil
}

func newStore(dir string, o Options) *Store {
	s := &Store{
		dir: dir, size: o.SegmentSize, every: cmp.Or(o.CompactInterval, time.Minute), log: o.Log, pool: newPool(),
		queues: make(map[uint32]Queue), loose: make(map[uint32]Queue), corrupt: make(map[uint64]struct{}),
		wear: make(map[string]Wear), soon: make(chan struct{}, 1),
	}
	s.bufs.New = func() any { return new(chunk) }
	return s
}

func (s *Store) open() error {
	if err := checkRestored(s.dir); err != nil {
		return err
	}
	if err := makeDirs(filepath.Join(s.dir, journalDir)); err != nil {
		return err
	}
	if err := s.openState(); err != nil {
		return err
	}
	if err := s.findPositions(); err != nil {
		return err
	}
	if err := s.openJournal(); err != nil {
		return err
	}
	s.measureAside()
	s.removeReleased()
	s.moved.Store(true)
	return nil
}

// Close waits for the reads and the commit that are under way and lets go of the
// directory. Whoever calls the store afterwards gets ErrClosed.
func (s *Store) Close() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	done := s.closed
	s.closed = true
	s.mu.Unlock()
	if done {
		return nil
	}
	s.positions.close()
	if s.tail.file != nil {
		s.pool.release(s.tail.segment)
	}
	s.pool.close()
	if s.damaged != nil {
		s.damaged.close()
	}
	if s.sealedAsIs != nil {
		s.sealedAsIs.close()
	}
	if s.unrepairedState != nil {
		s.unrepairedState.close()
	}
	if s.state == nil {
		return nil
	}
	if err := s.state.close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// LastSeq returns the highest Seq that was ever committed. It outlives the
// removal of the records. After the newest segment was lost it is raised far
// enough that no number is used twice.
func (s *Store) LastSeq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// StateRebuilt returns how often state.db was written anew, or marks were lost, since
// the store was opened. Each time rows or marks may have been lost: whoever has them
// commits them again.
func (s *Store) StateRebuilt() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.StateRebuilt
}

// Queues returns all queues as last committed, in order of their ID.
func (s *Store) Queues() []Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	queues := make([]Queue, 0, len(s.queues))
	for _, q := range s.queues {
		queues = append(queues, q.clone())
	}
	slices.SortFunc(queues, func(a, b Queue) int { return cmp.Compare(a.ID, b.ID) })
	return queues
}

// Stats returns what the store holds and did.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	st := s.stats
	st.Segments, st.LastSeq, st.Queues = len(s.segments), s.last, len(s.queues)
	st.Unrepaired = s.unrepaired != nil || s.unrepairedState != nil
	if len(s.segments) > 0 {
		st.FirstSeq = s.segments[0].first
	}
	s.mu.Unlock()
	st.JournalBytes = s.journalBytes()
	st.StateBytes = s.stateBytes()
	return st
}

// fileSize is 0 for a file that is gone.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// setAside renames the damaged file at path and says so once.
func (s *Store) setAside(path string, damage error, meaning string) error {
	if s.readOnly {
		s.passOver(path, damage)
		return nil
	}
	to, err := quarantine(path, time.Now())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.reportAside(path, to, damage, meaning)
	return nil
}

// reportAside counts and logs a damaged file that is kept under another name.
func (s *Store) reportAside(path, kept string, damage error, meaning string) {
	s.log.Error("store: damaged file set aside; "+meaning, "file", path, "kept_as", kept, "damage", damage)
	s.mu.Lock()
	s.aside += fileSize(kept)
	s.stats.FilesQuarantined++
	s.mu.Unlock()
}

// reportRecords counts and logs damaged records, each once.
func (s *Store) reportRecords(path string, bad []badRecord) {
	for _, b := range bad {
		if s.countRecord(b.seq) {
			s.log.Error("store: damaged record skipped; it is lost to every queue it was owed to",
				"file", path, "seq", b.seq, "damage", b.err)
		}
	}
}

func (s *Store) countRecord(seq uint64) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.corrupt[seq]; known {
		return false
	}
	if len(s.corrupt) < maxReported {
		s.corrupt[seq] = struct{}{}
	}
	s.stats.CorruptRecords++
	return true
}

// reportRow counts and logs a damaged row.
func (s *Store) reportRow(path, table string, key []byte, damage error) {
	s.mu.Lock()
	s.stats.CorruptRows++
	s.mu.Unlock()
	s.log.Error("store: damaged row skipped", "file", path, "table", table, "key", fmt.Sprintf("%x", key), "damage", damage)
}
