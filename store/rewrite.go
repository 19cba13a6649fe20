package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// ErrActive means that a record is in the newest segment, or not there yet. It
// can be rewritten once the segment takes no more records.
var ErrActive = errors.New("the record is in the segment that takes new ones")

// Keep reports whether the record seq is still owed to o. data is valid only
// inside the call.
type Keep func(seq uint64, o Owner, data []byte) bool

// Rewritten says what [Store.Rewrite] did to one segment.
type Rewritten struct {
	First, Last   uint64 // numbers that belong to the segment
	Kept, Dropped uint64 // records
	Before, After int64  // length of the file in bytes
	Rewrites      uint64 // how often the segment was rewritten, this time included
}

// Rewrite writes the segment that the record seq belongs to anew, without what is
// not owed any more: whatever is behind a queue's position, what a queue is owed
// that is gone or says that nothing is pending, and what keep, if not nil, gives
// up. A record without owners is dropped. The caller commits the queues whose
// Pending that lowers.
//
// The new file replaces the old one as a whole: after a crash either is there, and
// [Store.Rewrites] tells which. When Rewrite returns nil, the new one survives a
// power cut. Commits and reads go on meanwhile; they wait for the exchange only.
// If nobody
// needs the segment any more it may be removed instead; then After is 0. The error
// is ErrActive for the newest segment.
func (s *Store) Rewrite(seq uint64, keep Keep) (Rewritten, error) {
	s.rewriting.Lock()
	defer s.rewriting.Unlock()
	g, last, err := s.sealedAt(seq)
	if err != nil {
		return Rewritten{}, err
	}
	if err := s.holdPositions(); err != nil { // keep may know of them
		return Rewritten{}, fmt.Errorf("rewrite %q: %w", g.path, err)
	}
	w := &rewriter{store: s, from: g, keep: keep, queues: s.acked(), spans: make(map[uint32]span)}
	w.result = Rewritten{First: g.first, Last: last, Before: fileSize(g.path)}
	if err = w.run(); errors.Is(err, errGone) {
		return w.result, nil
	}
	if err = s.rewriteFailed(g, err); err != nil {
		return Rewritten{}, fmt.Errorf("rewrite %q: %w", g.path, err)
	}
	return w.result, nil
}

// rewriteFailed deals with damage if it is that of g, and not of the new file. What
// parses of g can be rewritten another time.
func (s *Store) rewriteFailed(g *segment, err error) error {
	var damage *CorruptError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.readFailed(g, 0, err)
	case errors.As(err, &damage) && damage.Path == g.path:
		return errors.Join(err, s.readFailed(g, 0, err))
	}
	return err
}

// Rewrites returns how often the segment that the record seq belongs to was
// rewritten. Whoever notes it before [Store.Rewrite] can tell after a crash
// whether the exchange took place.
func (s *Store) Rewrites(seq uint64) (n uint64, err error) {
	g, _, err := s.sealedAt(seq)
	if err != nil {
		return 0, err
	}
	err = s.pool.view(g, func(_ *handle, tx *bolt.Tx) error {
		n, err = rewritesOf(tx)
		return err
	})
	return n, err
}

// sealedAt returns the sealed segment that seq belongs to, and its last number.
func (s *Store) sealedAt(seq uint64) (g *segment, last uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, ErrClosed
	}
	for i := range len(s.segments) - 1 {
		if last := s.segments[i+1].first - 1; seq <= last {
			return s.segments[i], last, nil
		}
	}
	return nil, 0, ErrActive
}

// lastOf returns the last number that belongs to the sealed segment g.
func (s *Store) lastOf(g *segment) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[slices.Index(s.segments, g)+1].first - 1
}

// acked returns up to where each queue has released the records, as the newest segment
// has it. One that has nothing pending has released all.
func (s *Store) acked() map[uint32]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	acked := make(map[uint32]uint64, len(s.queues))
	for id := range s.queues {
		if q, _ := s.asHeld(id); q.Pending > 0 {
			acked[id] = q.Acked
		}
	}
	return acked
}

