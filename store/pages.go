package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its pages. A branch page that leads back to itself overflows the
// stack, and the free pages of a file opened for writing are collected in a
// goroutine of bbolt's own, where neither a panic nor a fault can be caught:
// one bad sector would end the process at every start. So pages are walked here
// first, by plain reads that cannot fault, and bbolt sees only sound trees.
//
// The layout is bbolt's file format 2, in the byte order of the machine
// (bbolt: internal/common/page.go, meta.go).
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader  = 16 // id, flags, count, overflow
	pageElement = 16
	metaSize    = 64 // of which the last 8 are the checksum
	bucketSize  = 16 // root page, sequence

	branchFlag = 0x01
	leafFlag   = 0x02
	bucketElem = 0x01

	maxDepth = 32
)

// pageWalk checks pages of one bbolt file.
type pageWalk struct {
	file io.ReaderAt
	size int    // of a page in bytes
	root uint64 // page of the top bucket
	high uint64 // pages from here on do not exist

	seen   []bool      // by page; every page has one parent
	levels []pageLevel // by depth, reused
	skip   func(bucket []byte) bool

	// exact is set in parts: nothing is ever deleted from them, so a branch says of
	// each child with which key it starts. Another key would hide records.
	exact bool
}

// pageLevel is the page that is looked at in one depth, and its entries.
type pageLevel struct {
	buf   []byte
	elems []pageElem
}

// newPageWalk reads the newer meta page of f. If one of the two is damaged it may be
// the newer: bbolt would go back to the one before, and the last commit be lost
// without a word.
func newPageWalk(f *os.File) (*pageWalk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	w, err := readMetas(f)
	if err != nil {
		return nil, err
	}
	if uint64(info.Size())/uint64(w.size) < w.high {
		return nil, fmt.Errorf("file has %d bytes, should have %d pages of %d", info.Size(), w.high, w.size)
	}
	return w, nil
}

func readMetas(f io.ReaderAt) (*pageWalk, error) {
	var (
		best  *pageWalk
		newer uint64
		sound int
	)
	for i := range 2 {
		page := make([]byte, pageHeader+metaSize)
		if _, err := f.ReadAt(page, int64(i*pageSize)); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			return nil, err
		}
		w, tx := readMeta(page[pageHeader:])
		if w != nil {
			sound++
		}
		if w != nil && (best == nil || tx > newer) {
			best, newer = w, tx
		}
	}
	if sound < 2 {
		return nil, fmt.Errorf("of its two meta pages %d are sound", sound)
	}
	best.file = f
	return best, nil
}

// readMeta returns nil if the meta page m is not sound.
func readMeta(m []byte) (w *pageWalk, tx uint64) {
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	ne := binary.NativeEndian
	if ne.Uint32(m) != boltMagic || ne.Uint32(m[4:]) != boltVersion ||
		ne.Uint32(m[8:]) != pageSize || ne.Uint64(m[56:]) != sum.Sum64() {
		return nil, 0
	}
	return &pageWalk{size: pageSize, root: ne.Uint64(m[16:]), high: ne.Uint64(m[40:])}, ne.Uint64(m[48:])
}

// all walks the top bucket and every bucket below it that skip, if not nil,
// does not exclude.
func (w *pageWalk) all(skip func(bucket []byte) bool) error {
	w.skip = skip
	return w.bucket(w.root)
}

// bucket walks the bucket whose root page is root.
func (w *pageWalk) bucket(root uint64) error {
	w.seen = make([]bool, w.high)
	return w.tree(root, 0, nil, nil)
}

// tree walks the page id and all below. Its keys must be at least lo and below
// hi; nil means no bound.
func (w *pageWalk) tree(id uint64, depth int, lo, hi []byte) error {
	if depth == maxDepth {
		return fmt.Errorf("page %d: tree is deeper than %d", id, maxDepth)
	}
	page, err := w.read(id, depth)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(page[8:]); flags {
	case branchFlag:
		return w.branch(page, depth, lo, hi)
	case leafFlag:
		return w.leaf(page, depth, lo, hi)
	default:
		return fmt.Errorf("page %d: neither branch nor leaf but %#x", id, flags)
	}
}

// read returns page id with its overflow pages.
func (w *pageWalk) read(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= w.high {
		return nil, fmt.Errorf("page %d: out of bounds 2 to %d", id, w.high-1)
	}
	buf, err := w.load(id, depth, 1)
	if err != nil {
		return nil, err
	}
	if got := binary.NativeEndian.Uint64(buf); got != id {
		return nil, fmt.Errorf("page %d: says it is page %d", id, got)
	}
	pages := uint64(binary.NativeEndian.Uint32(buf[12:])) + 1
	if pages > w.high-id {
		return nil, fmt.Errorf("page %d: %d pages long, file ends at %d", id, pages, w.high)
	}
	for i := id; i < id+pages; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d: has two parents", i)
		}
		w.seen[i] = true
	}
	if pages == 1 {
		return buf, nil
	}
	return w.load(id, depth, int(pages))
}

