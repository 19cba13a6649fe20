package packet

import (
	"errors"
	"fmt"
	"io"
)

// Reader takes packets of a server from a stream. It is for one goroutine.
type Reader struct {
	// Version is that of the connection; 0 is read as 3.1.1. It may be set
	// between two calls of Next.
	Version Version

	r       io.Reader
	maxSize int
	buf     []byte // what was read and not yet handed out is buf[start:]
	start   int
}

// readerBuffer is the first size of the buffer in bytes.
const readerBuffer = 4096

// NewReader reads packets of at most maxSize bytes, fixed header included, from r.
func NewReader(r io.Reader, maxSize int) *Reader {
	return &Reader{r: r, maxSize: maxSize, buf: make([]byte, 0, readerBuffer)}
}

// Next waits for the next packet. The frame is valid until the next call. The
// error is one of [Split], [io.EOF] if the stream ends between two packets,
// [io.ErrUnexpectedEOF] if it ends inside one, or the stream's own. After an
// error the reader is of no further use.
func (r *Reader) Next() (Frame, error) {
	for {
		f, n, need, err := link{r.Version, true}.split(r.buf[r.start:], r.maxSize)
		if err != nil {
			return Frame{}, err
		}
		if n > 0 {
			r.start += n
			return f, nil
		}
		if err := r.fill(need); err != nil {
			return Frame{}, err
		}
	}
}

// fill reads more of a packet of need bytes, which are known before the buffer is
// full. The buffer grows with the bytes that came, not with what a peer claims.
func (r *Reader) fill(need int) error {
	if r.start > 0 {
		r.buf = r.buf[:copy(r.buf, r.buf[r.start:])]
		r.start = 0
	}
	if len(r.buf) == cap(r.buf) {
		grown := make([]byte, len(r.buf), min(2*cap(r.buf), need))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := r.r.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	switch {
	case n > 0:
		return nil // an error that came with bytes comes again
	case errors.Is(err, io.EOF) && len(r.buf) > 0:
		return io.ErrUnexpectedEOF
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return fmt.Errorf("read packet: %w", err)
	}
	return nil
}
