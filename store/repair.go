package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// repair deals with the damaged segment g, which is in the chain and not the one
// that takes records. When it returns nil, g is out of the chain, and what parses
// of it is there under its name. The caller holds commit.
func (s *Store) repair(g *segment, damage error) error {
	if placed, err := s.putInPlace(g); placed || err != nil {
		return err
	}
	v, err := openSalvage(g.path)
	if err != nil {
		return fmt.Errorf("salvage %q: %w", g.path, err)
	}
	defer v.close()
	seqs := v.between(g.first, s.lastOf(g))
	if len(seqs) == 0 || g.salvaged {
		err := s.setAside(g.path, damage, "the records in it are lost")
		if err == nil {
			s.unchain(g)
			s.pool.drop(g)
			s.dropAsIs(g)
		}
		return err
	}
	spans, err := s.writeSalvaged(g, v, damage, seqs, func(tx *bolt.Tx) error {
		return errors.Join(v.putRows(tx, queuesBucket), v.putRows(tx, marksBucket))
	})
	if err == nil {
		s.replace(g, spans).salvaged = true
	}
	return err
}

// repairNewest does so at the start, before the segment is open. ok is false if
// nothing parses.
func (s *Store) repairNewest(g *segment, damage error) (ok bool, err error) {
	v, err := openSalvage(g.path)
	if err != nil {
		return false, fmt.Errorf("salvage %q: %w", g.path, err)
	}
	defer func() {
		if s.damaged != v {
			v.close()
		}
	}()
	before := &salvage{}
	if n := len(s.segments); n > 1 {
		if before, err = openSalvage(s.segments[n-2].path); err != nil {
			return false, fmt.Errorf("salvage %q: %w", s.segments[n-2].path, err)
		}
		defer before.close()
	}
	seqs := v.between(g.first, math.MaxUint64-1)
	if g.salvaged || len(seqs) == 0 && v.rows[queuesBucket] == nil {
		return false, nil
	}
	g.salvaged = true
	queues, marks := v.positions(before, g.first, seqs), v
	if v.rows[marksBucket] == nil {
		marks = before
	}
	u := &unrepaired{segment: g, damage: damage, salvage: v, seqs: seqs, marks: marks.rows[marksBucket], rest: func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(queuesBucket)); err != nil {
			return err
		}
		return errors.Join(putQueues(tx, queues), marks.putRows(tx, marksBucket))
	}}
	if _, u.why = s.writeSalvaged(g, v, damage, seqs, u.rest); u.why != nil {
		for _, q := range queues {
			s.queues[q.ID] = q
		}
		s.damaged = v
		s.leave(u)
	}
	return true, nil
}

// positions returns what parses of the queues. One whose position is older than
// the records is owed those behind it as well. What neither this segment nor the
// one before knows starts over.
func (v *salvage) positions(before *salvage, first uint64, seqs []uint64) []Queue {
	queues, asOf := make(map[uint32]*Queue), make(map[uint32]uint64)
	take := func(from *salvage, newer, older uint64) {
		for key, r := range from.rows[queuesBucket] {
			q, err := readQueue([]byte(key), r.value)
			if err != nil || queues[q.ID] != nil {
				continue
			}
			queues[q.ID], asOf[q.ID] = &q, newer
			if r.older {
				asOf[q.ID] = older
			}
		}
	}
	take(v, math.MaxUint64, v.upTo)
	if !v.whole[queuesBucket] {
		take(before, first-1, first-1)
	}
	_ = v.each(seqs, func(seq uint64, value []byte) error {
		r, err := viewRecord(seqKey(seq), value)
		if err != nil {
			return nil // it is not taken either
		}
		r.each(func(o Owner) {
			q := queues[o.Queue]
			switch {
			case q == nil && !v.whole[queuesBucket]:
				queues[o.Queue], asOf[o.Queue] = &Queue{ID: o.Queue, Acked: first - 1, Pending: 1}, 0
			case q != nil && seq > asOf[o.Queue] && seq > q.Acked:
				q.Pending++
			}
		})
		return nil
	})
	list := make([]Queue, 0, len(queues))
	for _, q := range queues {
		list = append(list, *q)
	}
	return list
}

// writeSalvaged writes the records seqs of v anew under the name of g, beside what
// rest writes, and sets the damaged file aside.
func (s *Store) writeSalvaged(g *segment, v *salvage, damage error, seqs []uint64, rest func(*bolt.Tx) error) (map[uint32]span, error) {
	w := &rewriter{spans: make(map[uint32]span)}
	tmp := g.path + tmpSuffix
	f, err := writeAside(tmp, bolt.Options{NoSync: true, NoGrowSync: true}, func(f *boltFile) error {
		err := f.update(func(tx *bolt.Tx) error {
			err := errors.Join(putFormat(tx), v.putRows(tx, metaBucket))
			meta := tx.Bucket([]byte(metaBucket))
			return errors.Join(err, meta.Put([]byte(firstKey), frame([]byte(firstKey), seqKey(g.first))), rest(tx))
		})
		return errors.Join(err, w.putSalvaged(f, v, seqs), f.update(func(tx *bolt.Tx) error { return putSummary(tx, w.spans) }))
	})
	if err == nil {
		_, err = s.finishFile(f)
	}
	if err != nil {
		return nil, fmt.Errorf("salvage %q: %w", g.path, err)
	}
	return w.spans, s.replaceDamaged(g.path, tmp, damage, fmt.Sprintf("what parses of it is kept: %d messages", w.result.Kept))
}

