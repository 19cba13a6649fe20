package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// Verify walks everything in the store in dir, which no process may have open,
// and returns all that is wrong with it: pages, trees, checksums, the order of
// the records and summaries. It changes nothing. What was set aside before is
// not looked at. Queue.Pending is not checked, as only the caller knows what was
// acknowledged out of order.
func Verify(dir string) error {
	_, err := verifyDir(dir)
	return err
}

// verifyDir returns the verifier for what tests want to know beyond errors.
func verifyDir(dir string) (*verifier, error) {
	path := filepath.Join(dir, stateName)
	state, err := openFile(path, bolt.Options{ReadOnly: true}, nil) // its lock keeps others out
	if err != nil {
		return nil, fmt.Errorf("verify store: %w", err)
	}
	defer state.close()
	s := &Store{dir: dir}
	if _, _, err := s.listJournal(); err != nil {
		return nil, fmt.Errorf("verify store: %w", err)
	}
	v := &verifier{owed: make(map[uint32]uint64), alone: true}
	v.file(path, state.view, v.state)
	v.journal(s.segments, func(g *segment, fn func(*bolt.Tx) error) error {
		f, err := openFile(g.path, bolt.Options{ReadOnly: true}, nil)
		if err != nil {
			return err
		}
		defer f.close()
		return f.view(fn)
	})
	return v, v.result()
}

// Verify does what the function Verify does on an open store. Commits wait for
// it, reads do not.
func (s *Store) Verify() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	closed, segments := s.closed, append([]*segment(nil), s.segments...)
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	v := verifier{owed: make(map[uint32]uint64)}
	v.file(s.state.path, s.state.view, v.state)
	v.journal(segments, func(g *segment, fn func(*bolt.Tx) error) error {
		return s.pool.view(g, func(_ *handle, tx *bolt.Tx) error { return fn(tx) })
	})
	return v.result()
}

// verifier collects what is wrong.
type verifier struct {
	errs   []error
	queues map[uint32]Queue  // of the newest segment
	owed   map[uint32]uint64 // records behind Queue.Acked
	alone  bool              // nobody else uses the open files
}

func (v *verifier) add(path string, err error) {
	if err != nil && !isCorrupt(err) {
		err = &CorruptError{Path: path, Err: err}
	}
	if err != nil {
		v.errs = append(v.errs, err)
	}
}

func (v *verifier) result() error {
	if len(v.errs) == 0 {
		return nil
	}
	return fmt.Errorf("verify store: %w", errors.Join(v.errs...))
}

// file walks the pages of the file at path and only if they are sound lets bbolt
// and fn at it.
func (v *verifier) file(path string, view func(func(*bolt.Tx) error) error, fn func(string, *bolt.Tx) error) {
	if err := walkFile(path, nil); err != nil {
		v.add(path, err)
		return
	}
	v.add(path, view(func(tx *bolt.Tx) error {
		v.tree(path, tx)
		return fn(path, tx)
	}))
}

// tree runs bbolt's own check. In a file opened for reading it would load the
// list of free pages, which is not safe beside other readers; and there it only
// finds what the page walk finds.
func (v *verifier) tree(path string, tx *bolt.Tx) {
	if tx.DB().IsReadOnly() && !v.alone {
		return
	}
	for err := range tx.Check() {
		v.add(path, err)
	}
}

func (v *verifier) state(path string, tx *bolt.Tx) error {
	return tx.ForEach(func(table []byte, b *bolt.Bucket) error {
		v.rows(path, string(table), b)
		return nil
	})
}

func (v *verifier) rows(path, table string, b *bolt.Bucket) {
	if b == nil {
		v.add(path, fmt.Errorf("table %q is missing", table))
		return
	}
	_ = b.ForEach(func(k, val []byte) error {
		if _, err := unframe(k, val); err != nil {
			v.add(path, fmt.Errorf("table %q key %x: %w", table, k, err))
		}
		return nil
	})
}

// journal goes from the newest segment, which has the queues, to the oldest.
func (v *verifier) journal(segments []*segment, view func(*segment, func(*bolt.Tx) error) error) {
	limit := uint64(math.MaxUint64)
	for i := len(segments) - 1; i >= 0; i-- {
		g, upTo := segments[i], limit
		v.file(g.path, func(fn func(*bolt.Tx) error) error { return view(g, fn) }, func(path string, tx *bolt.Tx) error {
			if v.queues == nil {
				v.loadQueues(path, tx)
			}
			v.rows(path, marksBucket, tx.Bucket([]byte(marksBucket)))
			return v.records(g, upTo, tx)
		})
		limit = g.first - 1
	}
}

func (v *verifier) loadQueues(path string, tx *bolt.Tx) {
	l := newestLoader{queues: make(map[uint32]Queue)}
	v.add(path, l.loadQueues(tx.Bucket([]byte(queuesBucket))))
	for _, key := range l.badQueues {
		v.add(path, fmt.Errorf("queue %x cannot be read", key))
	}
	v.queues = l.queues
}

// records checks the records of g and compares them with its summary.
func (v *verifier) records(g *segment, limit uint64, tx *bolt.Tx) error {
	if err := checkFirst(tx, g.first); err != nil {
		return err
	}
	spans := make(map[uint32]span)
	err := allRecords(tx, g.first-1, limit, func(key, value []byte) {
		seq := binary.BigEndian.Uint64(key)
		r, err := viewRecord(key, value)
		if err != nil {
			v.errs = append(v.errs, &CorruptError{Path: g.path, Seq: seq, Err: err})
			return
		}
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
	if ok && err == nil && !maps.Equal(spans, summary) {
		err = errors.New("its summary does not match its records")
	}
	return err
}
