//go:build unix && (!linux || race)

package quiet

import "syscall"

// The race detector takes what goes through a socket for what it is: a message
// from one goroutine to another. It sees only these.

// Read is read(2) on the descriptor of a socket that never blocks.
func Read(fd uintptr, b []byte) (int, error) { return syscall.Read(int(fd), b) }

// Write is write(2) on such a descriptor.
func Write(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }
