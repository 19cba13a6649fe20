package store

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// partBytes is when the records of a segment go on in another part. A part is a
// bucket of its own, small enough that its tree has one level of branches: a
// commit of one record writes leaf, branch, top and meta page, 16 KiB, however
// many records the segment has. One tree would need another level from some
// 4,000 records on.
const partBytes = 512 << 10

// keepScratch is the largest batch whose memory is kept for the next one.
const keepScratch = 1 << 20

// tail is the active segment as the writer knows it.
type tail struct {
	segment *segment
	file    *boltFile
	txid    int    // of the last transaction known to be durable
	made    uint64 // what madeKey says, 0: nothing yet, or it is sealed

	part     uint64 // first record of the part that takes records, 0: none yet
	partSize int
	size     int64 // of all records

	sealed  bool // it has a summary and takes no more records
	suspect bool // its file may show what was not committed, or is damaged
}

// Commit makes b durable: first its rows of state.db, then the rest in one
// transaction. Positions alone take one write and one sync. After an error nothing of that rest is visible and the same batch
// may be committed again; a full disk heals when there is room.
//
// The store keeps no reference to b. One Commit runs at a time.
func (s *Store) Commit(b *Batch) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := s.checkBatch(b); err != nil {
		return err
	}
	start := time.Now()
	err := s.commitBatch(b)
	s.account(b, time.Since(start), err)
	return err
}

func (s *Store) checkBatch(b *Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.readOnly:
		return ErrReadOnly
	}
	return b.check(s.last)
}

func (s *Store) commitBatch(b *Batch) error {
	if err := s.mend(); err != nil {
		return err
	}
	if s.commitPositions(b) {
		return nil
	}
	if len(b.Rows) > 0 {
		if err := s.commitRows(b.Rows); err != nil {
			return err
		}
	}
	if !b.hasJournal() {
		return nil
	}
	return s.commitSegment(b)
}

// commitSegment writes the journal part of b to the newest segment, or to a new one.
func (s *Store) commitSegment(b *Batch) error {
	rolled, err := s.rollIfDue(len(b.Records) > 0)
	if err != nil {
		return err
	}
	if err := s.nameJournal(); err != nil {
		return err
	}
	s.noteNewest()
	if err := s.commitJournal(b); err != nil {
		return err
	}
	if rolled || len(b.Queues) > 0 {
		s.moved.Store(true)
		s.removeReleased()
	}
	return nil
}

// nameJournal syncs the journal directory if a new segment's name may not be
// durable yet.
func (s *Store) nameJournal() error {
	if !s.unnamed {
		return nil
	}
	s.wore(wearSegments, Wear{Syncs: 1})
	if err := syncDir(s.journal()); err != nil {
		return err
	}
	s.unnamed = false
	return nil
}

// account keeps the numbers of one Commit.
func (s *Store) account(b *Batch, took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.LastCommitFailure = err
	if err != nil {
		s.stats.FailedCommits++
		return
	}
	if !b.hasJournal() && len(b.Rows) == 0 {
		return
	}
	s.stats.Commits++
	s.stats.LastCommit = took
	s.stats.CommitTime += took
	s.stats.Records += uint64(len(b.Records))
	for i := range b.Records {
		s.stats.RecordBytes += uint64(len(b.Records[i].Data))
	}
}

// commitJournal writes the journal part of b and makes it visible.
func (s *Store) commitJournal(b *Batch) error {
	t, txid := s.tail, 0
	err := t.file.update(func(tx *bolt.Tx) error {
		txid = tx.ID()
		return errors.Join(t.putMade(tx), s.putRecords(tx, &t, b.Records),
			putQueues(tx, s.looseBut(b.Queues)), putQueues(tx, b.Queues), putMarks(tx, b.Marks))
	})
	s.shareWear(t.file.spent(), b.given())
	if err != nil {
		s.doubt(err)
		return fmt.Errorf("commit to %q: %w", t.file.path, err)
	}
	t.txid = txid
	s.tail = t
	s.held()
	s.publish(b)
	return nil
}

