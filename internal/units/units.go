package units

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// The multiples of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// sizeUnits is ordered so that String finds the largest unit first, and
// UnmarshalText what only ends with B last.
var sizeUnits = []struct {
	suffix string
	bytes  Size
}{
	{"GiB", GiB},
	{"GB", 1e9},
	{"MiB", MiB},
	{"MB", 1e6},
	{"KiB", KiB},
	{"kB", 1e3},
	{"KB", 1e3},
	{"B", 1},
}

// String writes s with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits[:6] {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText writes s as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a whole number of bytes, or one with a unit: B, kB, MB,
// GB (powers of 1000), KiB, MiB, GiB (powers of 1024).
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := strings.TrimSpace(string(text)), Size(1)
	for _, u := range sizeUnits {
		if head, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(head), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/int64(unit) {
		return fmt.Errorf("%q is not a size; write a whole number with B, kB, MB, GB, KiB, MiB or GiB, as in 64KiB", text)
	}
	*s = Size(n) * unit
	return nil
}

// Duration is a span of time.
type Duration time.Duration

const day = 24 * time.Hour

// String writes whole days as "30d", else as [time.Duration] does without
// empty minutes and seconds.
func (d Duration) String() string {
	t := time.Duration(d)
	if t != 0 && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	text := t.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if head, ok := strings.CutSuffix(text, zero); ok {
			text = head + zero[:1]
		}
	}
	return text
}

// MarshalText writes d as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what [time.ParseDuration] reads, and days: "30d".
// A span cannot be negative. A lone 0 needs no unit.
func (d *Duration) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if head, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(head, 10, 16); err == nil {
			*d = Duration(time.Duration(n) * day)
			return nil
		}
	}
	t, err := time.ParseDuration(s)
	if err != nil || t < 0 {
		return fmt.Errorf("%q is not a duration; write a number with ms, s, m, h or d, as in 10s", text)
	}
	*d = Duration(t)
	return nil
}
