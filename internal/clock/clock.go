package clock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookInterval is how often the system is asked whether its clock is right.
	lookInterval = 10 * time.Second

	// saveInterval is how often the time is saved while somebody asks for it: an
	// idle gateway writes nothing. After a power cut the line
	// goes on by as much behind what was saved, so that it never shows a time
	// twice.
	saveInterval = 10 * time.Minute

	// maxSpans bounds what is remembered of earlier starts and corrections.
	maxSpans = 64

	// slack is how much earlier than it was made a stamp can look when it has
	// been on disk: what is stored is relative to two readings of the time.
	slack = 100 * time.Millisecond

	// drift is how far the system's clock may be from what we have taken it
	// for, before that is taken anew.
	drift = 500 * time.Millisecond
)

const fileName = "clock.json"

// Quality says how far a time can be trusted.
type Quality string

// The qualities.
const (
	Synced    Quality = "synced"    // the system's clock was known to be right
	Corrected Quality = "corrected" // it was found to be right later, and the time was corrected
	Unsynced  Quality = "unsynced"  // nobody ever said that it was right
)

// Clock is the gateway's time. Its methods may be called from any goroutine.
type Clock struct {
	path   string
	peeks  bool             // the file is only read
	wall   func() time.Time // what the system's clock says
	synced func() bool      // whether the system knows it to be right
	began  time.Time        // with the monotonic clock

	used atomic.Bool   // the line was asked for since it was saved
	wake chan struct{} // holds a token when it was, for the first time

	mu    sync.Mutex
	state state
	first int64 // the line at began, Unix nanoseconds
	saved time.Time
}

// state is what is kept in the file.
type state struct {
	Line    int64  `json:"line"`    // when it was saved, Unix nanoseconds
	Clean   bool   `json:"clean"`   // ... at an orderly end
	Trusted int64  `json:"trusted"` // the latest time that was known to be right, Unix nanoseconds
	Boot    uint32 `json:"boot"`    // number of the start
	Spans   []span `json:"spans"`   // by From
}

// span is a part of the line, up to the next span.
type span struct {
	From    int64   `json:"from"`   // on the line
	Offset  int64   `json:"offset"` // real time less line
	Boot    uint32  `json:"boot"`
	Quality Quality `json:"quality"`
}

// Open returns the clock whose state is kept in dir, which exists. A state that
// cannot be read begins anew, and is reported by the error beside the clock.
func Open(dir string) (*Clock, error) {
	c := &Clock{path: filepath.Join(dir, fileName), wall: time.Now, synced: systemSynced}
	return c, c.open()
}

// Peek returns a clock that begins with the state kept in dir and changes nothing
// there, for programs beside the gateway.
func Peek(dir string) *Clock {
	c := &Clock{path: filepath.Join(dir, fileName), peeks: true, wall: time.Now, synced: systemSynced}
	_ = c.open() // an unknown past means unknown times
	return c
}

// New returns a clock that keeps nothing over a restart.
func New() *Clock {
	c := &Clock{wall: time.Now, synced: systemSynced}
	_ = c.open() // there is no file to fail with
	return c
}

func (c *Clock) open() error {
	var text []byte
	err := fs.ErrNotExist
	if c.path != "" {
		text, err = os.ReadFile(c.path)
	}
	if err == nil {
		err = json.Unmarshal(text, &c.state)
	}
	if err != nil {
		c.state = state{}
	}
	now := c.wall()
	c.began = time.Now()
	c.first = max(now.UnixNano(), c.state.Line)
	if c.state.Line != 0 && !c.state.Clean && !c.peeks { // nobody stamps with a clock that peeks
		c.first = max(c.first, c.state.Line+int64(saveInterval))
	}
	c.first += int64(time.Millisecond) - c.first%int64(time.Millisecond) // stamps may be cut to milliseconds
	c.first += int64(slack)
	c.used.Store(true) // so that it is saved
	c.wake = make(chan struct{}, 1)
	c.state.Clean = false
	c.state.Boot++
	c.begin(c.first-int64(slack), now.UnixNano()-c.first, Unsynced)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("the time of earlier starts is unknown: %w", err)
	}
	return errors.Join(err, c.Look())
}

// begin adds a span. The caller holds mu, or is alone.
func (c *Clock) begin(from, offset int64, q Quality) {
	s := append(c.state.Spans, span{From: from, Offset: offset, Boot: c.state.Boot, Quality: q})
	c.state.Spans = s[max(0, len(s)-maxSpans):]
}

