//go:build linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what has to happen, or while nothing does
// that leads there. It is far more than it takes, and only a test that fails waits
// so long.
const patience = 60 * time.Second

// watched is state that goroutines change and others wait for.
type watched struct {
	mu      sync.Mutex
	changed chan struct{} // closed with the next change; nil while nobody waits
}

// update runs change, which nobody sees halfway.
func (w *watched) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// look runs fn while nothing changes.
func (w *watched) look(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// wait returns when cond holds, or with an error when ctx is done.
func (w *watched) wait(ctx context.Context, cond func() bool) error {
	for {
		w.mu.Lock()
		if cond() {
			w.mu.Unlock()
			return nil
		}
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// await is wait for the goroutine of the test, which fails if nothing changes any
// more and cond does not hold. As long as something does, it may take its time: how
// much a busy machine gets done in a minute, nobody knows. what completes "waiting for …".
func (w *watched) await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	standstill := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing has changed for %v", patience)) })
	defer standstill.Stop()
	err := w.wait(ctx, func() bool { standstill.Reset(patience); return cond() })
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

// background runs fn until the test has ended, and waits for it to return.
func background(t testing.TB, fn func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fn(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// pause waits a moment before something is tried again, or until ctx is done.
func pause(ctx context.Context) {
	moment := time.NewTimer(10 * time.Millisecond)
	defer moment.Stop()
	select {
	case <-moment.C:
	case <-ctx.Done():
	}
}
