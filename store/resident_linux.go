package store

import "syscall"

// letGo takes n bytes of a file's map at data out of the process's memory. The page
// cache keeps them as long as there is room, and whoever touches one gets it back.
// That it cannot be done is no failure: memory is only counted differently.
func letGo(data uintptr, n int64) {
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, data, uintptr(n), syscall.MADV_DONTNEED)
}
