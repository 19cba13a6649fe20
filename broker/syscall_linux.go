//go:build linux && !race

package broker

import (
	"syscall"
	"unsafe"
)

// readSocket and writeSocket are read(2) and write(2) on a socket that never
// blocks. The scheduler is not told, as it need not be for a call that returns
// at once: telling it wakes its monitor thread for every message that reaches an
// idle gateway.

func readSocket(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return result(n, errno)
}

func writeSocket(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return result(n, errno)
}

func result(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
