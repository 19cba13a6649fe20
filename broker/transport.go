package broker

import (
	"errors"
	"io"
	"net"
	"sync"
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

// readSize is the size of a pooled buffer. A full one holds over a hundred small
// messages, which are then routed and flushed together.
const readSize = 16 << 10

var readPool = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

// input is what was read and not yet parsed.
type input struct {
	buf   []byte  // nil: nothing is kept
	lent  *[]byte // buf's place in the pool; nil: buf is larger than a pooled one
	start int     // of what is not parsed
	end   int
}

// bytes returns what is not parsed.
func (in *input) bytes() []byte { return in.buf[in.start:in.end] }

// room returns space to read into, at least one byte.
func (in *input) room() []byte {
	if in.buf == nil {
		in.lent = readPool.Get().(*[]byte)
		in.buf = *in.lent
	}
	return in.buf[in.end:]
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
	if size <= len(in.buf) || have < len(in.buf) {
		return
	}
	grown := make([]byte, min(size, 2*len(in.buf)))
	copy(grown, in.buf[:have])
	in.giveBack()
	in.buf, in.end = grown, have
}

func (in *input) giveBack() {
	if in.lent != nil {
		readPool.Put(in.lent)
	}
	*in = input{}
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
	n, err := s.Read(in.room())
	in.end += n
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