// rewriter writes one segment anew.
type rewriter struct {
	store  *Store
	from   *segment
	keep   Keep
	queues map[uint32]uint64 // those with something pending, and up to where they have released it

	part   tail // where the next record goes
	spans  map[uint32]span
	buf    []byte
	result Rewritten
}

// run writes the new file beside the old one and exchanges them.
func (w *rewriter) run() error {
	tmp := w.from.path + tmpSuffix
	f, err := writeAside(tmp, bolt.Options{NoSync: true, NoGrowSync: true}, w.fill)
	if err != nil {
		return err
	}
	w.result.After, err = w.store.finishFile(f)
	if err == nil {
		err = w.store.exchange(w.from, tmp, w.spans)
	}
	if err != nil {
		_ = os.Remove(tmp) // it may be in place by now
	}
	return err
}

// finishFile closes f, cuts off the pages it does not use, and syncs it once,
// which its transactions have not.
func (s *Store) finishFile(f *boltFile) (size int64, err error) {
	s.wore(wearRewrite, f.spent().plus(Wear{Syncs: 1}))
	err = f.view(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	if err = errors.Join(err, f.close()); err != nil {
		return 0, err
	}
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	return size, errors.Join(file.Truncate(size), file.Sync(), file.Close())
}

// fill copies everything that stays into f.
func (w *rewriter) fill(f *boltFile) error {
	if err := w.copyRest(f); err != nil {
		return err
	}
	c := w.store.bufs.Get().(*chunk)
	defer w.store.bufs.Put(c)
	for after := w.from.first - 1; after < w.result.Last; {
		c.reset()
		next, err := w.store.copyChunk(w.from, c, after, w.result.Last)
		if err != nil {
			return err
		}
		w.store.reportRecords(w.from.path, c.bad)
		stay := w.choose(c)
		if err := f.update(func(tx *bolt.Tx) error { return w.put(tx, stay) }); err != nil {
			return err
		}
		after = next
	}
	return f.update(func(tx *bolt.Tx) error { return putSummary(tx, w.spans) })
}

// copyRest copies all that is not a record: the queues and marks as they were
// when the segment was sealed are what damage to a newer one falls back to.
func (w *rewriter) copyRest(f *boltFile) error {
	return w.store.pool.view(w.from, func(_ *handle, old *bolt.Tx) error {
		n, err := rewritesOf(old)
		if err != nil {
			return err
		}
		w.result.Rewrites = n + 1
		return f.update(func(tx *bolt.Tx) error {
			if err := putFormat(tx); err != nil {
				return err
			}
			meta := tx.Bucket([]byte(metaBucket))
			return errors.Join(
				meta.Put([]byte(firstKey), frame([]byte(firstKey), seqKey(w.from.first))),
				meta.Put([]byte(rewritesKey), frame([]byte(rewritesKey), binary.AppendUvarint(nil, n+1))),
				copyBucket(tx, old, w.from.path, queuesBucket), copyBucket(tx, old, w.from.path, marksBucket))
		})
	})
}

// copyBucket copies the bucket name from old, of the file at path, to tx.
func copyBucket(tx, old *bolt.Tx, path, name string) error {
	from := old.Bucket([]byte(name))
	if from == nil {
		return &CorruptError{Path: path, Err: fmt.Errorf("it has no %s", name)}
	}
	to, err := tx.CreateBucket([]byte(name))
	if err != nil {
		return err
	}
	return from.ForEach(func(k, v []byte) error { return to.Put(k, v) })
}

// rewritesOf returns how often the segment of tx was rewritten.
func rewritesOf(tx *bolt.Tx) (uint64, error) {
	meta := tx.Bucket([]byte(metaBucket))
	if meta == nil {
		return 0, &CorruptError{Err: errors.New("it has no format version")}
	}
	v := meta.Get([]byte(rewritesKey))
	if v == nil {
		return 0, nil
	}
	body, err := unframe([]byte(rewritesKey), v)
	if err != nil {
		return 0, &CorruptError{Err: fmt.Errorf("rewrites: %w", err)}
	}
	f := fields{rest: body}
	return f.uint(), f.err()
}

// stored is a record as it is in the file.
type stored struct {
	seq        uint64
	key, value []byte
}

// choose returns what stays of the records in c.
func (w *rewriter) choose(c *chunk) (stay []stored) {
	w.buf = w.buf[:0]
	for _, r := range c.records {
		key, value := seqKey(r.seq), c.buf[r.start:r.end:r.end]
		if value = w.reduce(r.seq, key, value); value == nil {
			w.result.Dropped++
			continue
		}
		w.result.Kept++
		stay = append(stay, stored{r.seq, key, value})
	}
	return stay
}

// reduce returns the value without the owners that are owed the record no more,
// nil if none is left. It was checked when it was read.
func (w *rewriter) reduce(seq uint64, key, value []byte) []byte {
	r, err := viewRecord(key, value)
	if err != nil {
		return nil
	}
	left := make([]Owner, 0, r.count)
	r.each(func(o Owner) {
		acked, pending := w.queues[o.Queue]
		if pending && seq > acked && (w.keep == nil || w.keep(seq, o, r.data)) {
			left = append(left, o)
			addSpan(w.spans, o.Queue, seq, len(r.data))
		}
	})
	switch len(left) {
	case 0:
		return nil
	case int(r.count):
		return value
	}
	start := len(w.buf)
	w.buf = appendRecord(w.buf, &Record{Seq: seq, Owners: left, Data: r.data}, key)
	return w.buf[start:len(w.buf):len(w.buf)]
}

// put writes records.
func (w *rewriter) put(tx *bolt.Tx, records []stored) (err error) {
	var part *bolt.Bucket
	for _, r := range records {
		if part, err = w.part.partFor(tx, part, r.seq); err != nil {
			return err
		}
		if err := part.Put(r.key, r.value); err != nil {
			return fmt.Errorf("record %d: %w", r.seq, err)
		}
		w.part.partSize += len(r.value) + recordOverhead
	}
	return nil
}

// copyChunk copies records of g as they are and returns up to where it looked.
func (s *Store) copyChunk(g *segment, c *chunk, after, limit uint64) (next uint64, err error) {
	err = s.pool.view(g, func(h *handle, tx *bolt.Tx) error {
		return eachRecord(h, tx, after, limit, func(key, value []byte) bool {
			next = binary.BigEndian.Uint64(key)
			return c.copyValue(next, key, value)
		}, func() { next = limit })
	})
	return next, err
}

// copyValue takes over the record as it is stored and reports whether there is
// room for more.
func (c *chunk) copyValue(seq uint64, key, value []byte) bool {
	if _, err := viewRecord(key, value); err != nil {
		c.bad = append(c.bad, badRecord{seq, err})
		return true
	}
	start := len(c.buf)
	c.buf = append(c.buf, value...)
	c.records = append(c.records, chunkRecord{seq, 0, start, len(c.buf)})
	return len(c.buf) < chunkBytes
}

// exchange puts the file tmp, which holds spans, in the place of g's.
func (s *Store) exchange(g *segment, tmp string, spans map[uint32]span) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if closed, in := s.inChain(g); closed {
		return ErrClosed
	} else if !in {
		return errGone
	}
	if err := os.Rename(tmp, g.path); err != nil {
		return err
	}
	s.replace(g, spans)
	s.mu.Lock()
	s.stats.SegmentsRewritten++
	s.mu.Unlock()
	s.unnamed = true
	return s.nameJournal()
}

// errGone means that a segment was removed or set aside while it was rewritten.
var errGone = errors.New("nobody needs it any more")

// replace makes readers open the file of g again, which has changed and now holds
// spans.
func (s *Store) replace(g *segment, spans map[uint32]span) (next *segment) {
	next = &segment{path: g.path, first: g.first, spans: spans}
	if len(next.spans) > keepSpans {
		next.spans = nil
	}
	s.mu.Lock()
	s.segments[slices.Index(s.segments, g)] = next
	s.mu.Unlock()
	s.pool.drop(g)
	s.dropAsIs(g)
	return next
}