// Now returns the time on the line. It rises with the monotonic clock, whatever
// happens to the system's clock, and goes on behind the last one after a restart.
// Only [Clock.Real] makes a time of day of it.
func (c *Clock) Now() time.Time {
	if !c.used.Load() {
		c.used.Store(true)
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return time.Unix(0, c.now())
}

func (c *Clock) now() int64 { return c.first + int64(time.Since(c.began)) }

// Real returns the time of day that belongs to a time of the line, as far as it is
// known by now, and the number of the start in which it was.
func (c *Clock) Real(line time.Time) (at time.Time, q Quality, boot uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := line.UnixNano()
	for i := len(c.state.Spans) - 1; i >= 0; i-- {
		if s := c.state.Spans[i]; s.From <= n {
			return time.Unix(0, n+s.Offset), s.Quality, s.Boot
		}
	}
	return line, Unsynced, 0
}

// Floor returns a time that it is at least, for those who check certificates: the
// system's time, or the latest that was known to be right if that is later.
func (c *Clock) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.wall()
	if trusted := time.Unix(0, c.state.Trusted); now.Before(trusted) {
		return trusted
	}
	return now
}

// Raise tells the clock a time that has certainly passed, as the one when the
// program was built.
func (c *Clock) Raise(passed time.Time) {
	if passed.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Trusted = max(c.state.Trusted, passed.UnixNano())
}

// Trusted reports whether the time of day is known to be right.
func (c *Clock) Trusted() bool { return c.Quality() == Synced }

// Quality is that of the time of day now: [Synced], or [Unsynced] until the system
// has said for the first time since the start that its clock is right.
func (c *Clock) Quality() Quality {
	_, q := c.Time()
	return q
}

// Time returns the time of day, as far as it is known. It stamps nothing, so that
// whoever only looks at the clock makes nobody save the line.
func (c *Clock) Time() (at time.Time, q Quality) {
	at, q, _ = c.Real(time.Unix(0, c.now()))
	return at, q
}

// Await returns when the time of day is known to be right, or ctx is done. It asks
// the system every second.
func (c *Clock) Await(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !c.Trusted() {
		select {
		case <-tick.C:
			_ = c.Look() // Run reports what cannot be saved
		case <-ctx.Done():
			return
		}
	}
}

// Run looks at the system's clock, and saves the time now and then, until ctx is
// done. It returns what the last try to save it failed with.
func (c *Clock) Run(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.wake:
			_ = c.Look() // likewise
		case <-tick.C:
			_ = c.Look() // the next one may succeed; the last one is reported
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			c.state.Clean = true
			return c.save()
		}
	}
}

// Look asks the system whether its clock is right by now. If so, what was stamped
// since the start is corrected. It saves what it finds.
func (c *Clock) Look() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	learned := c.synced() && c.learn()
	if !learned && (time.Since(c.saved) < saveInterval || !c.used.Load()) {
		return nil
	}
	return c.save()
}

// learn takes the system's clock for right and reports whether that is news. The
// caller holds mu.
func (c *Clock) learn() bool {
	now, wall := c.now(), c.wall().UnixNano()
	c.state.Trusted = max(c.state.Trusted, wall)
	last := &c.state.Spans[len(c.state.Spans)-1]
	offset := wall - now
	switch {
	case last.Quality != Synced: // the first time since the start
		last.Offset, last.Quality = offset, Corrected
	case offset-last.Offset < int64(drift) && last.Offset-offset < int64(drift):
		return false
	}
	c.begin(now, offset, Synced)
	return true
}

// save writes the state aside and puts it in place of the old one. The caller
// holds mu.
func (c *Clock) save() error {
	c.saved = time.Now()
	c.used.Store(false) // before the time is taken: what is asked for from now on is not in it
	c.state.Line = c.now()
	if c.path == "" || c.peeks {
		return nil
	}
	text, err := json.Marshal(c.state)
	if err != nil {
		return fmt.Errorf("save the time: %w", err)
	}
	aside := c.path + ".new"
	if err := write(aside, text); err != nil {
		return fmt.Errorf("save the time: %w", err)
	}
	if err := os.Rename(aside, c.path); err != nil {
		return fmt.Errorf("save the time: %w", err)
	}
	return nil
}

func write(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
