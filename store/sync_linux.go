package store

import (
	"os"
	"syscall"
)

// syncData makes the content of f durable, without the times that no longer fit it.
func syncData(f *os.File) error {
	return os.NewSyscallError("fdatasync", syscall.Fdatasync(int(f.Fd())))
}