// putSalvaged copies records in portions.
func (w *rewriter) putSalvaged(f *boltFile, v *salvage, seqs []uint64) error {
	var (
		stay []stored
		size int
	)
	flush := func() error {
		err := f.update(func(tx *bolt.Tx) error { return w.put(tx, stay) })
		stay, size = stay[:0], 0
		return err
	}
	err := v.each(seqs, func(seq uint64, value []byte) error {
		r, err := viewRecord(seqKey(seq), value)
		if err != nil {
			return nil // its checksum is right, and yet it is no record
		}
		r.each(func(o Owner) { addSpan(w.spans, o.Queue, seq, len(r.data)) })
		w.result.Kept++
		stay, size = append(stay, stored{seq, seqKey(seq), slices.Clone(value)}), size+len(value)
		if size < chunkBytes {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}

// replaceDamaged puts tmp in the place of the damaged file at path, and says so.
func (s *Store) replaceDamaged(path, tmp string, damage error, meaning string) error {
	to, err := replaceDamaged(path, tmp, time.Now())
	if err != nil {
		return err
	}
	s.reportAside(path, to, damage, meaning)
	return nil
}

// rebuildState writes state.db anew from what parses of it.
func (s *Store) rebuildState(damage error) (*boltFile, error) {
	path := filepath.Join(s.dir, stateName)
	v, err := salvageState(path)
	if err != nil {
		return nil, err
	}
	defer v.close()
	rows := 0
	f, err := writeAside(path+tmpSuffix, stateOptions, func(f *boltFile) error {
		return f.update(func(tx *bolt.Tx) error {
			if err := putFormat(tx); err != nil {
				return err
			}
			for _, table := range slices.Sorted(maps.Keys(v.rows)) {
				if table == metaBucket {
					continue
				}
				rows += len(v.rows[table])
				if err := v.putRows(tx, table); err != nil {
					return err
				}
			}
			return errors.Join(v.putNewest(tx), listTables(tx, nil))
		})
	})
	if err != nil {
		return nil, fmt.Errorf("write %q anew: %w", path, err)
	}
	f.path = path
	s.wore(wearRewrite, f.spent())
	err = s.replaceDamaged(path, path+tmpSuffix, damage, fmt.Sprintf("what parses of it is kept: %d rows of sessions, subscriptions and retained messages", rows))
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// salvageState is openSalvage for state.db. A segment that has got its name holds
// nothing.
func salvageState(path string) (*salvage, error) {
	v, err := openSalvage(path)
	if err != nil {
		return nil, fmt.Errorf("salvage %q: %w", path, err)
	}
	v.restoreNames()
	if v.first() != 0 {
		clear(v.rows)
	}
	return v, nil
}

// putInPlace renames the file of g if it is sound and says that it is another
// segment, as after a copy by hand. If the other one's file says that it is g,
// they have each other's name. It reports whether something was renamed.
func (s *Store) putInPlace(g *segment) (placed bool, err error) {
	right := firstOf(g.path)
	if right == 0 || right == g.first || s.tail.segment != nil && right > s.tail.segment.first {
		return false, nil
	}
	path := segmentPath(s.dir, right)
	_, err = os.Lstat(path)
	free, swapped := errors.Is(err, fs.ErrNotExist), firstOf(path) == g.first
	if !free && !swapped {
		return false, nil
	}
	if err := exchangeNames(g.path, path, swapped); err != nil {
		return false, fmt.Errorf("give a segment its name back: %w", err)
	}
	s.log.Error("store: a file of the journal had the name of another; now it has its own", "file", g.path, "name", path)
	s.mu.Lock()
	s.stats.FilesMisplaced++
	s.mu.Unlock()
	s.renamed(g, path, right, swapped)
	return true, nil
}

// renamed makes the chain what it is after the file of g got the name path, and if
// swapped is set, the one that had it that of g.
func (s *Store) renamed(g *segment, path string, first uint64, swapped bool) {
	s.mu.Lock()
	segments := slices.DeleteFunc(slices.Clone(s.segments), func(o *segment) bool { return o == g || o.first == first })
	segments = append(segments, &segment{path: path, first: first})
	if swapped {
		segments = append(segments, &segment{path: g.path, first: g.first})
	}
	sortSegments(segments)
	old := s.segments
	s.segments = segments
	s.mu.Unlock()
	for _, o := range old {
		if o == g || o.first == first {
			s.pool.drop(o)
			s.dropAsIs(o)
		}
	}
}

// firstOf returns what the segment at path says it starts with, 0 if it is not
// sound.
func firstOf(path string) (first uint64) {
	f, err := openFile(path, bolt.Options{ReadOnly: true}, nil)
	if err != nil {
		return 0
	}
	defer f.close()
	err = f.view(func(tx *bolt.Tx) error {
		body, err := unframe([]byte(firstKey), tx.Bucket([]byte(metaBucket)).Get([]byte(firstKey)))
		if err == nil && len(body) == 8 {
			first = binary.BigEndian.Uint64(body)
		}
		return err
	})
	if err != nil {
		return 0
	}
	return first
}

// exchangeNames renames a to b, and if both is set, b to a.
func exchangeNames(a, b string, both bool) error {
	if !both {
		return errors.Join(os.Rename(a, b), syncDir(filepath.Dir(a)))
	}
	between := asideName(a, time.Now()) // a crash leaves it where nobody removes it
	err := os.Rename(a, between)
	if err == nil {
		err = os.Rename(b, a)
	}
	if err == nil {
		err = os.Rename(between, b)
	}
	return errors.Join(err, syncDir(filepath.Dir(a)))
}
