package adapters

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
)

// run is one run of a scripted adapter.
type run func(ctx context.Context, out Sink) error

// scripted plays one run after the other; after the last it waits for the end.
// It notes when each run began.
type scripted struct {
	runs  []run
	began []time.Time
}

func (s *scripted) Run(ctx context.Context, out Sink) error {
	n := len(s.began)
	s.began = append(s.began, time.Now())
	if n < len(s.runs) {
		return s.runs[n](ctx, out)
	}
	return untilDone(ctx, out)
}

func (s *scripted) Report() Report {
	return Report{Device: "/dev/script", Frames: 7, Rejected: map[string]uint64{"noise": 2}}
}

func fails(text string) run {
	return func(context.Context, Sink) error { return errors.New(text) }
}

func untilDone(ctx context.Context, out Sink) error {
	if err := out.Emit(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// upFor is a device that goes away after d.
func upFor(d time.Duration) run {
	return func(ctx context.Context, out Sink) error {
		if err := out.Emit(ctx); err != nil {
			return err
		}
		sleep(ctx, d)
		return errors.New("gone")
	}
}

// collector is a publisher that keeps what it gets, as "topic payload".
type collector struct {
	mu     sync.Mutex
	got    []string
	refuse func(m mqtt.Message) error
}

func (c *collector) Publish(ctx context.Context, m mqtt.Message) error {
	return c.PublishAsync(ctx, m, nil)
}

func (c *collector) PublishAsync(ctx context.Context, m mqtt.Message, _ func(error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.refuse != nil {
		if err := c.refuse(m); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	text := m.Topic + " " + string(m.Payload)
	if m.Retain {
		text += " retained"
	}
	c.got = append(c.got, text)
	return nil
}

func (c *collector) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

const (
	saidOnline  = "sensor/weather/status online retained"
	saidOffline = "sensor/weather/status offline retained"
)

// bench is a supervisor at work inside a synctest bubble.
type bench struct {
	*Supervisor
	adapter *scripted
	broker  *collector
	log     *bytes.Buffer
	stop    func() // and wait for the end of Run
}

func start(t *testing.T, broker *collector, runs ...run) *bench {
	c := Config{Name: "weather", Kind: "script", Payload: PayloadValue}
	c.SetDefaults()
	b := &bench{adapter: &scripted{runs: runs}, broker: broker, log: new(bytes.Buffer)}
	b.Supervisor = NewSupervisor(&c, b.adapter, broker, slog.New(slog.NewTextHandler(b.log, nil)))
	b.backoff.Source = rand.NewPCG(1, 2)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(b.stop)
	synctest.Wait()
	return b
}

// pass lets d go by, and what happens at its end happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (b *bench) lines() (levels []string) {
	for line := range strings.Lines(b.log.String()) {
		_, rest, _ := strings.Cut(line, "level=")
		level, _, _ := strings.Cut(rest, " ")
		levels = append(levels, level)
	}
	return levels
}

func TestReadingsArePublishedBetweenOnlineAndOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &collector{}, func(ctx context.Context, out Sink) error {
			if err := out.Emit(ctx, Reading{Name: "t", Value: 21.4}, Reading{Name: "h", Value: int64(40)}); err != nil {
				return err
			}
			return untilDone(ctx, out)
		})
		began := time.Now()
		pass(time.Hour)
		b.stop()
		want := []string{saidOffline, saidOnline, "sensor/weather/t 21.4", "sensor/weather/h 40", saidOffline}
		if got := b.broker.all(); !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
		status := b.Status()
		if !status.Since.Equal(began.Add(time.Hour)) {
			t.Errorf("offline since %v, want an hour after %v", status.Since, began)
		}
		status.Since = time.Time{}
		if want := (Status{
			Name: "weather", Kind: "script", Device: "/dev/script", State: Offline,
			Frames: 7, Rejected: map[string]uint64{"noise": 2}, Readings: 2, Published: 2, LastReading: began,
		}); !reflect.DeepEqual(status, want) {
			t.Errorf("status %+v, want %+v", status, want)
		}
	})
}

// A device that is missing for a day is one warning and one status; the waits
// between the tries grow to the longest and stay there.
func TestAMissingDeviceIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs []run
		for range 2000 {
			runs = append(runs, fails("no such device /dev/script: is it plugged in?"))
		}
		b := start(t, &collector{}, runs...)
		pass(24 * time.Hour) // at most 30 s a try
		if n := len(b.adapter.began); n < 2001 {
			t.Fatalf("%d tries in a day", n)
		}
		for i, ceiling := range []time.Duration{2e9, 4e9, 8e9, 16e9, 30e9, 30e9} {
			if wait := b.adapter.began[i+1].Sub(b.adapter.began[i]); wait < time.Second || wait > ceiling {
				t.Errorf("wait %d is %v, want 1s to %v", i, wait, ceiling)
			}
		}
		if got, want := b.broker.all(), []string{saidOffline, saidOnline}; !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
		if got, want := b.lines(), []string{"WARN", "INFO"}; !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q:\n%s", got, want, b.log)
		}
		if s := b.Status(); s.State != Online || !strings.Contains(s.LastError, "is it plugged in?") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestEachLossIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &collector{}, upFor(time.Minute), fails("missing"), fails("missing"), upFor(time.Minute), fails("missing"))
		pass(time.Hour)
		want := []string{saidOffline, saidOnline, saidOffline, saidOnline, saidOffline, saidOnline}
		if got := b.broker.all(); !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
		if got, want := b.lines(), []string{"INFO", "WARN", "INFO", "WARN", "INFO"}; !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q:\n%s", got, want, b.log)
		}
	})
}

