//go:build unix

package store

import (
	"os"
	"syscall"
)

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
