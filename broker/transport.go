package broker

import (
	"errors"
	"io"
	"net"
	"time"
)

// transport moves the bytes of one connection. An idle one holds no buffer.
type transport interface {
	// read waits until there are bytes and then reads some into a buffer of
	// the pool, behind what is kept of the last read.
	read(in *input) error

	// tryWrite writes what it can without blocking.
	tryWrite(b []byte) (n int, err error)

	// Write blocks until all is written or the write deadline has passed.
	io.WriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	RemoteAddr() net.Addr
}

// How much is asked of a socket at a time. A full buffer holds over a hundred small
// messages, which are then routed and flushed together; after one that was full
// more is asked for.
const (
	readSize = 16 << 10
	wideRead = 64 << 10
)

// input is what was read and not yet parsed.
type input struct {
	buf   []byte // nil: nothing is kept
	start int    // of what is not parsed
	end   int
	full  bool // the last read left no room
}

// bytes returns what is not parsed.
func (in *input) bytes() []byte { return in.buf[in.start:in.end] }

// room returns space to read into, at least one byte, in a buffer of least bytes or
// more.
func (in *input) room(least int) []byte {
	if in.full {
		least = wideRead
	}
	if cap(in.buf) < least {
		in.move(least)
	}
	return in.buf[in.end:]
}

// came notes that n bytes were read.
func (in *input) came(n int) {
	in.end += n
	in.full = in.end == len(in.buf)
}

// parsed notes that n bytes were taken. When nothing is left the buffer goes back.
func (in *input) parsed(n int) {
	in.start += n
	if in.start == in.end {
		in.giveBack()
	}
}

// need makes room for a packet of size bytes of which the first are there. It
// grows with what has come, not with what was announced, so that an announcement
// costs a peer as much as it costs us.
func (in *input) need(size int) {
	have := in.end - in.start
	if in.start > 0 {
		copy(in.buf, in.buf[in.start:in.end])
		in.start, in.end = 0, have
	}
	if have == len(in.buf) {
		in.move(min(size, 2*have))
	}
}

// rest keeps no more than a small buffer, if what is kept fits into it, while
// nothing comes.
func (in *input) rest() {
	switch have := in.end - in.start; {
	case have == 0:
		in.giveBack()
	case have < smallBuffer && cap(in.buf) > smallBuffer:
		in.move(smallBuffer)
	}
}

// move takes what is kept into a buffer of size bytes or more.
func (in *input) move(size int) {
	to := append(newBuffer(size), in.bytes()...)
	full, have := in.full, len(to)
	in.giveBack()
	in.buf, in.end, in.full = to[:cap(to)], have, full
}

// giveBack keeps nothing but what is known of the peer.
func (in *input) giveBack() {
	giveBack(in.buf)
	*in = input{full: in.full}
}

// newTransport picks the transport for c: one that uses the socket itself, if
// there is one.
func newTransport(c net.Conn) transport {
	if t := newSocket(c); t != nil {
		return t
	}
	return stream{c}
}

// stream is the transport over any [net.Conn]. It cannot write without blocking,
// so a writer goroutine does.
type stream struct{ net.Conn }

func (s stream) read(in *input) error {
	n, err := s.Read(in.room(smallBuffer)) // what it waits with is held by an idle connection
	in.came(n)
	if n > 0 {
		return nil
	}
	return err
}

func (stream) tryWrite([]byte) (int, error) { return 0, nil }

// closedByPeer reports whether err is how connections end in ordinary life.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || isReset(err)
}
