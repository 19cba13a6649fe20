package clock

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// board is a machine whose clock is set by the test.
type board struct {
	t      *testing.T
	dir    string
	ahead  time.Duration // of its clock before the bubble's time, which is the real one
	synced bool
}

func (b *board) boot() *Clock {
	b.t.Helper()
	c := &Clock{
		path:   filepath.Join(b.dir, "clock.json"),
		wall:   func() time.Time { return time.Now().Add(b.ahead) },
		synced: func() bool { return b.synced },
	}
	if err := c.open(); err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *board) want(c *Clock, line, at time.Time, q Quality, boot uint32) {
	b.t.Helper()
	gotAt, gotQ, gotBoot := c.Real(line)
	if d := gotAt.Sub(at); d < -time.Second || d > time.Second || gotQ != q || gotBoot != boot {
		b.t.Errorf("Real(%v) = %v, %s, boot %d; want %v, %s, boot %d", line, gotAt, gotQ, gotBoot, at, q, boot)
	}
}

const decades = 30 * 365 * 24 * time.Hour // the bubble begins in 2000

func TestABoardWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, dir: t.TempDir(), ahead: -decades}
		c := b.boot()
		real1, line1 := time.Now(), c.Now()
		b.want(c, line1, real1.Add(-decades), Unsynced, 1)
		time.Sleep(time.Hour)
		b.ahead, b.synced = 0, true // NTP
		if err := c.Look(); err != nil {
			t.Fatal(err)
		}
		b.want(c, line1, real1, Corrected, 1)
		real2, line2 := time.Now(), c.Now()
		b.want(c, line2, real2, Synced, 1)
		if d := line2.Sub(line1); d != time.Hour {
			t.Errorf("the line jumped: an hour has %v", d)
		}

		time.Sleep(7 * time.Minute) // a power cut; for a week it is off
		time.Sleep(7 * 24 * time.Hour)
		b.ahead, b.synced = -decades, false
		c = b.boot()
		real3, line3 := time.Now(), c.Now()
		if !line3.After(line2.Add(7 * time.Minute)) {
			t.Errorf("the line shows %v again, it was at %v", line3, line2)
		}
		b.want(c, line1, real1, Corrected, 1)
		b.want(c, line2, real2, Synced, 1)
		if _, q, boot := c.Real(line3); q != Unsynced || boot != 2 || c.Trusted() {
			t.Errorf("after a restart the clock is %s in boot %d", q, boot)
		}
		if floor := c.Floor(); floor.Before(real2) {
			t.Errorf("certificates are checked at %v", floor)
		}
		time.Sleep(time.Minute)
		b.ahead, b.synced = 0, true
		_ = c.Look()
		b.want(c, line3, real3, Corrected, 2)
	})
}

// Somebody sets the clock by decades while the gateway runs.
func TestStepsOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, dir: t.TempDir(), synced: true}
		c := b.boot()
		begin := c.Now()
		for _, step := range []time.Duration{decades, -decades} {
			b.ahead, b.synced = step, false // setting the clock ends the kernel's trust
			time.Sleep(time.Minute)
			_ = c.Look()
			b.want(c, c.Now(), time.Now(), Synced, 1)
		}
		if d := c.Now().Sub(begin); d != 2*time.Minute {
			t.Errorf("two minutes have %v", d)
		}
		b.ahead, b.synced = 3*time.Second, true // a leap of what is said to be right
		_ = c.Look()
		b.want(c, c.Now(), time.Now().Add(3*time.Second), Synced, 1)
		b.want(c, begin.Add(time.Minute), time.Now().Add(-time.Minute), Synced, 1)
	})
}

func TestAStampOfTheFirstMomentBelongsToTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, dir: t.TempDir()}
		b.boot()
		time.Sleep(time.Minute)
		c := b.boot()
		b.want(c, c.Now().Add(-time.Millisecond), time.Now(), Unsynced, 2)
	})
}

func TestTheLineNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, dir: t.TempDir(), ahead: decades}
		last := b.boot().Now()
		for range 3 * maxSpans {
			b.ahead -= 24 * time.Hour
			time.Sleep(time.Minute)
			c := b.boot()
			if !c.Now().After(last) {
				t.Fatalf("the line went back from %v to %v", last, c.Now())
			}
			last = c.Now()
			if n := len(c.state.Spans); n > maxSpans {
				t.Fatalf("%d spans are kept", n)
			}
		}
	})
}

func TestADamagedStateBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "clock.json"), []byte(`{"line":`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(dir)
	if err == nil {
		t.Error("nothing is said")
	}
	if d := time.Since(c.Now()); d < -time.Second || d > time.Minute {
		t.Errorf("the line is %v behind", d)
	}
	c.Raise(time.Now().Add(time.Hour))
	if c.Floor().Before(time.Now().Add(time.Minute)) {
		t.Error("the floor was not raised")
	}
}

// While nobody asks for the time it is not written; the first who does so after
// that has it saved at once, so that a power cut does not show it again.
func TestAnIdleHourWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, dir: t.TempDir(), synced: true}
		c := b.boot()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		c.Now()
		time.Sleep(time.Hour) // which saves that it was asked for
		before := b.modified()
		time.Sleep(time.Hour)
		if after := b.modified(); after != before {
			t.Errorf("before the idle hour the file had %s, then %s", before, after)
		}
		c.Now()
		synctest.Wait()
		last := c.Now()
		dead := &board{t: t, dir: b.dir, ahead: -decades} // a power cut, and no battery
		if again := dead.boot(); !again.Now().After(last) {
			t.Errorf("the line shows %v again, it was at %v", again.Now(), last)
		}
		cancel()
		<-done
	})
}

// modified returns what the file says of itself.
func (b *board) modified() string {
	text, err := os.ReadFile(filepath.Join(b.dir, "clock.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// A clock that peeks goes on where the other one was, and changes nothing.
func TestPeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{t: t, dir: t.TempDir(), synced: true}
		c := b.boot()
		line, real := c.Now(), time.Now()
		if err := c.Look(); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(filepath.Join(b.dir, "clock.json"))
		time.Sleep(3 * time.Hour)
		p := Peek(b.dir)
		b.want(p, line, real, Synced, 1)
		if d := p.Now().Sub(line); d < 3*time.Hour || d > 3*time.Hour+time.Second {
			t.Errorf("three hours have %v", d)
		}
		_ = p.Look()
		if after, _ := os.ReadFile(filepath.Join(b.dir, "clock.json")); string(after) != string(before) || len(before) == 0 {
			t.Errorf("the file was %s and is %s", before, after)
		}
		if p = Peek(t.TempDir()); p.Now().IsZero() {
			t.Error("without a file there is no time")
		}
	})
}
