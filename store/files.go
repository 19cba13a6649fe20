package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"tidegate/internal/units"
)

const (
	stateName  = "state.db"
	journalDir = "journal"
	segSuffix  = ".seg"
	tmpSuffix  = ".tmp"

	corruptInfix = ".corrupt-" // between the name of a file set aside and the time

	// pageSize is fixed, for the page is the unit of writing: kernels with
	// pages of 16 KiB (Raspberry Pi 5) would write four times as much.
	pageSize = 4096

	// lockTimeout is how long another process may take to let go of a file.
	lockTimeout = time.Second

	// growStep is by how much a file is extended at a time, each costing a
	// sync of its own.
	growStep = 256 << 10
)

// boltFile is an open bbolt file.
type boltFile struct {
	path string
	db   *bolt.DB
	file *os.File // the descriptor of db
}

// openFile opens the existing file at path. It returns a CorruptError for
// damage, ErrLocked, ErrNewerFormat, or what the operating system says. A file
// opened for writing is checked as a whole, one opened for reading only as far
// as skip does not exclude buckets.
func openFile(path string, o bolt.Options, skip func(bucket []byte) bool) (f *boltFile, err error) {
	if err := walkFile(path, skip); err != nil {
		return nil, openError(path, err)
	}
	f = &boltFile{path: path}
	err = guard(path, func() error {
		if err := f.open(path, o, 0); err != nil {
			return err
		}
		return f.db.View(func(tx *bolt.Tx) error { return checkFormat(path, tx) })
	})
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

// open opens path with bbolt. flags are added to those that bbolt asks for,
// without which it does not create a file.
func (f *boltFile) open(path string, o bolt.Options, flags int) error {
	o.Timeout = lockTimeout
	o.PageSize = pageSize
	o.NoFreelistSync = true
	o.FreelistType = bolt.FreelistMapType
	o.NoStatistics = true
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		file, err := os.OpenFile(name, flag&^os.O_CREATE|flags, mode)
		f.file = file
		return file, err
	}
	db, err := bolt.Open(path, 0o600, &o)
	if err != nil {
		return err
	}
	db.AllocSize = growStep
	f.db = db
	return nil
}

// close closes what is open. After a failed open only the descriptor may be.
func (f *boltFile) close() error {
	if f.db != nil {
		return f.db.Close()
	}
	if f.file != nil {
		f.file.Close()
	}
	return nil
}

// abandon closes the descriptor, and so gives up the lock, but leaves the memory
// map to whoever still reads: after a panic bbolt's own Close may wait for ever.
func (f *boltFile) abandon() { _ = f.file.Close() }

// update is bolt.DB.Update but for a panic in fn or in the commit: bbolt would
// then collect the free pages anew, in a goroutine where the next panic or fault
// ends the process. After a panic db must not be written to again.
func update(db *bolt.DB, fn func(*bolt.Tx) error) error {
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// createFile makes a file that is either complete at path or not there: it is
// filled beside it, synced and renamed. The caller syncs the directory. What was
// at path before is replaced.
func createFile(path string, o bolt.Options, fill func(*bolt.Tx) error) (*boltFile, error) {
	tmp := path + tmpSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f := &boltFile{path: path}
	err := guard(tmp, func() error {
		if err := f.open(tmp, o, os.O_CREATE|os.O_EXCL); err != nil {
			return err
		}
		return update(f.db, func(tx *bolt.Tx) error { return errors.Join(putFormat(tx), fill(tx)) })
	})
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		f.close()
		os.Remove(tmp)
		return nil, fmt.Errorf("create %q: %w", path, err)
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
	name := path + corruptInfix + now.UTC().Format("20060102T150405Z")
	to := name
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = name + "-" + strconv.Itoa(i)
	}
	if err := os.Rename(path, to); err != nil {
		return "", fmt.Errorf("move damaged file aside: %w", err)
	}
	return to, syncDir(filepath.Dir(path))
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
