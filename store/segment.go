package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// segment is one file of the journal, open or not.
type segment struct {
	path  string
	first uint64 // no record in it is lower

	size atomic.Int64 // of the file in bytes; 0: not asked for yet

	// spans is what the segment holds for each queue; nil means unknown.
	// Guarded by Store.mu.
	spans map[uint32]span

	// handle is nil while the file is closed. Guarded by pool.mu, as are the rest.
	handle *handle
	refs   int
	used   uint64 // when it was last acquired, on the pool's clock
	gone   bool   // to be closed by the last holder

	salvaged bool // it is what parsed of a damaged one; guarded by Store.commit
	left     bool // the log says that there is no room to repair it; likewise
}

// handle is an open segment.
type handle struct {
	*boltFile
	written bool             // by this process; its pages need no check
	readTo  [4]atomic.Uint64 // up to where the last reads of queues looked, see readOn

	mu    sync.Mutex
	sound map[uint64]struct{} // parts, by first record, whose pages were checked
	spans map[uint32]span     // the summary, once it was read
}

// pool opens segments when they are needed and keeps few of them open, because
// each takes address space, of which 32-bit boards have little. Whoever acquires
// a segment holds it for the length of one transaction and waits for nothing
// meanwhile.
type pool struct {
	max int

	mu     sync.Mutex
	free   sync.Cond // a segment was released
	open   map[*segment]struct{}
	clock  uint64
	closed bool
}

// maxOpen is how many segments are open at a time, the active one included.
const maxOpen = 5

func newPool() *pool {
	p := &pool{max: maxOpen, open: make(map[*segment]struct{})}
	p.free.L = &p.mu
	return p
}

// adopt takes over the open file f of s, held by the caller, who writes to it.
func (p *pool) adopt(s *segment, f *boltFile) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.size.Store(f.size.Load())
	f.size = &s.size
	s.handle = &handle{boltFile: f, written: true}
	s.refs = 1
	p.open[s] = struct{}{}
}

// acquire returns s opened. The caller must release it.
func (p *pool) acquire(s *segment) (*handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.closed {
			return nil, ErrClosed
		}
		if s.handle != nil {
			break
		}
		if len(p.open) < p.max || p.evictLocked() {
			f, err := openSegment(s.path, s.first)
			if err != nil {
				return nil, err
			}
			s.handle = &handle{boltFile: f, sound: make(map[uint64]struct{})}
			p.open[s] = struct{}{}
			break
		}
		p.free.Wait()
	}
	p.clock++
	s.used = p.clock
	s.refs++
	return s.handle, nil
}

// openSegment opens a segment for reading.
func openSegment(path string, first uint64) (*boltFile, error) {
	f, err := openFile(path, bolt.Options{ReadOnly: true}, isPart)
	if err != nil {
		return nil, err
	}
	err = f.view(func(tx *bolt.Tx) error { return errors.Join(checkFirst(tx, first), checkBuckets(tx)) })
	if err != nil {
		f.close()
		return nil, openError(path, err)
	}
	return f, nil
}

// evictLocked closes the open segment that was not used for longest.
func (p *pool) evictLocked() bool {
	var victim *segment
	for s := range p.open {
		if s.refs == 0 && (victim == nil || s.used < victim.used) {
			victim = s
		}
	}
	if victim == nil {
		return false
	}
	p.closeLocked(victim)
	return true
}

func (p *pool) closeLocked(s *segment) {
	_ = s.handle.close() // nothing was written since the last sync
	s.handle = nil
	delete(p.open, s)
}

// release gives back what acquire or adopt gave out.
func (p *pool) release(s *segment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.refs--
	if s.gone && s.refs == 0 {
		p.closeLocked(s)
	}
	for len(p.open) > p.max && p.evictLocked() { // a new segment was adopted
	}
	p.free.Broadcast()
}

