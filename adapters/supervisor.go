package adapters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"tidegate/internal/backoff"
	"tidegate/internal/clock"
	"tidegate/mqtt"
)

const (
	// healthyAfter is how long a run must have lasted for the next fault to
	// count as a new one, which is waited out briefly again.
	healthyAfter = 10 * time.Second

	// farewell bounds how long the last status may take to be handed over.
	farewell = 2 * time.Second
)

// errStopped is the fault of an adapter that returns without one.
var errStopped = errors.New("the adapter stopped without saying why; it is started again")

// Supervisor runs one adapter: again after each fault, with growing waits.
type Supervisor struct {
	adapter   Adapter
	mapping   *Mapping
	publisher mqtt.Publisher
	log       *slog.Logger
	backoff   backoff.Backoff
	observe   func(Status)

	mu     sync.Mutex // guards status; nothing is called under it
	status Status     // without what the adapter reports
}

// NewSupervisor makes the supervisor of a, whose configuration is c. It starts
// nothing.
func NewSupervisor(c *Config, a Adapter, p mqtt.Publisher, log *slog.Logger) *Supervisor {
	return &Supervisor{
		adapter:   a,
		mapping:   NewMapping(c),
		publisher: p,
		log:       log.With("adapter", c.Name),
		observe:   func(Status) {},
		status:    Status{Name: c.Name, Kind: c.Kind, State: Offline, Since: time.Now()},
	}
}

// UseClock gives the readings the gateway's clock. It is called before Run.
func (s *Supervisor) UseClock(c *clock.Clock) { s.mapping.clock = c }

// UseObserver has fn told of each change of the state. It is called before Run. fn
// must not block.
func (s *Supervisor) UseObserver(fn func(Status)) { s.observe = fn }

// Run runs the adapter until ctx is done. The retained status topic says
// "offline" from the start, "online" from the first [Sink.Emit] of each run to
// the end of that run, and "offline" when Run returns. A fault is logged once,
// when it takes the adapter offline or keeps it from coming up; the tries that
// follow are not. Run must be called once.
func (s *Supervisor) Run(ctx context.Context) {
	s.announceOffline(ctx) // a power cut may have left "online" behind
	defer func() { s.down(ctx) }()
	for reported := false; ; {
		started := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		s.note(err)
		if s.down(ctx) || !reported {
			s.complain(err)
			reported = true
		}
		if time.Since(started) >= healthyAfter {
			s.backoff.Reset()
		}
		if !sleep(ctx, s.backoff.Next()) {
			return
		}
	}
}

// runOnce is the one place that survives the crash of an adapter.
func (s *Supervisor) runOnce(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &crash{p, debug.Stack()}
		}
	}()
	if err := s.adapter.Run(ctx, sink{s}); err != nil {
		return err
	}
	return errStopped
}

// crash is the fault of an adapter that panicked.
type crash struct {
	value any
	stack []byte
}

func (c *crash) Error() string {
	return fmt.Sprintf("the adapter crashed: %v; it is started again, but this is a bug: please report it with the log", c.value)
}

func (s *Supervisor) complain(err error) {
	args := []any{"error", err}
	if c, ok := errors.AsType[*crash](err); ok {
		args = append(args, "stack", string(c.stack))
	}
	s.log.Warn("adapter is offline and tries again", args...)
}

func (s *Supervisor) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.LastError = err.Error()
}

// up makes the adapter online and says so, unless it is already.
func (s *Supervisor) up(ctx context.Context) error {
	if !s.change(Online) {
		return nil
	}
	s.observe(s.Status())
	s.log.Info("adapter is online", "device", s.report().Device)
	return s.announce(ctx, Online)
}

// down makes the adapter offline and says so; it reports whether it was online.
func (s *Supervisor) down(ctx context.Context) bool {
	if !s.change(Offline) {
		return false
	}
	s.observe(s.Status())
	s.announceOffline(ctx)
	return true
}

// change reports whether the state was another one.
func (s *Supervisor) change(to State) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.State == to {
		return false
	}
	s.status.State, s.status.Since = to, time.Now()
	return true
}

// announceOffline must also work after the end of ctx, which is how Run ends.
func (s *Supervisor) announceOffline(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := s.announce(ctx, Offline); err != nil {
		s.log.Warn("adapter could not tell that it is offline", "error", err)
	}
}

func (s *Supervisor) announce(ctx context.Context, state State) error {
	m := s.mapping.Status(state)
	if err := s.publisher.PublishAsync(ctx, m, nil); err != nil {
		return fmt.Errorf("publish %q: %w", m.Topic, err)
	}
	return nil
}

// sleep waits for d and reports whether ctx is still going on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
