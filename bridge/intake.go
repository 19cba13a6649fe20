package bridge

// intake hands on what the server sends over one link, once somebody listens.
type intake struct {
	wire  *wire
	ready chan struct{} // closed when there is a taker
	to    taker
}

// newIntake returns the intake of w, which tells it what the server releases.
func newIntake(w *wire) *intake {
	in := &intake{wire: w, ready: make(chan struct{})}
	w.in.released = in.release
	return in
}

// begin must be called once.
func (in *intake) begin(to taker) {
	in.to = to
	close(in.ready)
}

// await reports whether there is a taker, and not only a lost link.
func (in *intake) await() bool {
	select {
	case <-in.ready:
		return true
	case <-in.wire.alive.Done():
		return false
	}
}

func (in *intake) take(a arrival) {
	if in.await() {
		a.tooLarge = in.wire.in.cut.remove(a.id)
		in.to.take(a)
	}
}

// release is called with the identifier of a PUBREL. Its PUBCOMP has the same bytes
// in MQTT 3.1.1 and 5.
func (in *intake) release(id uint16) {
	if in.await() {
		in.to.release(id, func() { _, _ = in.wire.Write([]byte{typePubcomp << 4, 2, byte(id >> 8), byte(id)}) })
	}
}
