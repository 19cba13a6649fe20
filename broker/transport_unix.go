//go:build unix

package broker

import (
	"errors"
	"io"
	"net"
	"syscall"

	"tidegate/internal/quiet"
)

// socket is the transport over a socket. It uses the descriptor itself: to wait
// for bytes without a buffer, and to write without blocking.
type socket struct {
	net.Conn
	raw syscall.RawConn

	// Of the one reader.
	in      *input
	readErr error
	onRead  func(fd uintptr) bool

	// Of the one writer; who that is, the connection decides.
	out      []byte
	written  int
	writeErr error
	onWrite  func(fd uintptr) bool
}

// newSocket returns nil if c is not a socket.
func newSocket(c net.Conn) transport {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{Conn: c, raw: raw}
	s.onRead, s.onWrite = s.readNow, s.writeNow
	return s
}

func (s *socket) read(in *input) error {
	s.in, s.readErr = in, nil
	if err := s.raw.Read(s.onRead); err != nil {
		return err
	}
	return s.readErr
}

// readNow reads what there is. Its false makes the runtime wait and call again.
func (s *socket) readNow(fd uintptr) bool {
	n, err := quiet.Read(fd, s.in.room(readSize))
	for err == syscall.EINTR {
		n, err = quiet.Read(fd, s.in.room(readSize))
	}
	switch {
	case err == nil && n > 0:
		s.in.came(n)
		return true
	case err == nil:
		s.readErr = io.EOF
	case err != syscall.EAGAIN:
		s.readErr = err
	}
	s.in.full = false
	s.in.rest()
	return s.readErr != nil
}

func (s *socket) tryWrite(b []byte) (int, error) {
	s.out, s.written, s.writeErr = b, 0, nil
	if err := s.raw.Write(s.onWrite); err != nil {
		return 0, err
	}
	s.out = nil
	return s.written, s.writeErr
}

// writeNow writes what the socket takes and never makes the runtime wait.
func (s *socket) writeNow(fd uintptr) bool {
	for s.written < len(s.out) {
		n, err := quiet.Write(fd, s.out[s.written:])
		switch err {
		case nil:
			s.written += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			s.writeErr = err
			return true
		}
	}
	return true
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
