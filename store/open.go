package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// lossGap is how far the numbers jump when the newest segment is lost. How many
// records it held is unknown, and a number must not be used twice.
const lossGap = 1 << 32

// openJournal opens the newest segment that can be opened and starts another one
// if there is none or a newer one was lost.
func (s *Store) openJournal() error {
	lost, leftovers, err := s.listJournal()
	if err != nil {
		return err
	}
	lost = s.missNewest(lost)
	s.unnamed = true // a process that crashed may not have come to sync it
	for _, path := range leftovers {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for len(s.segments) > 0 && s.unrepaired == nil {
		g := s.segments[len(s.segments)-1]
		err := s.openNewest(g)
		if err == nil {
			break
		}
		if !isCorrupt(err) {
			return err
		}
		placed, err := s.dealWithNewest(g, err)
		if err != nil {
			return err
		}
		if !placed {
			lost = max(lost, g.first)
		}
	}
	n := len(s.segments)
	if lost > s.last || n > 0 && lost >= s.segments[n-1].first {
		s.last = max(s.last, lost) + lossGap
	}
	switch {
	case s.unrepaired != nil:
		return nil
	case s.tail.file == nil:
		return s.startJournal()
	}
	s.tail.sealed = s.tail.sealed || lost >= s.tail.segment.first
	return nil
}

// dealWithNewest makes something of the damaged newest segment g that can be
// opened, or takes it out of the chain. placed says that nothing of it is lost.
func (s *Store) dealWithNewest(g *segment, damage error) (placed bool, err error) {
	if placed, err = s.putInPlace(g); placed || err != nil {
		return placed, err
	}
	ok, err := s.repairNewest(g, damage)
	if ok || err != nil {
		return false, err
	}
	err = s.setAside(g.path, damage, "the records in it are lost; positions fall back to the segment before, so messages may arrive twice")
	if err == nil {
		s.stats.TailLost = true
		s.unchain(g)
	}
	return false, err
}

// startJournal creates the first segment, or the first after all were lost.
func (s *Store) startJournal() error {
	next, err := s.createSegment(s.last+1, nil)
	if err != nil {
		g := &segment{path: segmentPath(s.dir, s.last+1), first: s.last + 1}
		s.leave(&unrepaired{segment: g, why: err, salvage: new(salvage)})
		return nil
	}
	s.install(next)
	return s.nameJournal()
}

// listJournal finds the segments, the highest first record among those that were
// set aside, and the files that an interrupted creation left over.
func (s *Store) listJournal() (lost uint64, leftovers []string, err error) {
	entries, err := os.ReadDir(s.journal())
	if err != nil {
		return 0, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(s.journal(), e.Name())
		if strings.HasSuffix(path, segSuffix+tmpSuffix) {
			leftovers = append(leftovers, path)
		}
		if first, ok := parseSegment(e.Name()); ok {
			s.segments = append(s.segments, &segment{path: path, first: first})
		}
		if name, _, ok := strings.Cut(e.Name(), corruptInfix); ok {
			if first, ok := parseSegment(name); ok {
				lost = max(lost, first)
			}
		}
	}
	sortSegments(s.segments)
	return lost, leftovers, nil
}

func sortSegments(list []*segment) {
	slices.SortFunc(list, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
}

// openNewest opens g for writing and takes over what it says.
func (s *Store) openNewest(g *segment) error {
	f, err := openFile(g.path, s.newestOptions(), nil)
	if err != nil {
		return err
	}
	l := newestLoader{tail: tail{segment: g, file: f}, last: g.first - 1, spans: make(map[uint32]span), queues: make(map[uint32]Queue)}
	err = f.view(l.load)
	if err != nil {
		f.close()
		return openError(g.path, err)
	}
	s.pool.adopt(g, f)
	s.tail = l.tail
	s.mu.Lock()
	g.spans, s.last, s.queues = l.spans, max(s.last, l.last), l.queues
	s.mu.Unlock()
	s.reportRecords(g.path, l.bad)
	for _, key := range l.badQueues {
		s.reportRow(g.path, queuesBucket, key, errChecksum)
		s.restart(key)
	}
	if l.badMade != nil {
		s.log.Error("store: the newest segment does not say which positions are beyond it; positions fall back, so messages may arrive twice", "file", g.path, "damage", l.badMade)
	}
	s.takePositions(l.base)
	return nil
}

// restart gives a queue whose position is unreadable the oldest one, so that
// what it is owed stays and is read again. It cannot be owed more than all.
func (s *Store) restart(key []byte) {
	if len(key) != 4 {
		return
	}
	id := binary.BigEndian.Uint32(key)
	oldest := s.segments[0].first
	s.queues[id] = Queue{ID: id, Acked: oldest - 1, Pending: s.last + 1 - oldest}
}

// newestLoader reads all that matters of the newest segment.
type newestLoader struct {
	tail      tail
	last      uint64
	spans     map[uint32]span
	queues    map[uint32]Queue
	bad       []badRecord
	badQueues [][]byte
	base      base
	badMade   error
}

func (l *newestLoader) load(tx *bolt.Tx) error {
	l.tail.txid = tx.ID()
	l.tail.sealed = tx.Bucket([]byte(summaryBucket)) != nil
	l.base, l.badMade = baseOf(tx)
	l.tail.made = l.base.made
	if err := errors.Join(checkFirst(tx, l.tail.segment.first), checkBuckets(tx)); err != nil {
		return err
	}
	if err := l.loadQueues(tx.Bucket([]byte(queuesBucket))); err != nil {
		return err
	}
	if err := allRecords(tx, l.last, math.MaxUint64, l.record); err != nil {
		return err
	}
	return l.loadPart(tx)
}

// checkFirst compares the first record that the segment says with its name.
func checkFirst(tx *bolt.Tx, first uint64) error {
	v, err := unframe([]byte(firstKey), tx.Bucket([]byte(metaBucket)).Get([]byte(firstKey)))
	if err != nil {
		return fmt.Errorf("first record: %w", err)
	}
	if string(v) != string(seqKey(first)) {
		return fmt.Errorf("it starts with record %x, its name says %x", v, first)
	}
	return nil
}

func (l *newestLoader) loadQueues(b *bolt.Bucket) error {
	if b == nil {
		return errors.New("it has no queues")
	}
	return b.ForEach(func(k, v []byte) error {
		q, err := readQueue(k, v)
		if err != nil {
			l.badQueues = append(l.badQueues, slices.Clone(k))
			return nil
		}
		l.queues[q.ID] = q
		return nil
	})
}

func (l *newestLoader) record(key, value []byte) {
	l.last = binary.BigEndian.Uint64(key)
	l.tail.size += int64(len(value) + recordOverhead)
	r, err := viewRecord(key, value)
	if err != nil {
		l.bad = append(l.bad, badRecord{l.last, err})
		return
	}
	r.each(func(o Owner) { addSpan(l.spans, o.Queue, l.last, len(r.data)) })
}

// loadPart finds the part that takes records.
func (l *newestLoader) loadPart(tx *bolt.Tx) error {
	name := firstPart(tx, math.MaxUint64)
	if name == nil {
		return nil
	}
	l.tail.part = binary.BigEndian.Uint64(name[len(partPrefix):])
	return tx.Bucket(name).ForEach(func(_, v []byte) error {
		l.tail.partSize += len(v) + recordOverhead
		return nil
	})
}
