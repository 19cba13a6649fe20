package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Inspect walks everything in the store in dir, which no process may have open for
// writing, and reports all that is wrong with it: pages, trees, checksums, the order
// of the records and summaries. It changes nothing. What was set aside before is
// not looked at. Of Queue.Pending it is checked only that so many records are there,
// as only the caller knows what was acknowledged out of order. The error says why it
// could not look.
func Inspect(dir string) (*Report, error) {
	v, err := inspectDir(dir)
	if err != nil {
		return nil, fmt.Errorf("verify store: %w", err)
	}
	return &v.report, nil
}

// Verify is Inspect with all damage as one error.
func Verify(dir string) error {
	r, err := Inspect(dir)
	if err != nil {
		return err
	}
	return r.Err()
}

// inspectDir returns the verifier for what tests want to know beyond the report.
func inspectDir(dir string) (*verifier, error) {
	s := &Store{dir: dir}
	lost, _, err := s.listJournal()
	if err != nil {
		return nil, err
	}
	v := newVerifier(dir)
	v.alone = true
	path := filepath.Join(dir, stateName)
	state, err := openFile(path, bolt.Options{ReadOnly: true}, nil) // its lock keeps others out
	switch {
	case isCorrupt(err):
		v.unreadable(path, err)
	case errors.Is(err, fs.ErrNotExist) && len(s.segments) > 0:
		v.unreadable(path, errMissing)
	case err != nil:
		return nil, err
	default:
		defer state.close()
		v.file(path, state.view, v.state)
	}
	if n := len(s.segments); v.newest > lost && (n == 0 || v.newest > s.segments[n-1].first) {
		v.unreadable(segmentPath(dir, v.newest), errMissing)
	}
	v.journal(s.segments, func(g *segment, fn func(*bolt.Tx) error) error {
		f, err := openFile(g.path, bolt.Options{ReadOnly: true}, nil)
		if err != nil {
			return err
		}
		defer f.close()
		return f.view(fn)
	})
	v.count()
	return v, v.refused
}

// Inspect does what the function Inspect does on an open store. Commits wait while
// it looks at state.db and the newest segment, not while it looks at the others;
// reads never do. Segments that are removed meanwhile are passed over.
func (s *Store) Inspect() (*Report, error) {
	s.rewriting.Lock() // sealed segments stay as they are, or are removed
	defer s.rewriting.Unlock()
	v := newVerifier(s.dir)
	segments, err := s.inspectNewest(v)
	if err != nil {
		return nil, err
	}
	v.journalFrom(segments, len(segments)-2, func(g *segment, fn func(*bolt.Tx) error) error {
		return s.pool.view(g, func(_ *handle, tx *bolt.Tx) error { return fn(tx) })
	})
	for i, g := range segments {
		closed, in := s.inChain(g)
		if closed {
			return nil, ErrClosed
		}
		if in && fileSize(g.path) == 0 {
			v.unreadable(g.path, errMissing)
			v.bound(g, lastOf(segments, i))
		}
	}
	v.count()
	return &v.report, v.refused
}

// inspectNewest looks at what commits change, and returns the segments as they are
// at that moment.
func (s *Store) inspectNewest(v *verifier) ([]*segment, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	closed, segments := s.closed, append([]*segment(nil), s.segments...)
	s.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if u := s.stateAsIs(); u != nil {
		v.unreadable(u.path, u.damage)
	} else {
		v.file(s.state.path, s.state.view, v.state)
	}
	g := segments[len(segments)-1]
	if u := s.asIs(g); u != nil {
		v.unreadable(g.path, u.err())
		return segments, nil
	}
	v.segment(g, math.MaxUint64, func(fn func(*bolt.Tx) error) error {
		return s.pool.view(g, func(_ *handle, tx *bolt.Tx) error { return fn(tx) })
	})
	return segments, nil
}

// Verify is Inspect with all damage as one error.
func (s *Store) Verify() error {
	r, err := s.Inspect()
	if err != nil {
		return err
	}
	return r.Err()
}

// verifier collects what is wrong.
type verifier struct {
	dir     string
	report  Report
	refused error             // why a file could not be looked at, which is no damage
	removed bool              // a file was, meanwhile
	queues  map[uint32]Queue  // of the newest segment
	owed    map[uint32]uint64 // records behind Queue.Acked
	alone   bool              // nobody else uses the open files
	newest  uint64            // first record of the segment that state.db takes for the newest
}

func newVerifier(dir string) *verifier {
	return &verifier{dir: dir, report: Report{Damage: []Damage{}}, owed: make(map[uint32]uint64)}
}

// file walks the pages of the file at path and only if they are sound lets bbolt
// and fn at it.
func (v *verifier) file(path string, view func(func(*bolt.Tx) error) error, fn func(string, *bolt.Tx) error) {
	err := walkFile(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		v.removed = true
		return
	}
	v.report.Files++
	if err == nil {
		err = view(func(tx *bolt.Tx) error {
			v.tree(path, tx)
			return fn(path, tx)
		})
	}
	v.unreadable(path, err)
}

// unreadable notes that the rest of the file at path cannot be looked at.
func (v *verifier) unreadable(path string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && !v.alone:
		v.removed = true
	case errors.Is(err, ErrNewerFormat):
		v.refused = errors.Join(v.refused, err)
	default:
		v.finding(path, err).Unreadable = true
	}
}

