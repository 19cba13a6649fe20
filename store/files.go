package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"tidegate/internal/units"
)

const (
	stateName     = "state.db"
	positionsName = "positions"
	journalDir    = "journal"
	segSuffix     = ".seg"
	tmpSuffix     = ".tmp"

	corruptInfix = ".corrupt-" // between the name of a file set aside and the time

	// pageSize is fixed, for the page is the unit of writing: kernels with
	// pages of 16 KiB (Raspberry Pi 5) would write four times as much.
	pageSize = 4096

	// lockTimeout is how long another process may take to let go of a file.
	lockTimeout = time.Second

	// growStep is by how much a file is extended at a time, each costing a
	// sync of its own.
	growStep = 256 << 10

	// keepMapped is how much of a file may come into memory, at about, until it is let
	// go of. The kernel maps some pages around each that is touched.
	keepMapped = 128 << 10
)

// boltFile is an open bbolt file. All transactions go through view and update.
type boltFile struct {
	path string
	db   *bolt.DB
	file *os.File // the descriptor of db

	// unsettled is set while the disk may hold older meta pages than the kernel's
	// cache shows. Only whoever writes uses it.
	unsettled bool
	wear      Wear // not yet asked for by spent; likewise

	size *atomic.Int64 // of the file in bytes, as it was opened or committed to last

	touched atomic.Int64 // bytes that may have come into memory since keepMapped was reached

	// fault is set by the first panic. bbolt may then hold locks for ever, so it
	// is never called again for this file.
	fault atomic.Pointer[CorruptError]
}

// openFile opens the existing file at path. It returns a CorruptError for
// damage, ErrLocked, ErrNewerFormat, or what the operating system says. A file
// opened for writing is checked as a whole, one opened for reading only as far
// as skip does not exclude buckets.
func openFile(path string, o bolt.Options, skip func(bucket []byte) bool) (f *boltFile, err error) {
	if err := walkFile(path, skip); err != nil {
		return nil, openError(path, err)
	}
	f = &boltFile{path: path, unsettled: true} // who wrote it last may have crashed
	if err = f.open(path, o); err == nil {
		err = f.view(func(tx *bolt.Tx) error { return checkFormat(path, tx) })
	}
	if err != nil {
		f.close()
		return nil, openError(path, err)
	}
	return f, nil
}

// walkFile checks the pages of the file at path.
func walkFile(path string, skip func(bucket []byte) bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := newPageWalk(f)
	if err != nil {
		return err
	}
	return w.all(skip)
}

// open opens path, which is there, with bbolt.
func (f *boltFile) open(path string, o bolt.Options) error {
	o.Timeout = lockTimeout
	o.PageSize = pageSize
	o.NoFreelistSync = true
	o.FreelistType = bolt.FreelistMapType
	o.NoStatistics = true
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		file, err := os.OpenFile(name, flag&^os.O_CREATE, mode)
		f.file = file
		return file, err
	}
	return f.run(func() (err error) {
		if f.db, err = bolt.Open(path, 0o600, &o); err == nil {
			f.db.AllocSize = growStep
			f.touched.Store(keepMapped) // bbolt has looked for pages that are free, at all of them
			f.size = new(atomic.Int64)
			f.measure()
		}
		return err
	})
}

// run calls fn, which calls bbolt, and turns panics of bbolt and faults of the
// memory map (the file shrank, a sector cannot be read) into a CorruptError.
func (f *boltFile) run(fn func() error) (err error) {
	if damage := f.fault.Load(); damage != nil {
		return damage
	}
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			damage := &CorruptError{Path: f.path, Err: fmt.Errorf("%v", p)}
			f.fault.CompareAndSwap(nil, damage)
			err = damage
		}
	}()
	err = fn()
	var damage *CorruptError
	if errors.As(err, &damage) && damage.Path == "" {
		damage.Path = f.path // where it was found, the path was not known
	}
	return err
}

