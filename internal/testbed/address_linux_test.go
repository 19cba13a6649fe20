package testbed

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
)

// ipLocalPortRange is IP_LOCAL_PORT_RANGE of ip(7), which package syscall does not have.
const ipLocalPortRange = 51

// A reserved port refuses connections, is handed to nobody who asks for any port, and
// can be listened on by who asks for it, also when a server before has used it.
func TestReserveAddr(t *testing.T) {
	address := ReserveAddr(t)
	for range 3 {
		if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("connection %v, error %v, want it refused", c, err)
		}
		checkNotHandedOut(t, address)
		serveOnce(t, address)
	}
}

// checkNotHandedOut asks for any port out of a range that has only this one.
func checkNotHandedOut(t *testing.T, address string) {
	t.Helper()
	_, text, _ := net.SplitHostPort(address)
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	only := func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(socket uintptr) {
			err = syscall.SetsockoptInt(int(socket), syscall.IPPROTO_IP, ipLocalPortRange, port<<16|port)
		})
		return errors.Join(failed, err)
	}
	if _, err := (&net.ListenConfig{Control: only}).Listen(t.Context(), "tcp", "127.0.0.1:0"); errors.Is(err, syscall.ENOPROTOOPT) {
		t.Skip("needs Linux 6.3 or newer: ports cannot be asked for out of a range")
	} else if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a server that asks for any port: %v, want %v", err, syscall.EADDRINUSE)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := (&net.Dialer{Control: only}).Dial("tcp", other.Addr().String()); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("a client that needs any port: %v, want %v", err, syscall.EADDRNOTAVAIL)
	}
}

// serveOnce listens, and leaves a connection behind that the kernel remembers for a while.
func serveOnce(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served.Close() // the server first, so that its side stays in TIME_WAIT
}
