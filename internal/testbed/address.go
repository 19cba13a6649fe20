package testbed

import (
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
)

// ReserveAddr returns an address of the loopback interface, HOST:PORT, that is the
// test's own until it ends: for programs that cannot be asked which port they took,
// and for connections that are to be refused.
//
// A socket that is bound to it, and does not listen, keeps the kernel from handing
// the port to somebody who asks for any. A program that asks for just this one gets it,
// again and again, if it sets SO_REUSEADDR, as servers do (socket(7)).
func ReserveAddr(t testing.TB) string {
	t.Helper()
	port, err := reserve(t)
	if err != nil {
		t.Fatal(os.NewSyscallError("reserve a port", err))
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func reserve(t testing.TB) (port int, err error) {
	syscall.ForkLock.RLock() // a program that is started meanwhile must not inherit the socket
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(socket)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, err
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		return 0, err
	}
	return name.(*syscall.SockaddrInet4).Port, nil
}