// drop closes s when its last holder releases it, for a file that is removed or
// set aside. A reader that chose s before finds no file afterwards.
func (p *pool) drop(s *segment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.gone = true
	if s.handle != nil && s.refs == 0 {
		p.closeLocked(s)
		p.free.Broadcast()
	}
}

// close waits for the holders and closes everything.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.free.Broadcast()
	for s := range p.open {
		for s.refs > 0 {
			p.free.Wait()
		}
		if s.handle != nil {
			p.closeLocked(s)
		}
	}
}

// isPart reports whether bucket holds records.
func isPart(bucket []byte) bool { return strings.HasPrefix(string(bucket), partPrefix) }

// checkPart walks the pages of one part of the records before bbolt reads it,
// once per opening. A nil h is that of a file whose pages were all walked.
func (h *handle) checkPart(first uint64, b *bolt.Bucket) error {
	if h == nil {
		return checkStart(first, b)
	}
	if h.written {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.sound[first]; ok {
		return nil
	}
	if err := h.walkPart(first, b); err != nil {
		return &CorruptError{Path: h.path, Seq: first, Err: err}
	}
	h.sound[first] = struct{}{}
	return nil
}

func (h *handle) walkPart(first uint64, b *bolt.Bucket) error {
	if b.RootPage() != 0 {
		w, err := newPageWalk(h.file)
		if err == nil {
			w.exact = true
			err = w.bucket(uint64(b.RootPage()))
		}
		if err != nil {
			return err
		}
	}
	return checkStart(first, b)
}

// checkStart compares the name of a part with what it holds: names have no
// checksum.
func checkStart(first uint64, part *bolt.Bucket) error {
	if k, _ := part.Cursor().First(); string(k) != string(seqKey(first)) {
		return fmt.Errorf("the part %x starts with record %x", first, k)
	}
	return nil
}

// checkBuckets fails if a segment has other buckets than it should.
func checkBuckets(tx *bolt.Tx) error {
	missing := map[string]bool{metaBucket: true, queuesBucket: true, marksBucket: true}
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		delete(missing, string(name))
		switch {
		case validPart(name):
			if b.RootPage() == 0 {
				return checkStart(binary.BigEndian.Uint64(name[len(partPrefix):]), b)
			}
			return nil
		case string(name) == queuesBucket:
			return checkQueues(b)
		case isFixed(string(name)):
			return nil
		}
		return fmt.Errorf("it has %q, which no segment has", name)
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("of its buckets %d are missing", len(missing))
	}
	return err
}

// checkQueues fails if b holds something else: its root may lead to another bucket's.
func checkQueues(b *bolt.Bucket) error {
	return b.ForEach(func(k, _ []byte) error {
		if len(k) != 4 {
			return fmt.Errorf("it has %x for a queue", k)
		}
		return nil
	})
}

// isFixed reports whether every segment may have a bucket of that name.
func isFixed(name string) bool {
	return name == metaBucket || name == queuesBucket || name == marksBucket || name == summaryBucket
}

// view runs fn in a read transaction on s.
func (p *pool) view(s *segment, fn func(*handle, *bolt.Tx) error) error {
	h, err := p.acquire(s)
	if err != nil {
		return err
	}
	defer p.release(s)
	return h.view(func(tx *bolt.Tx) error { return fn(h, tx) })
}

// readSpans returns what tx's segment holds for each queue, as its summary says.
// ok is false if it has none.
func readSpans(path string, tx *bolt.Tx) (spans map[uint32]span, ok bool, err error) {
	b := tx.Bucket([]byte(summaryBucket))
	if b == nil {
		return nil, false, nil
	}
	spans = make(map[uint32]span)
	err = b.ForEach(func(k, v []byte) error {
		queue, s, err := readSpan(k, v)
		if err != nil {
			return &CorruptError{Path: path, Err: fmt.Errorf("summary: %w", err)}
		}
		spans[queue] = s
		return nil
	})
	return spans, true, err
}
