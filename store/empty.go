package store

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
)

// What an empty file has: two meta pages, a free list, and the top bucket, whose
// leaf has nothing in it.
const (
	emptyPages = 4
	emptyFree  = 2
	emptyRoot  = 3

	metaFlag     = 0x04
	freelistFlag = 0x10
)

// makeEmpty makes the file path as bbolt would begin it, which must not be there.
// bbolt writes the four pages in one call, for which a page cache with large
// folios (that of ext4 since Linux 6.16) takes one folio, so that from then on the
// kernel charges four pages for each meta page that is written, and a file system
// that does not know the parts of a folio writes them. Whoever fills the file
// syncs it.
func makeEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for i := range emptyPages {
		if _, err = f.WriteAt(emptyPage(i), int64(i)*pageSize); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

// emptyPage is page i of an empty file.
func emptyPage(i int) []byte {
	p, ne := make([]byte, pageSize), binary.NativeEndian
	ne.PutUint64(p, uint64(i))
	switch i {
	case emptyFree:
		ne.PutUint16(p[8:], freelistFlag)
	case emptyRoot:
		ne.PutUint16(p[8:], leafFlag)
	default:
		ne.PutUint16(p[8:], metaFlag)
		putEmptyMeta(p[pageHeader:], uint64(i))
	}
	return p
}

// putEmptyMeta writes the meta of the transaction tx, which has changed nothing yet.
func putEmptyMeta(m []byte, tx uint64) {
	ne := binary.NativeEndian
	ne.PutUint32(m, boltMagic)
	ne.PutUint32(m[4:], boltVersion)
	ne.PutUint32(m[8:], pageSize)
	ne.PutUint64(m[16:], emptyRoot)
	ne.PutUint64(m[32:], emptyFree)
	ne.PutUint64(m[40:], emptyPages)
	ne.PutUint64(m[48:], tx)
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	ne.PutUint64(m[metaSize-8:], sum.Sum64())
}