// load returns so many pages from id on, as they are.
func (w *pageWalk) load(id uint64, depth, pages int) ([]byte, error) {
	buf := w.buffer(depth, pages*w.size)
	if _, err := w.file.ReadAt(buf, int64(id)*int64(w.size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return buf, nil
}

func (w *pageWalk) buffer(depth, size int) []byte {
	for len(w.levels) <= depth {
		w.levels = append(w.levels, pageLevel{})
	}
	l := &w.levels[depth]
	if cap(l.buf) < size {
		l.buf = make([]byte, size)
	}
	return l.buf[:size]
}

// pageElem is one entry of a page.
type pageElem struct {
	key, value []byte // value: of a leaf
	child      uint64 // of a branch
	bucket     bool   // value is a bucket
	at         int    // where the key begins, counted from the entry
}

// elements returns the entries of page in dst, whose keys must ascend and keep the
// bounds. bbolt writes keys and values one behind the other, so that a count, a place
// or a length that has changed shows.
func elements(dst []pageElem, page, lo, hi []byte) ([]pageElem, error) {
	ne := binary.NativeEndian
	id, count, leaf := ne.Uint64(page), int(ne.Uint16(page[10:])), ne.Uint16(page[8:]) == leafFlag
	if pageHeader+count*pageElement > len(page) {
		return nil, fmt.Errorf("page %d: has no room for %d elements", id, count)
	}
	elems, next := dst[:0], count*pageElement
	for i := range count {
		rest := page[pageHeader+i*pageElement:]
		e, err := element(rest, leaf)
		if err != nil {
			return nil, fmt.Errorf("page %d element %d: %w", id, i, err)
		}
		if i*pageElement+e.at != next {
			return nil, fmt.Errorf("page %d element %d: lies at %d, the one before ends at %d", id, i, i*pageElement+e.at, next)
		}
		next += len(e.key) + len(e.value)
		if c := bytes.Compare(lo, e.key); c > 0 || c == 0 && i > 0 || hi != nil && bytes.Compare(e.key, hi) >= 0 {
			return nil, fmt.Errorf("page %d element %d: key %x out of order", id, i, e.key)
		}
		elems, lo = append(elems, e), e.key
	}
	return elems, nil
}

// element reads the entry at the start of rest, which reaches to the page's end.
func element(rest []byte, leaf bool) (e pageElem, err error) {
	ne := binary.NativeEndian
	pos, ksize, vsize := uint64(ne.Uint32(rest)), uint64(ne.Uint32(rest[4:])), uint64(0)
	if leaf {
		e.bucket = ne.Uint32(rest)&bucketElem != 0
		pos, ksize, vsize = uint64(ne.Uint32(rest[4:])), uint64(ne.Uint32(rest[8:])), uint64(ne.Uint32(rest[12:]))
	} else {
		e.child = ne.Uint64(rest[8:])
	}
	if ksize == 0 || pos+ksize+vsize > uint64(len(rest)) {
		return e, fmt.Errorf("key of %d and value of %d bytes at %d exceed the page", ksize, vsize, pos)
	}
	e.at = int(pos)
	e.key, e.value = rest[pos:pos+ksize], rest[pos+ksize:pos+ksize+vsize]
	return e, nil
}

func (w *pageWalk) branch(page []byte, depth int, lo, hi []byte) error {
	elems, err := w.elements(page, depth, lo, hi)
	if err != nil {
		return err
	}
	if len(elems) == 0 {
		return fmt.Errorf("page %d: branch without children", binary.NativeEndian.Uint64(page))
	}
	for i, e := range elems {
		end := hi
		if i+1 < len(elems) {
			end = elems[i+1].key
		}
		if err := w.tree(e.child, depth+1, e.key, end); err != nil {
			return err
		}
	}
	return nil
}

func (w *pageWalk) leaf(page []byte, depth int, lo, hi []byte) error {
	elems, err := w.elements(page, depth, lo, hi)
	if err != nil {
		return err
	}
	for _, e := range elems {
		if !e.bucket || w.skip != nil && w.skip(e.key) {
			continue
		}
		w.exact = isPart(e.key)
		err := w.nested(e.value, depth)
		w.exact = false
		if err != nil {
			return fmt.Errorf("bucket %q: %w", e.key, err)
		}
	}
	return nil
}

// elements does so, in memory that is w's, and if w is exact, holds the first key
// against lo.
func (w *pageWalk) elements(page []byte, depth int, lo, hi []byte) ([]pageElem, error) {
	elems, err := elements(w.levels[depth].elems, page, lo, hi)
	w.levels[depth].elems = elems
	if err == nil && w.exact && lo != nil && (len(elems) == 0 || !bytes.Equal(elems[0].key, lo)) {
		err = fmt.Errorf("page %d: does not start with key %x", binary.NativeEndian.Uint64(page), lo)
	}
	return elems, err
}

// nested walks the bucket whose header is value. A small one is a page inside it.
func (w *pageWalk) nested(value []byte, depth int) error {
	if len(value) < bucketSize {
		return errShort
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.tree(root, depth+1, nil, nil)
	}
	inline := value[bucketSize:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != leafFlag {
		return errors.New("inline page is not a leaf")
	}
	_, err := elements(nil, inline, nil, nil)
	return err
}