// view runs fn in a read transaction. fn must not call code of the package's
// users, whose panics are their own.
func (f *boltFile) view(fn func(*bolt.Tx) error) error {
	return f.run(func() error {
		if err := f.checkSize(); err != nil {
			return err
		}
		return f.db.View(func(tx *bolt.Tx) error {
			defer f.touch(tx, chunkBytes)
			return fn(tx)
		})
	})
}

// touch notes that about n bytes of the map have come into memory, and lets go of it
// before that is much: what was read or written last would stay there otherwise, up
// to the whole segment, and count as the process's memory.
func (f *boltFile) touch(tx *bolt.Tx, n int64) {
	if f.touched.Add(n) < keepMapped {
		return
	}
	f.touched.Store(0)
	letGo(tx)
}

// update runs fn in a write transaction and makes it durable. It is not
// bolt.DB.Update, which after a panic collects the free pages anew, in a
// goroutine where the next fault ends the process.
func (f *boltFile) update(fn func(*bolt.Tx) error) error {
	return f.run(func() error {
		if err := f.checkSize(); err != nil {
			return err
		}
		if err := f.settle(); err != nil {
			return err
		}
		tx, err := f.db.Begin(true)
		if err != nil {
			return err
		}
		defer tx.Rollback() // does nothing after Commit
		f.touch(tx, 0)
		if err := fn(tx); err != nil {
			return err
		}
		err = f.commit(tx)
		f.unsettled = err != nil
		return err
	})
}

// settle makes the meta pages durable that a crash or a failed sync left in the
// kernel's cache. bbolt builds on what it sees there: it would write over pages
// that the older meta page, to which a power cut goes back, still leads to. They
// are written again, because after a failed sync the kernel takes them for clean.
func (f *boltFile) settle() error {
	if !f.unsettled {
		return nil
	}
	meta := make([]byte, 2*pageSize)
	if _, err := f.file.ReadAt(meta, 0); err != nil {
		return err
	}
	if _, err := f.file.WriteAt(meta, 0); err != nil {
		return err
	}
	f.wear = f.wear.plus(Wear{Bytes: uint64(len(meta)), Syncs: 1})
	if err := f.file.Sync(); err != nil {
		return err
	}
	f.unsettled = false
	return nil
}

// shown returns the number of the transaction that whoever reads sees.
func (f *boltFile) shown() (txid int, err error) {
	err = f.view(func(tx *bolt.Tx) error { txid = tx.ID(); return nil })
	return txid, err
}

// dropMeta puts a copy of the other meta page in the place of that of the
// transaction txid, so that the one before it counts. bbolt keeps lists of its own
// that belong to txid, so nothing may be written to f from then on.
func (f *boltFile) dropMeta(txid int) error {
	to, meta := txid%2, make([]byte, pageHeader+metaSize)
	if _, err := f.file.ReadAt(meta, int64(1-to)*pageSize); err != nil {
		return err
	}
	binary.NativeEndian.PutUint64(meta, uint64(to)) // its page number
	_, err := f.file.WriteAt(meta, int64(to)*pageSize)
	return err
}

// measure notes the size of the file and reports whether it has grown.
func (f *boltFile) measure() (grown bool) {
	info, err := f.file.Stat()
	if err != nil { // whoever reads it says so
		return false
	}
	return f.size.Swap(info.Size()) < info.Size()
}

// checkSize fails if the meta pages are gone. bbolt reads them under a lock that
// it would not release after the fault, and whoever waits for it would for ever.
func (f *boltFile) checkSize() error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < 2*pageSize {
		damage := &CorruptError{Path: f.path, Err: fmt.Errorf("it shrank to %d bytes", info.Size())}
		f.fault.CompareAndSwap(nil, damage)
		return damage
	}
	return nil
}

// close closes what is open. After a failed open only the descriptor may be.
// After a panic bbolt's own Close may wait for ever: then the memory map is left
// to whoever still reads, and only the descriptor and its lock are given up.
func (f *boltFile) close() error {
	switch {
	case f.db != nil && f.fault.Load() == nil:
		return f.db.Close()
	case f.file != nil:
		_ = f.file.Close() // bbolt closes it too after some errors
	}
	return nil
}

