package store

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// salvage is what parses of a damaged file. Records are found wherever they lie,
// for a number is used once only. Rows change, so of those counts what a meta page
// leads to: the newer one, and where its pages are damaged, the one before, which
// is one commit older.
type salvage struct {
	file  *os.File
	pages uint64
	seen  []bool // by page, in the walk under way

	rows    map[string]map[string]savedRow // by bucket, without parts
	whole   map[string]bool                // buckets of the newer tree that are not damaged
	records map[uint64]place
	upTo    uint64 // the highest record that the older meta page leads to
}

// savedRow is a row with its frame, which was checked.
type savedRow struct {
	value []byte
	older bool // one commit
}

// place is where a record lies in the file.
type place struct {
	page   uint64
	inPart []byte // the value, if it lies inside the page of the top bucket
	elem   int
}

// openSalvage reads the file at path as far as it can be read. A file that is not
// there holds nothing.
func openSalvage(path string) (*salvage, error) {
	v := &salvage{rows: make(map[string]map[string]savedRow), whole: make(map[string]bool), records: make(map[uint64]place)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	v.file = f
	info, err := f.Stat()
	if err != nil {
		v.close()
		return nil, err
	}
	v.pages = uint64(info.Size()) / pageSize
	roots := v.roots()
	for i, root := range roots {
		v.seen = make([]bool, v.pages)
		v.top(root, i > 0 || len(roots) == 1) // the other one may have been newer
	}
	v.scan()
	return v, nil
}

func (v *salvage) close() {
	if v.file != nil {
		_ = v.file.Close() // it was only read
	}
}

// first returns the first record that the file says it may hold, 0 if it says
// nothing.
func (v *salvage) first() uint64 {
	body, err := unframe([]byte(firstKey), v.rows[metaBucket][firstKey].value)
	if err != nil || len(body) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(body)
}

// roots returns the roots that the sound meta pages lead to, the newer first.
func (v *salvage) roots() (roots []uint64) {
	newer := uint64(0)
	for i := range 2 {
		page := make([]byte, pageHeader+metaSize)
		if _, err := v.file.ReadAt(page, int64(i*pageSize)); err != nil {
			continue
		}
		w, tx := readMeta(page[pageHeader:])
		switch {
		case w == nil:
		case tx > newer:
			newer, roots = tx, slices.Insert(roots, 0, w.root)
		default:
			roots = append(roots, w.root)
		}
	}
	return roots
}

// top takes what the top bucket at root has.
func (v *salvage) top(root uint64, older bool) {
	v.walk(root, 0, func(id uint64, e pageElem, _ int) {
		switch {
		case !e.bucket || len(e.value) < bucketSize:
		case isPart(e.key):
			v.part(id, e, older)
		default:
			v.table(string(e.key), e.value, older)
			v.stray(id, e)
		}
	})
}

// table takes the rows of one bucket. Of marks counts one state only: one that
// was deleted must not come back.
func (v *salvage) table(name string, header []byte, older bool) {
	if older && (v.whole[name] || name == marksBucket && v.rows[name] != nil) {
		return
	}
	rows := v.rows[name]
	if rows == nil {
		rows = make(map[string]savedRow)
	}
	whole := v.bucket(header, func(_ uint64, e pageElem, _ int) {
		if _, known := rows[string(e.key)]; !known && sound(e) {
			rows[string(e.key)] = savedRow{slices.Clone(e.value), older}
		}
	})
	v.whole[name] = v.whole[name] || whole && !older
	if whole || len(rows) > 0 {
		v.rows[name] = rows
	}
}

func (v *salvage) part(id uint64, e pageElem, older bool) {
	v.bucket(e.value, func(page uint64, e pageElem, elem int) {
		if page == 0 {
			v.record(place{page: id, inPart: e.value}, e)
		} else {
			v.record(place{page: page, elem: elem}, e)
		}
		if older && len(e.key) == 8 {
			v.upTo = max(v.upTo, binary.BigEndian.Uint64(e.key))
		}
	})
}

// stray takes records out of a bucket whose name is damaged, if it is no other.
func (v *salvage) stray(id uint64, e pageElem) {
	if !isFixed(string(e.key)) {
		v.part(id, e, false)
	}
}

// record notes where a record lies. What was noted first counts.
func (v *salvage) record(p place, e pageElem) {
	if len(e.key) != 8 || !sound(e) {
		return
	}
	seq := binary.BigEndian.Uint64(e.key)
	if _, known := v.records[seq]; !known {
		p.inPart = slices.Clone(p.inPart)
		v.records[seq] = p
	}
}

func sound(e pageElem) bool {
	_, err := unframe(e.key, e.value)
	return err == nil && !e.bucket
}

// bucket calls fn for what the bucket with this header holds, with page 0 if it
// lies inside its parent's. It returns whether all of it could be read.
func (v *salvage) bucket(header []byte, fn func(page uint64, e pageElem, elem int)) (whole bool) {
	if root := binary.NativeEndian.Uint64(header); root != 0 {
		return v.walk(root, 0, fn)
	}
	return eachElement(header[bucketSize:], func(e pageElem, i int) bool { fn(0, e, i); return true })
}

// walk calls fn for the elements of all leaves below the page id that can be read,
// and returns whether all can.
func (v *salvage) walk(id uint64, depth int, fn func(page uint64, e pageElem, elem int)) (whole bool) {
	if depth == maxDepth || id >= v.pages || v.seen[id] {
		return false
	}
	v.seen[id] = true
	page := v.read(id)
	return page != nil && eachElement(page, func(e pageElem, i int) bool {
		if binary.NativeEndian.Uint16(page[8:]) == branchFlag {
			return v.walk(e.child, depth+1, fn)
		}
		fn(id, e, i)
		return e.bucket || sound(e)
	})
}

// read returns the page id with those that belong to it, as far as the file goes,
// nil if it cannot be read or says that it is another.
func (v *salvage) read(id uint64) []byte {
	page := make([]byte, pageSize)
	if _, err := v.file.ReadAt(page, int64(id)*pageSize); err != nil || binary.NativeEndian.Uint64(page) != id {
		return nil
	}
	more := min(uint64(binary.NativeEndian.Uint32(page[12:])), v.pages-id-1)
	for i := id + 1; i <= id+more; i++ {
		page = append(page, make([]byte, pageSize)...)
		_, _ = v.file.ReadAt(page[(i-id)*pageSize:], int64(i)*pageSize) // checksums tell
	}
	return page
}

// eachElement calls fn for the elements of the page that keep its bounds, and
// returns whether all do and fn always returns true.
func eachElement(page []byte, fn func(e pageElem, i int) bool) (whole bool) {
	if len(page) < pageHeader {
		return false
	}
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != leafFlag && flags != branchFlag {
		return false
	}
	if len(page) >= pageHeader+pageElement && count > 0 {
		if e, err := element(page[pageHeader:], flags == leafFlag); err == nil {
			count = max(count, e.at/pageElement) // the first key lies behind all entries
		}
	}
	whole = pageHeader+count*pageElement <= len(page)
	for i := range min(count, (len(page)-pageHeader)/pageElement) {
		e, err := element(page[pageHeader+i*pageElement:], flags == leafFlag)
		whole = err == nil && fn(e, i) && whole
	}
	return whole
}

// scan looks for records on all pages that nothing sound leads to.
func (v *salvage) scan() {
	for id := uint64(2); id < v.pages; id++ {
		page := v.read(id)
		if page == nil || binary.NativeEndian.Uint16(page[8:]) != leafFlag {
			continue
		}
		eachElement(page, func(e pageElem, i int) bool {
			switch {
			case !e.bucket:
				v.record(place{page: id, elem: i}, e)
			case len(e.value) >= bucketSize && binary.NativeEndian.Uint64(e.value) == 0:
				v.stray(id, e)
			}
			return true
		})
	}
}

// between returns the numbers of the records from first to last, in order.
func (v *salvage) between(first, last uint64) (seqs []uint64) {
	for seq := range v.records {
		if first <= seq && seq <= last {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs
}

// each calls fn with the value of each of the records seqs until it fails.
func (v *salvage) each(seqs []uint64, fn func(seq uint64, value []byte) error) error {
	var (
		page []byte
		id   uint64
	)
	for _, seq := range seqs {
		p := v.records[seq]
		value := p.inPart
		if value == nil {
			if p.page != id {
				page, id = v.read(p.page), p.page
			}
			if page == nil {
				continue // it could be read before
			}
			e, err := element(page[pageHeader+p.elem*pageElement:], true)
			if err != nil || !sound(e) {
				continue
			}
			value = e.value
		}
		if err := fn(seq, value); err != nil {
			return err
		}
	}
	return nil
}

// putRows writes the rows of the bucket name, which is made.
func (v *salvage) putRows(tx *bolt.Tx, name string) error {
	b, err := tx.CreateBucketIfNotExists([]byte(name))
	for key, r := range v.rows[name] {
		if err == nil {
			err = b.Put([]byte(key), r.value)
		}
	}
	return err
}