// doubt decides after the failed commit err whether the active segment can be
// used on. bbolt takes back a transaction that failed, unless its meta page was
// written and only the sync of it failed: then takeBack does.
func (s *Store) doubt(err error) {
	t := &s.tail
	shown, viewErr := t.file.shown()
	t.suspect = t.suspect || shown != t.txid || viewErr != nil || isCorrupt(err)
	if err := s.takeBack(); err != nil {
		s.log.Error("store: cannot take back what was refused; nothing more is taken until that works", "file", t.file.path, "error", err)
	}
}

// takeBack makes the active segment show its last durable transaction, and none
// that failed behind it: the next segment begins with the marks that this one
// shows. A power cut may still bring the failed one back, as a whole, as long as
// there is no next segment.
func (s *Store) takeBack() error {
	t := &s.tail
	shown, err := t.file.shown()
	if isCorrupt(err) || err == nil && shown == t.txid {
		return nil
	}
	if err == nil {
		err = t.file.dropMeta(shown)
	}
	if err != nil {
		return fmt.Errorf("take back a failed commit to %q: %w", t.file.path, err)
	}
	return nil
}

// putRecords appends records. The values lie in s.scratch until tx ends.
func (s *Store) putRecords(tx *bolt.Tx, t *tail, records []Record) error {
	if len(records) == 0 {
		return nil
	}
	need := 0
	for i := range records {
		need += recordSize(&records[i])
	}
	buf := s.scratch[:0]
	if cap(buf) < need {
		buf = make([]byte, 0, need)
	}
	if need <= keepScratch {
		s.scratch = buf
	}
	var part *bolt.Bucket
	for i := range records {
		r := &records[i]
		var err error
		if part, err = t.partFor(tx, part, r.Seq); err != nil {
			return err
		}
		start, key := len(buf), seqKey(r.Seq)
		buf = appendRecord(buf, r, key)
		if err := part.Put(key, buf[start:len(buf):len(buf)]); err != nil {
			return fmt.Errorf("record %d: %w", r.Seq, err)
		}
		t.partSize += len(buf) - start + recordOverhead
		t.size += int64(len(buf) - start + recordOverhead)
	}
	return nil
}

// partFor returns the bucket that takes the record seq; part is that of the
// record before, nil at the start of a transaction.
func (t *tail) partFor(tx *bolt.Tx, part *bolt.Bucket, seq uint64) (*bolt.Bucket, error) {
	if t.part == 0 || t.partSize >= partBytes {
		t.part, t.partSize, part = seq, 0, nil
	}
	if part != nil {
		return part, nil
	}
	part, err := tx.CreateBucketIfNotExists(partName(t.part))
	if err != nil {
		return nil, err
	}
	part.FillPercent = 1 // keys only ascend
	return part, nil
}

func putQueues(tx *bolt.Tx, queues []Queue) error {
	b := tx.Bucket([]byte(queuesBucket))
	for i := range queues {
		q, key := &queues[i], queueKey(queues[i].ID)
		if q.Gone {
			if err := b.Delete(key); err != nil {
				return err
			}
			continue
		}
		if err := b.Put(key, appendQueue(nil, q, key)); err != nil {
			return fmt.Errorf("queue %d: %w", q.ID, err)
		}
	}
	return nil
}

func putMarks(tx *bolt.Tx, marks []Row) error {
	b := tx.Bucket([]byte(marksBucket))
	for _, m := range marks {
		if err := putRow(b, m); err != nil {
			return err
		}
	}
	return nil
}

// publish shows readers what was committed.
func (s *Store) publish(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Records {
		r := &b.Records[i]
		s.last = r.Seq
		for _, o := range r.Owners {
			addSpan(s.tail.segment.spans, o.Queue, r.Seq, len(r.Data))
		}
	}
	for _, q := range b.Queues {
		if q.Gone {
			delete(s.queues, q.ID)
		} else {
			s.queues[q.ID] = q.clone()
		}
	}
}

func addSpan(spans map[uint32]span, queue uint32, seq uint64, size int) {
	sp := spans[queue]
	sp.add(seq, size)
	spans[queue] = sp
}