// createFile makes a file that is either complete at path or not there: it is
// filled beside it, synced and renamed. The caller syncs the directory. What was
// at path before is replaced.
func createFile(path string, o bolt.Options, fill func(*bolt.Tx) error) (*boltFile, error) {
	tmp := path + tmpSuffix
	f, err := writeAside(tmp, o, func(f *boltFile) error {
		return f.update(func(tx *bolt.Tx) error { return errors.Join(putFormat(tx), fill(tx)) })
	})
	if err == nil {
		f.path = path
		if err = os.Rename(tmp, path); err != nil {
			f.close()
			os.Remove(tmp)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", path, err)
	}
	return f, nil
}

// writeAside makes the file tmp anew and leaves nothing behind if that fails.
func writeAside(tmp string, o bolt.Options, fill func(*boltFile) error) (*boltFile, error) {
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f := &boltFile{path: tmp, wear: Wear{Bytes: emptyPages * pageSize}}
	err := makeEmpty(tmp)
	if err == nil {
		err = f.open(tmp, o)
	}
	if err == nil {
		err = fill(f)
	}
	if err != nil {
		f.close()
		os.Remove(tmp)
		return nil, err
	}
	return f, nil
}

// putFormat writes the format version that checkFormat reads.
func putFormat(tx *bolt.Tx) error {
	meta, err := tx.CreateBucket([]byte(metaBucket))
	if err != nil {
		return err
	}
	return meta.Put([]byte(formatKey), frame([]byte(formatKey), []byte{formatVersion}))
}

// makeDirs makes dir and what it is in, as far as they are not there, so that
// their names survive a power cut.
func makeDirs(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := syncDir(parent)
	if err != nil {
		_ = os.Remove(dir) // so that the next try makes and syncs it
	}
	return err
}

// syncDir makes created, renamed and removed names of dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("sync directory %q: %w", dir, err)
	}
	return nil
}

// quarantine renames the damaged file at path so that nothing opens it again
// and a person can look at it. It returns the new path.
func quarantine(path string, now time.Time) (string, error) {
	to := asideName(path, now)
	if err := os.Rename(path, to); err != nil {
		return "", fmt.Errorf("move damaged file aside: %w", err)
	}
	return to, syncDir(filepath.Dir(path))
}

// replaceDamaged puts the file tmp in the place of the damaged one at path, which
// is kept beside it, and returns under which name. At no moment is there no file
// at path, if the file system has hard links.
func replaceDamaged(path, tmp string, now time.Time) (kept string, err error) {
	kept = asideName(path, now)
	if err := os.Link(path, kept); errors.Is(err, fs.ErrNotExist) {
		kept = ""
	} else if err != nil {
		if err := os.Rename(path, kept); err != nil {
			return "", fmt.Errorf("move damaged file aside: %w", err)
		}
	}
	if err := os.Rename(tmp, path); err != nil {
		return kept, err
	}
	return kept, syncDir(filepath.Dir(path))
}

// asideName is a name for the damaged file at path that no file has.
func asideName(path string, now time.Time) string {
	name := path + corruptInfix + now.UTC().Format("20060102T150405Z")
	to := name
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return to
		}
		to = name + "-" + strconv.Itoa(i)
	}
}

// segmentPath is where the segment that starts with the record first lives.
func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, journalDir, fmt.Sprintf("%016x%s", first, segSuffix))
}

// parseSegment returns the first record of the segment called name.
func parseSegment(name string) (first uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, segSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	first, err := strconv.ParseUint(hex, 16, 64)
	return first, err == nil && first > 0
}

// segmentOptions are those of a segment that is written to. The map has room
// for the largest segment from the start, because growing it waits for readers.
func segmentOptions(size units.Size) bolt.Options {
	return bolt.Options{InitialMmapSize: int(2 * size)}
}
