package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The names and numbers of docs/format.md.
const (
	formatVersion = 1 // of a file
	valueVersion  = 1 // of one value

	metaBucket    = "meta"    // in every file: formatKey; in a segment also firstKey and perhaps rewritesKey, in state.db tablesKey and newestKey
	queuesBucket  = "queues"  // in a segment
	marksBucket   = "marks"   // in a segment
	summaryBucket = "summary" // in a segment that takes no more records
	partPrefix    = "records" // in a segment, followed by the first Seq

	formatKey   = "format"
	firstKey    = "first"
	rewritesKey = "rewrites" // in a segment that was rewritten
	tablesKey   = "tables"   // in state.db: the names of its tables, which have no checksum where they stand
	madeKey     = "made"     // in a segment that takes records: a number that no other has
	newestKey   = "newest"   // in state.db: the first Seq of the newest segment
)

// frameSize is the version byte and the checksum in front of every value.
const frameSize = 1 + 4

// recordOverhead is what bbolt stores beside a record's value: the 8-byte key
// and the page element.
const recordOverhead = 8 + 16

var (
	errShort    = errors.New("value is too short")
	errVersion  = errors.New("value has an unknown version")
	errChecksum = errors.New("checksum is wrong")
	errOrder    = errors.New("records are not in ascending order")
)

// castagnoli is built at program start by the standard library and never written.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginFrame appends room for the version and checksum.
func beginFrame(dst []byte) []byte { return append(dst, valueVersion, 0, 0, 0, 0) }

// endFrame fills in the checksum of the frame that starts at start. It covers
// the key too, so that a page that landed in the wrong place is noticed.
func endFrame(dst []byte, start int, key []byte) {
	v := dst[start:]
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, v[frameSize:])
	binary.BigEndian.PutUint32(v[1:], sum)
}

// frame returns value with version and checksum, in memory of its own.
func frame(key, value []byte) []byte {
	v := append(beginFrame(make([]byte, 0, frameSize+len(value))), value...)
	endFrame(v, 0, key)
	return v
}

// unframe returns the content of v, which shares v's memory.
func unframe(key, v []byte) ([]byte, error) {
	switch {
	case len(v) < frameSize:
		return nil, errShort
	case v[0] != valueVersion:
		return nil, fmt.Errorf("%w: %d", errVersion, v[0])
	case binary.BigEndian.Uint32(v[1:]) != crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, v[frameSize:]):
		return nil, errChecksum
	}
	return v[frameSize:], nil
}

// seqKey is the key of a record.
func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// partName is the name of the part of the records that starts with first.
func partName(first uint64) []byte { return binary.BigEndian.AppendUint64([]byte(partPrefix), first) }

// queueKey is the key of a queue in the queues and summary buckets.
func queueKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

// recordSize is an upper bound of the bytes that appendRecord needs.
func recordSize(r *Record) int {
	return frameSize + binary.MaxVarintLen64 + len(r.Owners)*2*binary.MaxVarintLen32 + len(r.Data)
}

// appendRecord appends the value of r.
func appendRecord(dst []byte, r *Record, key []byte) []byte {
	start := len(dst)
	dst = binary.AppendUvarint(beginFrame(dst), uint64(len(r.Owners)))
	for _, o := range r.Owners {
		dst = binary.AppendUvarint(dst, uint64(o.Queue))
		dst = binary.AppendUvarint(dst, uint64(o.Tag))
	}
	dst = append(dst, r.Data...)
	endFrame(dst, start, key)
	return dst
}

// recordView is a checked record that shares the memory of its value.
type recordView struct {
	owners fields // pairs of queue and tag
	count  uint64 // of owners
	data   []byte
}

// viewRecord checks the value v of the record with the given key.
func viewRecord(key, v []byte) (recordView, error) {
	body, err := unframe(key, v)
	if err != nil {
		return recordView{}, err
	}
	f := fields{rest: body}
	r := recordView{count: f.uint()}
	r.owners = f
	for i := uint64(0); i < r.count && !f.bad; i++ {
		f.uint32()
		f.uint32()
	}
	r.data = f.rest
	return r, f.err()
}

// each calls fn for every owner.
func (r recordView) each(fn func(Owner)) {
	f := r.owners
	for range r.count {
		fn(Owner{Queue: f.uint32(), Tag: f.uint32()})
	}
}

// tag returns what the owner queue keeps with the record.
func (r recordView) tag(queue uint32) (tag uint32, owned bool) {
	f := r.owners
	for range r.count {
		id, tag := f.uint32(), f.uint32()
		if id == queue {
			return tag, true
		}
	}
	return 0, false
}

// appendQueue appends the value of q.
func appendQueue(dst []byte, q *Queue, key []byte) []byte {
	start := len(dst)
	dst = binary.AppendUvarint(beginFrame(dst), q.Acked)
	dst = binary.AppendUvarint(dst, q.Pending)
	dst = append(dst, q.Note...)
	endFrame(dst, start, key)
	return dst
}

// readQueue returns the queue stored as key and v, in memory of its own.
func readQueue(key, v []byte) (Queue, error) {
	body, err := unframe(key, v)
	if err != nil {
		return Queue{}, err
	}
	if len(key) != 4 {
		return Queue{}, errShort
	}
	f := fields{rest: body}
	q := Queue{ID: binary.BigEndian.Uint32(key), Acked: f.uint(), Pending: f.uint(), Note: f.rest}
	return q.clone(), f.err()
}

// span is what one segment holds for one queue.
type span struct {
	first, last uint64 // Seq
	count       uint64
	bytes       uint64 // of Data
}

// add takes one more record into the span.
func (s *span) add(seq uint64, size int) {
	if s.count == 0 {
		s.first = seq
	}
	s.last = seq
	s.count++
	s.bytes += uint64(size)
}

// appendSpan appends the value of s.
func appendSpan(dst []byte, s span, key []byte) []byte {
	start := len(dst)
	dst = beginFrame(dst)
	for _, n := range [...]uint64{s.first, s.last, s.count, s.bytes} {
		dst = binary.AppendUvarint(dst, n)
	}
	endFrame(dst, start, key)
	return dst
}

// readSpan returns the span stored as key and v.
func readSpan(key, v []byte) (queue uint32, s span, err error) {
	body, err := unframe(key, v)
	if err != nil {
		return 0, span{}, err
	}
	if len(key) != 4 {
		return 0, span{}, errShort
	}
	f := fields{rest: body}
	s = span{first: f.uint(), last: f.uint(), count: f.uint(), bytes: f.uint()}
	return binary.BigEndian.Uint32(key), s, f.err()
}

// fields reads unsigned varints off the front of rest. After the first one that
// is malformed all are 0 and bad is set.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) uint() uint64 {
	n, size := binary.Uvarint(f.rest)
	if size <= 0 || f.bad {
		f.bad = true
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

func (f *fields) uint32() uint32 {
	n := f.uint()
	if n > 1<<32-1 {
		f.bad = true
	}
	return uint32(n)
}

func (f *fields) err() error {
	if f.bad {
		return errShort
	}
	return nil
}
