//go:build unix

package store

import (
	"fmt"
	"os"
	"syscall"
)

// lockFile locks the file or directory at path as bbolt does with its files, until the
// descriptor is closed. The error is ErrLocked if another process has the lock; a file
// system that has no such locks is let pass.
func lockFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", path, ErrLocked)
	}
	return f, nil
}

// inUse reports whether a process holds the lock that bbolt takes on the file at
// path. What such a file holds is not to be judged.
func inUse(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // with it goes the lock
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}