// A device that works for a while and is lost is tried again soon; one that is
// lost as soon as it is there is waited for longer and longer.
func TestTheWaitIsShortAgainAfterAHealthyRun(t *testing.T) {
	for name, c := range map[string]struct {
		up           time.Duration
		least, bound time.Duration // of the longest of many waits
	}{
		"healthy":  {time.Minute, 0, 2 * time.Second},
		"flapping": {time.Second, 20 * time.Second, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var runs []run
				for range 40 {
					runs = append(runs, upFor(c.up))
				}
				b := start(t, &collector{}, runs...)
				pass(3 * time.Hour)
				var longest time.Duration
				for i := range 40 {
					longest = max(longest, b.adapter.began[i+1].Sub(b.adapter.began[i])-c.up)
				}
				if longest < c.least || longest > c.bound {
					t.Errorf("the longest wait is %v, want %v to %v", longest, c.least, c.bound)
				}
			})
		})
	}
}

func TestACrashIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &collector{}, func(ctx context.Context, out Sink) error {
			out.Emit(ctx)
			var none []int
			_ = none[3]
			return nil
		})
		if s := b.Status(); s.State != Offline || !strings.Contains(s.LastError, "index out of range") || strings.Contains(s.LastError, "goroutine") {
			t.Errorf("status after the crash: %+v", s)
		}
		pass(time.Minute)
		if s := b.Status(); s.State != Online {
			t.Errorf("it did not come back: %+v", s)
		}
		if text := b.log.String(); !strings.Contains(text, "TestACrashIsAFault") {
			t.Errorf("no stack in the log:\n%s", text)
		}
	})
}

func TestAnAdapterThatJustReturnsIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &collector{}, func(context.Context, Sink) error { return nil })
		if s := b.Status(); s.LastError != errStopped.Error() {
			t.Errorf("last error %q, want %q", s.LastError, errStopped)
		}
	})
}

func TestStopEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &collector{}, fails("missing"))
		began := time.Now()
		b.stop()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the stop took %v", waited)
		}
		if n := len(b.adapter.began); n != 1 {
			t.Errorf("%d runs, want 1", n)
		}
	})
}

func TestRefusedReadingsAreCountedAndTheRestGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &collector{refuse: func(m mqtt.Message) error {
			switch m.Topic {
			case "sensor/weather/large":
				return fmt.Errorf("publish: %w", mqtt.ErrTooLarge)
			case "sensor/weather/odd":
				return fmt.Errorf("publish: %w", mqtt.ErrInvalidTopic)
			}
			return nil
		}}
		b := start(t, broker, func(ctx context.Context, out Sink) error {
			err := out.Emit(ctx, Reading{Name: "a", Value: math.NaN()}, Reading{Name: "large", Value: 1}, Reading{Name: "odd", Value: 1}, Reading{Name: "noise", Value: nil}, Reading{Name: "b", Value: 2})
			return errors.Join(err, untilDone(ctx, out))
		})
		status := b.Status()
		if want := map[string]uint64{"not_finite": 1, "too_large": 1, "topic": 1, "type": 1, "noise": 2}; !reflect.DeepEqual(status.Rejected, want) {
			t.Errorf("rejected %v, want %v", status.Rejected, want)
		}
		if status.Readings != 5 || status.Published != 1 || status.State != Online {
			t.Errorf("status %+v", status)
		}
		if got, want := broker.all(), []string{saidOffline, saidOnline, "sensor/weather/b 2"}; !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}

func TestABrokerThatTakesNothingEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &collector{refuse: func(m mqtt.Message) error {
			if !m.Retain {
				return mqtt.ErrClosed
			}
			return nil
		}}
		var got error
		b := start(t, broker, func(ctx context.Context, out Sink) error {
			got = out.Emit(ctx, Reading{Name: "t", Value: 1})
			return got
		})
		if !errors.Is(got, mqtt.ErrClosed) || b.Status().State != Offline {
			t.Errorf("Emit returned %v, status %+v", got, b.Status())
		}
	})
}

func TestEmitAfterTheEndFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := start(t, &collector{})
		cancel()
		if err := (sink{b.Supervisor}).Emit(ctx, Reading{Name: "t", Value: 1}); !errors.Is(err, context.Canceled) {
			t.Errorf("Emit returned %v", err)
		}
	})
}

// Status, Emit and the changes of state race in the way the gateway uses them.
func TestStatusFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var emitters sync.WaitGroup
		b := start(t, &collector{}, func(ctx context.Context, out Sink) error {
			for range 4 {
				emitters.Go(func() {
					for range 100 {
						if err := out.Emit(ctx, Reading{Name: "t", Value: 1}, Reading{Name: "t", Value: math.NaN()}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			emitters.Wait()
			return untilDone(ctx, out)
		})
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for range 100 {
					s := b.Status()
					s.Rejected["mine"] = 1 // the map is the caller's
				}
			})
		}
		readers.Wait()
		synctest.Wait()
		if s := b.Status(); s.Readings != 800 || s.Published != 400 || s.Rejected["not_finite"] != 400 || s.Rejected["mine"] != 0 {
			t.Errorf("status %+v", s)
		}
	})
}
