//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"tidegate/internal/pty"
)

const (
	// lineRate is what 115200 baud carry, 8N1, in bytes per second.
	lineRate = 115200 / 10

	// firstNumber gives all numbers six digits, so a line that is cut or joined
	// with the next one is never taken for another line.
	firstNumber = 100_001

	lineSize = len("n=100001;\n")
)

// sensor is a serial device that writes numbered lines.
type sensor struct {
	watched
	t     testing.TB
	pair  *pty.Pair
	rate  int // bytes per second
	total int // lines to write while somebody listens

	heard   int         // lines written while somebody listened
	lost    int         // lines that fell off the wire meanwhile
	next    int         // number of the next line
	sentAt  []time.Time // by number - firstNumber
	deaf    bool        // nobody listens
	stopped bool        // all lines are written
}

// newSensor makes a sensor that is silent until it runs.
func newSensor(t testing.TB, rate, total int) *sensor {
	t.Helper()
	pair, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pair.Close() })
	return &sensor{t: t, pair: pair, rate: rate, total: total, next: firstNumber}
}

// run writes at the line rate until total lines were written to somebody.
func (s *sensor) run(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	began, written := time.Now(), 0
	defer context.AfterFunc(ctx, func() { s.pair.Close() })()
	for {
		due := int(time.Since(began).Seconds()*float64(s.rate))/lineSize - written
		for range due {
			if s.done() || !s.write() {
				return
			}
		}
		written += max(due, 0)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *sensor) done() (done bool) {
	s.update(func() {
		done = s.heard >= s.total
		s.stopped = done
	})
	return done
}

// write writes one line, and returns false when the line is gone for good.
func (s *sensor) write() bool {
	_, err := fmt.Fprintf(s.pair.Master, "n=%d;\n", s.next)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	s.update(func() {
		if err != nil || s.deaf {
			s.lost++
		} else {
			s.heard++
		}
		s.next++
		s.sentAt = append(s.sentAt, time.Now())
	})
	return true
}

// mute lets lines fall off the wire, as they do when nobody has the port open.
func (s *sensor) mute() {
	s.update(func() { s.deaf = true })
	_ = s.pair.Master.SetWriteDeadline(time.Now()) // also ends a write under way
}

// unmute is the reverse.
func (s *sensor) unmute() {
	_ = s.pair.Master.SetWriteDeadline(time.Time{})
	s.update(func() { s.deaf = false })
}

// current returns the number of the next line.
func (s *sensor) current() (n int) {
	s.look(func() { n = s.next })
	return n
}

// before returns the number of the first line written less than d ago.
func (s *sensor) before(d time.Duration) int {
	n := firstNumber
	s.look(func() {
		for n < s.next && time.Since(s.sentAt[n-firstNumber]) > d {
			n++
		}
	})
	return n
}

// awaitHeard waits until n lines were written to somebody.
func (s *sensor) awaitHeard(n int) {
	s.t.Helper()
	s.await(s.t, fmt.Sprintf("%d lines of the sensor", n), func() bool { return s.heard >= n })
}

// awaitEnd waits until the sensor has written everything, and returns the last
// number.
func (s *sensor) awaitEnd() (last int) {
	s.t.Helper()
	s.await(s.t, "the sensor's last line", func() bool { return s.stopped })
	return s.current() - 1
}
