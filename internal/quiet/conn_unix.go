//go:build unix

package quiet

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Over returns a connection that reads and writes the socket under c with [Read]
// and [Write], or c if it is no socket. At a time one goroutine may read from it, and
// one may write. Deadlines and Close are those of c, and so are errors.
func Over(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	quiet := &conn{Conn: c, raw: raw}
	quiet.onRead, quiet.onWrite, quiet.onAwait = quiet.readNow, quiet.writeNow, quiet.awaitNow
	return quiet
}

type conn struct {
	net.Conn
	raw             syscall.RawConn
	in, out         call
	onRead, onWrite func(fd uintptr) bool

	// Of the one reader, see Await.
	onAwait  func(fd uintptr)
	least    int // bytes, as the socket has it; 0: any
	patience time.Duration
	deadline time.Time
	patient  bool // a wait is not to take longer than patience
}

// call is what a Read or Write has to do, and has done.
type call struct {
	b   []byte
	n   int
	err error
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in = call{b: b}
	err := c.raw.Read(c.onRead)
	if c.patient && errors.Is(err, os.ErrDeadlineExceeded) {
		c.await(1, c.deadline)
		err = c.raw.Read(c.onRead)
	}
	return c.done("read", &c.in, err)
}

// Await is that of [Patient].
func (c *conn) Await(least int, patience time.Duration, deadline time.Time) {
	c.patience, c.deadline = patience, deadline
	c.await(least, deadline)
}

// await has the socket let nobody know of less than least bytes. Where it does not, Read
// returns what there is.
func (c *conn) await(least int, deadline time.Time) {
	if least != max(c.least, 1) {
		c.least = least
		_ = c.raw.Control(c.onAwait) // not of a connection that is closed; Read says so
	}
	c.patient = false
	_ = c.SetReadDeadline(deadline)
}

func (c *conn) awaitNow(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, c.least)
}

func (c *conn) Write(b []byte) (int, error) {
	c.out = call{b: b}
	return c.done("write", &c.out, c.raw.Write(c.onWrite))
}

// readNow reads what there is. Its false makes the runtime wait and call again.
func (c *conn) readNow(fd uintptr) bool {
	n, err := Read(fd, c.in.b)
	for err == syscall.EINTR {
		n, err = Read(fd, c.in.b)
	}
	switch {
	case err == syscall.EAGAIN:
		c.beginWait()
		return false
	case err != nil:
		c.in.err = os.NewSyscallError("read", err)
	case n == 0:
		c.in.err = io.EOF
	}
	c.in.n = max(n, 0)
	return true
}

// beginWait bounds a wait for more than any bytes.
func (c *conn) beginWait() {
	if c.least > 1 && !c.patient {
		c.patient = true
		_ = c.SetReadDeadline(time.Now().Add(c.patience))
	}
}

// writeNow writes what the socket takes, likewise.
func (c *conn) writeNow(fd uintptr) bool {
	for c.out.n < len(c.out.b) {
		n, err := Write(fd, c.out.b[c.out.n:])
		switch err {
		case nil:
			c.out.n += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			c.out.err = os.NewSyscallError("write", err)
			return true
		}
	}
	return true
}

// done is what a call has led to. Waited is the error of waiting for the socket.
func (c *conn) done(op string, did *call, waited error) (n int, err error) {
	n, err = did.n, did.err
	*did = call{}
	if waited != nil {
		err = cause(waited)
	}
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// cause is what went wrong, without what it was called.
func cause(err error) error {
	if o := (*net.OpError)(nil); errors.As(err, &o) {
		return o.Err
	}
	return err
}
