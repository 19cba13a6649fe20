package frame

import (
	"errors"
	"iter"

	"tidegate/internal/check"
	"tidegate/internal/units"
)

// KindLine is the framing by line ends.
const KindLine = "line"

// The limits of a frame in bytes.
const (
	DefaultMax = 4 * units.KiB
	maxMax     = units.MiB
)

// ErrTooLong is yielded in the place of a frame that is longer than the limit.
var ErrTooLong = errors.New("frame is longer than the limit; raise frame.max, or check the baud rate")

// Config says how frames are told apart.
type Config struct {
	Kind string     `yaml:"kind"`          // [KindLine] (default)
	Max  units.Size `yaml:"max,omitempty"` // longest frame without its end; default [DefaultMax]
}

// SetDefaults fills in kind and max.
func (c *Config) SetDefaults() {
	if c.Kind == "" {
		c.Kind = KindLine
	}
	if c.Max == 0 {
		c.Max = DefaultMax
	}
}

// Check returns every mistake.
func (c *Config) Check() check.Problems {
	var p check.Problems
	if c.Kind != KindLine {
		p.Add("kind", "%q is no framing; use line", c.Kind)
	}
	if c.Max < 1 || c.Max > maxMax {
		p.Add("max", "%v is no length of a frame; use 1 to %v, as in %v", c.Max, maxMax, DefaultMax)
	}
	return p
}

// New makes a splitter for a stream that starts now. The configuration must have
// passed its Check.
func (c *Config) New() Splitter { return &lines{max: int(c.Max)} }

// Splitter cuts one stream of bytes into frames. It keeps at most one frame of
// the configured length and is not safe for concurrent use.
type Splitter interface {
	// Frames takes the next bytes of the stream and yields the frames that
	// they complete, without their ends. A frame is valid until the next one
	// is asked for. An error stands for a frame that was dropped. The rest of
	// p is lost if the loop ends early.
	Frames(p []byte) iter.Seq2[[]byte, error]

	// SkipFirst drops what belongs to the frame that is under way, of which
	// the beginning was missed. It must be called before the first Frames.
	SkipFirst()
}
