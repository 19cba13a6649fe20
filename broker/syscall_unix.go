//go:build unix && (!linux || race)

package broker

import "syscall"

// The race detector takes what goes through a socket for what it is: a message
// from one goroutine to another. It sees only these.

func readSocket(fd uintptr, b []byte) (int, error)  { return syscall.Read(int(fd), b) }
func writeSocket(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }
