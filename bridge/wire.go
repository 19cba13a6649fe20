package bridge

import (
	"bufio"
	"context"
	"net"
	"sync/atomic"
	"time"

	"tidegate/internal/quiet"
)

// wire is the network connection under a paho client. It sees the end of the
// connection before paho does and keeps it from paho until the link is closed:
// what is called while the client goes down blocks until its time-out, and a Write
// that paho sees fail takes the client down. So once the wire is
// lost, writes seem to succeed and go nowhere, and reads wait for release.
//
// The wire also watches the server: one that is not heard from for silence,
// although paho pings it, or does not take a write within patience, is lost.
type wire struct {
	net.Conn
	socket   quiet.Patient // below everything; nil: there is none
	in       *guard
	receipts *receipts
	out      gather
	silence  time.Duration
	patience atomic.Int64 // a time.Duration, see hurry
	last     atomic.Int64 // when the server last sent anything, see heard
	begin    time.Time
	up       atomic.Bool // the server accepted us; before that, errors go to paho
	leaving  atomic.Bool // see hurry
	alive    context.Context
	lose     context.CancelCauseFunc
	released chan struct{}
}

// newWire puts a wire over conn that takes packets of at most limit bytes from
// the server.
func newWire(conn net.Conn, silence, patience time.Duration, limit int) *wire {
	w := &wire{Conn: conn, socket: quiet.Under(conn), receipts: newReceipts(), silence: silence, begin: time.Now(), released: make(chan struct{})}
	w.out.write = w.write
	w.patience.Store(int64(patience))
	w.in = &guard{src: bufio.NewReader(readerFunc(w.fill)), limit: limit, acked: w.receipts.accepted} // paho reads single bytes
	w.alive, w.lose = context.WithCancelCause(context.Background())
	return w
}

// arm begins the watch. It is called when the server has accepted us.
func (w *wire) arm() {
	w.up.Store(true)
	_ = w.SetReadDeadline(time.Now().Add(w.silence))
}

// fail ends the connection with a cause, of which the first counts.
func (w *wire) fail(cause error) {
	w.lose(cause)
	_ = w.Conn.Close()
}

// release lets paho know that the connection has ended.
func (w *wire) release() { close(w.released) }

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.in.Read(b)
	if err != nil && w.up.Load() {
		w.fail(err)
		<-w.released
	}
	return n, err
}

func (w *wire) fill(b []byte) (int, error) {
	w.receipts.rest()
	if w.up.Load() {
		w.await(time.Now())
	}
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.last.Store(int64(time.Since(w.begin)))
	}
	return n, err
}

// puback is how many bytes a PUBACK has at least.
const puback = 4

// await has the next Read wait for a handful of acknowledgements, and a while for anything.
func (w *wire) await(now time.Time) {
	if deadline := now.Add(w.silence); w.socket != nil {
		w.socket.Await(puback*w.receipts.worth(now), handfulTime, deadline)
	} else {
		_ = w.SetReadDeadline(deadline)
	}
}

// heard returns when the server last sent anything, or when the wire was made.
func (w *wire) heard() time.Time { return w.begin.Add(time.Duration(w.last.Load())) }

// Write takes whole packets. It waits while the connection takes no more.
func (w *wire) Write(b []byte) (int, error) {
	w.out.room()
	w.out.put(b)
	if err := w.sent(w.out.drive()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// flush sends what was published, see gather.
func (w *wire) flush() { _ = w.sent(w.out.flush()) }

// sent is what paho learns of the error of a write.
func (w *wire) sent(err error) error {
	if err == nil || !w.up.Load() {
		return err
	}
	if isTimeout(err) {
		err = errNotReading
	}
	w.fail(err)
	return nil
}

// SetWriteDeadline is called by paho only, for each packet. See write.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// hurry bounds the write under way, and later ones, by patience, because paho takes
// leave now.
func (w *wire) hurry(patience time.Duration) {
	w.leaving.Store(true)
	w.patience.Store(int64(patience))
	_ = w.Conn.SetWriteDeadline(time.Now().Add(patience))
}

// write is the gather's.
func (w *wire) write(b []byte) error {
	for patience := int64(-1); patience != w.patience.Load(); {
		patience = w.patience.Load()
		_ = w.Conn.SetWriteDeadline(time.Now().Add(time.Duration(patience)))
	}
	_, err := w.Conn.Write(b)
	return err
}

// Close is called by paho only. Its DISCONNECT may wait behind what another goroutine
// writes just now; without it the server publishes the will.
func (w *wire) Close() error {
	if w.leaving.Load() {
		w.out.settle()
	}
	w.fail(net.ErrClosed)
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
