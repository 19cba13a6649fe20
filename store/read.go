package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// A chunk is filled inside one transaction and handed out after it ended, so
// that whatever a callback does can neither hold up a commit nor keep pages from
// being used again. Its bounds keep memory and the transaction small.
const (
	chunkBytes = 64 << 10
	chunkSteps = 1024 // keys looked at, wanted or not
)

// chunk is copied data. It is reused.
type chunk struct {
	buf     []byte
	most    int // bytes of it that Read wants
	records []chunkRecord
	bad     []badRecord

	rows    []Row
	badRows []badRow
	lastKey []byte
}

type chunkRecord struct {
	seq        uint64
	tag        uint32
	start, end int // in buf
}

type badRecord struct {
	seq uint64
	err error
}

type badRow struct {
	path string
	key  []byte
	err  error
}

// reset empties c. A buffer that one huge record made large is not kept.
func (c *chunk) reset() {
	if cap(c.buf) > 2*chunkBytes {
		c.buf = nil
	}
	c.buf, c.records, c.bad = c.buf[:0], c.records[:0], c.bad[:0]
	clear(c.rows)
	c.rows, c.badRows, c.lastKey = c.rows[:0], c.badRows[:0], c.lastKey[:0]
}

// Read calls fn for the records owed to queue with after < Seq <= upTo, in
// ascending order, until fn returns false. data is valid only inside fn. Read
// may run beside Commit and other Reads, and fn may call the store. It sees what
// was committed before it began.
//
// Records whose checksum fails are skipped, logged and counted. If a segment is
// damaged, what parses of it is written anew, the damaged file is set aside, and
// Read goes on. For the segment that takes records Read returns a CorruptError; it
// is repaired when it was read again after the next Commit. A store that is open for
// reading only passes over the segment and returns a CorruptError with the first
// record that it does; the same Read again goes on behind it.
func (s *Store) Read(queue uint32, after, upTo uint64, fn func(seq uint64, tag uint32, data []byte) bool) error {
	return s.ReadSome(queue, after, upTo, func() int { return chunkBytes }, fn)
}

// ReadSome is Read for whoever is going to stop: fn gets what was copied before, in
// pieces, and wants says before each how many bytes of data are wanted, about. What is
// in it beyond the record at which fn returns false was copied in vain.
func (s *Store) ReadSome(queue uint32, after, upTo uint64, wants func() int, fn func(seq uint64, tag uint32, data []byte) bool) error {
	c := s.bufs.Get().(*chunk)
	defer s.bufs.Put(c)
	upTo = min(upTo, s.LastSeq())
	for after < upTo {
		g, limit, err := s.choose(queue, after, upTo)
		if g == nil || err != nil {
			return err
		}
		c.reset()
		c.most = min(chunkBytes, wants())
		next, err := s.readChunk(g, c, queue, after, limit)
		s.reportRecords(g.path, c.bad)
		for _, r := range c.records {
			if !fn(r.seq, r.tag, c.buf[r.start:r.end:r.end]) {
				return nil
			}
		}
		after = next
		if err == nil {
			continue
		}
		if err = s.readFailed(g, after, err); err != nil {
			return fmt.Errorf("read queue %d: %w", queue, err)
		}
	}
	return nil
}

// choose returns the first segment that may hold records owed to queue behind
// after, and up to where; nil if there is none.
func (s *Store) choose(queue uint32, after, upTo uint64) (g *segment, limit uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, ErrClosed
	}
	i := sort.Search(len(s.segments), func(i int) bool { return s.segments[i].first > after+1 })
	for i = max(i-1, 0); i < len(s.segments); i++ {
		g = s.segments[i]
		if g.first > upTo {
			break
		}
		limit = upTo
		if i+1 < len(s.segments) {
			limit = min(upTo, s.segments[i+1].first-1)
		}
		if mayHold(g.spans, queue, after, limit) {
			return g, limit, nil
		}
	}
	return nil, 0, nil
}

// mayHold is false if spans rule out that there is a record owed to queue with
// after < Seq <= limit.
func mayHold(spans map[uint32]span, queue uint32, after, limit uint64) bool {
	if spans == nil {
		return true
	}
	sp, ok := spans[queue]
	return ok && sp.first <= limit && sp.last > after
}

// readChunk copies records of g into c and returns up to where it looked.
func (s *Store) readChunk(g *segment, c *chunk, queue uint32, after, limit uint64) (next uint64, err error) {
	if u := s.asIs(g); u != nil {
		return u.read(c, queue, after, limit)
	}
	next = after
	err = s.pool.view(g, func(h *handle, tx *bolt.Tx) error {
		spans, err := s.learnSpans(g, h, tx)
		if err != nil {
			return err
		}
		if !mayHold(spans, queue, after, limit) {
			next = limit
			return nil
		}
		size := 0
		defer func() { h.readOn(queue, after, next, size) }()
		return eachRecord(h, tx, after, limit, func(key, value []byte) bool {
			next = binary.BigEndian.Uint64(key)
			size += len(key) + len(value)
			return c.copyRecord(queue, key, value)
		}, func() { next = limit })
	})
	return next, err
}

// readOn notes that so many bytes of the records behind after, up to next, were read for queue. Who
// goes on about where it stopped brings little more than that into memory: view adds
// chunkBytes for each call, and this takes back what was not read. Queues that share a
// place in readTo only count too much.
func (h *handle) readOn(queue uint32, after, next uint64, size int) {
	last := h.readTo[queue%uint32(len(h.readTo))].Swap(next)
	if after <= last && last-after <= chunkSteps {
		h.touched.Add(min(int64(size)+pageSize, chunkBytes) - chunkBytes)
	}
}

