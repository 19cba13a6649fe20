//go:build unix

package bridge

import (
	"net"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/quiet"
	"tidegate/mqtt"
)

func TestHandful(t *testing.T) {
	for _, c := range []struct {
		rate float64
		owed int
		want int
	}{
		{100_000, 250, 8}, // in 150 µs come 15
		{250_000, 250, 32},
		{100_000, 20, 4},    // a quarter is 5
		{100_000, 3, 1},     // and else they would never come
		{100_000, 0, 1},     // what comes is something else
		{12_000, 250, 1},    // over a network of 20 ms
		{1_000_000, 60, 8},  // a quarter is 15
		{1_000_000, 64, 16}, // a quarter
	} {
		now := time.Now()
		h := handful{since: now}
		for range sample {
			h.took()
		}
		now = now.Add(time.Duration(sample / c.rate * float64(time.Second)))
		if got := h.of(c.owed, now); got != c.want {
			t.Errorf("%d of %d that are owed at %.0f a second, want %d", got, c.owed, c.rate, c.want)
		}
	}
}

// A sample that has a pause in it is slow, however fast the one before was.
func TestAHandfulAfterAPauseIsOne(t *testing.T) {
	now := time.Now()
	h := handful{since: now, rate: 1e6}
	for range sample {
		h.took()
	}
	if got := h.of(250, now.Add(time.Minute)); got != 1 {
		t.Errorf("%d, want 1", got)
	}
}

// The socket is told, whatever is between it and the wire.
func TestTheSocketKnowsTheHandful(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	socket := quiet.Over(conn)
	w := newWire(&webSocketConn{Conn: socket, raw: socket}, time.Minute, time.Minute, 1000)
	w.receipts.handful.rate = 1e6
	for range 64 {
		w.receipts.add(newFlight().add(nil, mqtt.Delivery{}, backlog))
	}
	w.await(time.Now())
	if got := lowWater(t, conn); got != 16*puback {
		t.Errorf("the reader is woken for %d bytes, want %d", got, 16*puback)
	}
}

func lowWater(t *testing.T, conn net.Conn) (bytes int) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { bytes, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}