// finding notes damage.
func (v *verifier) finding(path string, err error) *Damage {
	if !isCorrupt(err) {
		err = &CorruptError{Path: path, Err: err}
	}
	return v.report.add(v.dir, path, err)
}

// tree runs bbolt's own check. In a file opened for reading it would load the
// list of free pages, which is not safe beside other readers; and there it only
// finds what the page walk finds.
func (v *verifier) tree(path string, tx *bolt.Tx) {
	if tx.DB().IsReadOnly() && !v.alone {
		return
	}
	for err := range tx.Check() {
		v.finding(path, err)
	}
}

func (v *verifier) state(path string, tx *bolt.Tx) error {
	if err := checkTables(tx); err != nil {
		v.finding(path, err)
	}
	v.newest = newestOf(tx)
	return tx.ForEach(func(table []byte, b *bolt.Bucket) error {
		v.rows(path, string(table), b)
		return nil
	})
}

func (v *verifier) rows(path, table string, b *bolt.Bucket) {
	if b == nil {
		v.finding(path, fmt.Errorf("table %q is missing", table))
		return
	}
	_ = b.ForEach(func(k, val []byte) error {
		v.report.Rows++
		if _, err := unframe(k, val); err != nil {
			v.finding(path, fmt.Errorf("table %q key %x: %w", table, k, err)).Rows++
		}
		return nil
	})
}

// journal goes from the newest segment, which has the queues, to the oldest.
func (v *verifier) journal(segments []*segment, view func(*segment, func(*bolt.Tx) error) error) {
	v.journalFrom(segments, len(segments)-1, view)
}

func (v *verifier) journalFrom(segments []*segment, newest int, view func(*segment, func(*bolt.Tx) error) error) {
	for i := newest; i >= 0; i-- {
		g := segments[i]
		v.segment(g, lastOf(segments, i), func(fn func(*bolt.Tx) error) error { return view(g, fn) })
	}
}

// lastOf returns the last number that belongs to the segment i.
func lastOf(segments []*segment, i int) uint64 {
	if i+1 < len(segments) {
		return segments[i+1].first - 1
	}
	return math.MaxUint64
}

// segment checks g, to which the numbers up to limit belong.
func (v *verifier) segment(g *segment, limit uint64, view func(func(*bolt.Tx) error) error) {
	v.file(g.path, view, func(path string, tx *bolt.Tx) error {
		if v.queues == nil {
			v.loadQueues(path, tx)
		}
		v.rows(path, marksBucket, tx.Bucket([]byte(marksBucket)))
		return v.records(g, limit, tx)
	})
	v.bound(g, limit)
}

// count notes which queues miss something, if all files could be looked at.
func (v *verifier) count() {
	if v.removed || len(v.report.Damage) > 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(v.queues)) {
		if q := v.queues[id]; q.Pending > v.owed[id] {
			v.report.Missing = append(v.report.Missing, Missing{id, q.Pending, v.owed[id]})
		}
	}
}

// bound says how many records can be concerned if g cannot be read. Of the newest
// segment nobody knows.
func (v *verifier) bound(g *segment, limit uint64) {
	if d := v.report.of(v.dir, g.path); d != nil && d.Unreadable && limit != math.MaxUint64 {
		d.AtMost = limit - g.first + 1
	}
}

func (v *verifier) loadQueues(path string, tx *bolt.Tx) {
	l := newestLoader{queues: make(map[uint32]Queue)}
	if err := l.loadQueues(tx.Bucket([]byte(queuesBucket))); err != nil {
		v.finding(path, err)
	}
	for _, key := range l.badQueues {
		v.finding(path, fmt.Errorf("queue %x cannot be read", key)).Rows++
	}
	v.queues = l.queues
	v.positions(path, tx)
}

// positions takes over those that are beyond the newest segment, which tx has.
func (v *verifier) positions(path string, tx *bolt.Tx) {
	b, err := baseOf(tx)
	if err != nil {
		v.finding(path, fmt.Errorf("%s: %w", madeKey, err))
	}
	file := filepath.Join(v.dir, positionsName)
	all, damage, err := readPositions(file)
	if v.unreadable(file, err); damage != nil {
		v.finding(file, damage)
	}
	for _, q := range beyond(all, b) {
		if _, known := v.queues[q.ID]; known {
			v.queues[q.ID] = q
		}
	}
}

// records checks the records of g and compares them with its summary.
func (v *verifier) records(g *segment, limit uint64, tx *bolt.Tx) error {
	if err := errors.Join(checkFirst(tx, g.first), checkBuckets(tx)); err != nil {
		return err
	}
	spans, damaged := make(map[uint32]span), false
	err := allRecords(tx, g.first-1, limit, func(key, value []byte) {
		seq := binary.BigEndian.Uint64(key)
		r, err := viewRecord(key, value)
		if err != nil {
			v.finding(g.path, &CorruptError{Path: g.path, Seq: seq, Err: err}).Records++
			damaged = true
			return
		}
		v.report.Records++
		r.each(func(o Owner) {
			addSpan(spans, o.Queue, seq, len(r.data))
			if q, ok := v.queues[o.Queue]; ok && seq > q.Acked {
				v.owed[o.Queue]++
			}
		})
	})
	if err != nil {
		return err
	}
	summary, ok, err := readSpans(g.path, tx)
	if ok && err == nil && !damaged && !maps.Equal(spans, summary) {
		err = errors.New("its summary does not match its records")
	}
	return err
}
