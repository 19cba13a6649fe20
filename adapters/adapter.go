package adapters

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"tidegate/internal/check"
)

// Adapter talks to one device.
type Adapter interface {
	// Run opens the device, emits what it measures and returns when ctx is
	// done or the device fails; its error then says what a user can do. It
	// must return within half a second of the end of ctx, and everything it
	// started must have ended by then. It may be called again, and it may
	// panic: the supervisor turns that into an error.
	Run(ctx context.Context, out Sink) error
}

// Sink takes readings.
type Sink interface {
	// Emit takes over readings in order. It blocks while the gateway cannot
	// take more; an adapter that must not miss anything meanwhile needs a
	// buffer of its own. A call means that the device is there: an adapter
	// that has opened its device but has nothing to tell yet calls Emit with
	// no readings. Emit may be called from any goroutine. On an error the
	// adapter must return from Run.
	Emit(ctx context.Context, readings ...Reading) error
}

// Reading is one value that a device measured.
type Reading struct {
	Name    string    // of the field, such as "temperature"; any text
	Value   any       // a number, a string or a bool
	Unit    string    // such as "°C"; the configuration may name another
	At      time.Time // when it was measured; zero means now
	Quality Quality
}

// Quality says how far a reading can be trusted. The zero value is good.
type Quality uint8

// The qualities of a reading (CONTRACT, "Topics").
const (
	QualityGood     Quality = iota
	QualityRange            // outside the limits of its field
	QualityStale            // an old value, repeated
	QualityChecksum         // the device's check of the bytes failed
	QualityTimeout          // the device did not answer in time
	QualityInit             // from before the first measurement
)

// String returns the word that payloads use.
func (q Quality) String() string {
	switch q {
	case QualityGood:
		return "good"
	case QualityRange:
		return "range"
	case QualityStale:
		return "stale"
	case QualityChecksum:
		return "checksum"
	case QualityTimeout:
		return "timeout"
	case QualityInit:
		return "init"
	}
	return fmt.Sprintf("quality(%d)", uint8(q))
}

// Report is what an adapter tells about itself.
type Report struct {
	Device   string            // as the configuration names it, such as /dev/ttyUSB0
	Frames   uint64            // frames that were understood
	Rejected map[string]uint64 // frames that were not, by reason; a few fixed words
}

// Reporter is an adapter that tells about its device. Report may be called from
// any goroutine at any time, also while the adapter is in [Sink.Emit]; its map
// is the caller's.
type Reporter interface{ Report() Report }

// Entry is the configuration of one adapter: what the Config type of each kind
// implements by embedding [Config] inline.
type Entry interface {
	// Common returns the part that all kinds share, to be changed in place.
	Common() *Config

	// SetDefaults fills in what was left out.
	SetDefaults()

	// Check returns every mistake. SetDefaults must have been called.
	Check() check.Problems

	// Open makes the adapter. It starts nothing and does not touch the
	// device, so that a missing device is no reason not to start. Check must
	// have found nothing.
	Open(log *slog.Logger) (Adapter, error)
}
