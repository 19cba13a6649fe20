package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Errors of opening a store, to be matched with [errors.Is].
var (
	// ErrLocked means another process has the store open.
	ErrLocked = errors.New("another process has it open; stop that process, or ask it instead")

	// ErrNewerFormat means a newer program wrote the store. Nothing was changed.
	ErrNewerFormat = errors.New("written by a newer version")
)

// ErrClosed means that Close was called before.
var ErrClosed = errors.New("store is closed")

// ErrNoState means that state.db is damaged, and cannot be written anew yet. No rows are
// taken; the same batch without them may be.
var ErrNoState = errors.New("state.db is damaged and cannot be written anew")

// ErrReadOnly means that the store was opened by OpenReadOnly.
var ErrReadOnly = errors.New("store is open for reading only")

// CorruptError says what cannot be read. Seq is the first record that may be
// concerned, 0 if no record is.
type CorruptError struct {
	Path string
	Seq  uint64
	Err  error
}

// Error names the file and the damage.
func (e *CorruptError) Error() string {
	if e.Seq == 0 {
		return fmt.Sprintf("%q is damaged: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%q is damaged at record %d: %v", e.Path, e.Seq, e.Err)
}

// Unwrap returns the damage without its place.
func (e *CorruptError) Unwrap() error { return e.Err }

// openError sorts the errors of opening a bbolt file. What the operating system
// refuses (permission, no memory, no descriptor) says nothing about the content
// and stays as it is; everything else means damage.
func openError(path string, err error) error {
	var (
		corrupt *CorruptError
		pathErr *fs.PathError
		sysErr  *os.SyscallError
		errno   syscall.Errno
	)
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("open %q: %w", path, ErrLocked)
	case errors.Is(err, ErrNewerFormat), errors.As(err, &corrupt):
		return err
	case errors.As(err, &pathErr), errors.As(err, &sysErr), errors.As(err, &errno):
		return fmt.Errorf("open %q: %w", path, err)
	default:
		return &CorruptError{Path: path, Err: err}
	}
}

// isCorrupt reports whether err means damage.
func isCorrupt(err error) bool {
	var corrupt *CorruptError
	return errors.As(err, &corrupt)
}

// checkFormat reads the format version that every file of the store carries.
func checkFormat(path string, tx *bolt.Tx) error {
	meta := tx.Bucket([]byte(metaBucket))
	if meta == nil {
		return &CorruptError{Path: path, Err: errors.New("it has no format version")}
	}
	v, err := unframe([]byte(formatKey), meta.Get([]byte(formatKey)))
	if err != nil || len(v) != 1 {
		return &CorruptError{Path: path, Err: fmt.Errorf("format version: %w", errors.Join(err, errShort))}
	}
	if v[0] > formatVersion {
		return fmt.Errorf("open %q: %w: the file has format %d, this program reads up to %d; start a program that reads format %d",
			path, ErrNewerFormat, v[0], formatVersion, v[0])
	}
	return nil
}
