package store

import (
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// letGo takes the map of tx's file, which stays where it is while tx is open, out of
// the process's memory. The page cache keeps the pages as long as there is room, and
// whoever touches one gets it back. That it cannot be done is no failure: memory is
// only counted differently.
func letGo(tx *bolt.Tx) {
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), syscall.MADV_DONTNEED)
}