// learnSpans returns what g holds as its summary says, nil if it has none. A
// small one is remembered, so that the file need not be opened to be skipped.
func (s *Store) learnSpans(g *segment, h *handle, tx *bolt.Tx) (map[uint32]span, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.spans != nil {
		return h.spans, nil
	}
	spans, ok, err := readSpans(g.path, tx)
	if err != nil || !ok {
		return nil, err
	}
	h.spans = spans
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.spans == nil && len(spans) <= keepSpans {
		g.spans = spans
	}
	return spans, nil
}

// copyRecord takes over the record if it is owed to queue and reports whether
// there is room for more.
func (c *chunk) copyRecord(queue uint32, key, value []byte) bool {
	seq := binary.BigEndian.Uint64(key)
	r, err := viewRecord(key, value)
	if err != nil {
		c.bad = append(c.bad, badRecord{seq, err})
	} else if tag, ok := r.tag(queue); ok {
		start := len(c.buf)
		c.buf = append(c.buf, r.data...)
		c.records = append(c.records, chunkRecord{seq, tag, start, len(c.buf)})
	}
	return len(c.buf) < c.most
}

// copyRows takes over the rows of b behind the key after and reports whether
// there may be more.
func (c *chunk) copyRows(path string, b *bolt.Bucket, after []byte) (more bool) {
	if b == nil {
		return false
	}
	cur := b.Cursor()
	k, v := cur.Seek(after)
	if len(after) > 0 && bytes.Equal(k, after) {
		k, v = cur.Next()
	}
	for size := 0; k != nil; k, v = cur.Next() {
		if size >= chunkBytes {
			return true
		}
		size += len(k) + len(v)
		c.lastKey = append(c.lastKey[:0], k...)
		if value, err := unframe(k, v); err != nil {
			c.badRows = append(c.badRows, badRow{path, bytes.Clone(k), err})
		} else {
			c.rows = append(c.rows, Row{Key: bytes.Clone(k), Value: bytes.Clone(value)})
		}
	}
	return false
}

// eachRecord calls fn for the keys and values with after < Seq <= limit until it
// returns false or chunkSteps were made, and done if it came to the end. h may be
// nil for a file whose pages are known to be sound.
func eachRecord(h *handle, tx *bolt.Tx, after, limit uint64, fn func(key, value []byte) bool, done func()) error {
	steps, prev := 0, after
	for name := firstPart(tx, after+1); name != nil; name = nextPart(tx, name) {
		part, first := tx.Bucket(name), binary.BigEndian.Uint64(name[len(partPrefix):])
		if err := h.checkPart(first, part); err != nil {
			return err
		}
		if first > limit { // of a commit that failed, or its name is damaged
			break
		}
		cur := part.Cursor()
		for k, v := cur.Seek(seqKey(after + 1)); k != nil; k, v = cur.Next() {
			if len(k) != 8 || binary.BigEndian.Uint64(k) <= prev {
				return &CorruptError{Seq: prev + 1, Err: errOrder}
			}
			if prev = binary.BigEndian.Uint64(k); prev > limit {
				done()
				return nil
			}
			if steps++; !fn(k, v) || steps == chunkSteps {
				return nil
			}
		}
	}
	done()
	return nil
}

// allRecords calls fn for all of them with after < Seq <= limit. Little of the file
// is in memory meanwhile.
func allRecords(tx *bolt.Tx, after, limit uint64, fn func(key, value []byte)) error {
	for done := false; !done; {
		err := eachRecord(nil, tx, after, limit, func(key, value []byte) bool {
			after = binary.BigEndian.Uint64(key)
			fn(key, value)
			return true
		}, func() { done = true })
		if err != nil {
			return err
		}
		letGo(tx)
	}
	return nil
}

// firstPart returns the name of the part that the record seq belongs to, or of
// the first one behind it; nil if there is none.
func firstPart(tx *bolt.Tx, seq uint64) []byte {
	exact := partName(seq)
	cur := tx.Cursor()
	behind, _ := cur.Seek(exact)
	before := behind
	switch {
	case behind == nil:
		before, _ = cur.Last()
	case !bytes.Equal(behind, exact):
		before, _ = cur.Prev()
	}
	if validPart(before) {
		return before
	}
	if validPart(behind) {
		return behind
	}
	return nil
}

// nextPart returns the name of the part behind name, nil if there is none.
func nextPart(tx *bolt.Tx, name []byte) []byte {
	cur := tx.Cursor()
	cur.Seek(name)
	if k, _ := cur.Next(); validPart(k) {
		return k
	}
	return nil
}

func validPart(name []byte) bool { return isPart(name) && len(name) == len(partPrefix)+8 }

// readFailed deals with a segment that could not be read behind the record after. It returns nil if what
// can be read of it can be read now, or if it was removed in the meantime, which
// is no failure.
func (s *Store) readFailed(g *segment, after uint64, err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !isCorrupt(err) {
		return err
	}
	s.commit.Lock()
	defer s.commit.Unlock()
	if closed, in := s.inChain(g); closed {
		return ErrClosed
	} else if !in {
		return nil
	}
	if g == s.tail.segment {
		s.tail.suspect = true // the next commit starts another segment; then this one can be repaired
		return err
	}
	if s.readOnly {
		s.passOver(g.path, err)
		s.unchain(g)
		s.pool.drop(g)
		return &CorruptError{Path: g.path, Seq: max(g.first, after+1), Err: err}
	}
	return s.repairOrLeave(g, err)
}
