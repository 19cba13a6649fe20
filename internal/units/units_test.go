package units

import (
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "64KiB": 64 << 10, "1GiB": 1 << 30, "500MB": 500e6, "2 MiB": 2 << 20, "9B": 9, "1kB": 1000,
	} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q = %d, %v; want %d", text, got, err, want)
		}
		var again Size
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%q is written %q and read back as %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5MiB", "64K", "KiB", "9999999999GiB", "1e3"} {
		var s Size
		if s.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q was read as %d", text, s)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "250ms": 250 * time.Millisecond, "10s": 10 * time.Second, "2h": 2 * time.Hour, "30d": 720 * time.Hour, "1h30m": 90 * time.Minute,
	} {
		var got Duration
		if err := got.UnmarshalText([]byte(text)); err != nil || time.Duration(got) != want {
			t.Errorf("%q = %v, %v; want %v", text, got, err, want)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%q is written %q and read back as %v, %v", text, got, again, err)
		}
	}
	for d, want := range map[time.Duration]string{2 * time.Hour: "2h", 90 * time.Minute: "1h30m", 48 * time.Hour: "2d", time.Minute: "1m", 10 * time.Second: "10s"} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
	for _, text := range []string{"", "10", "-1s", "3 weeks", "d"} {
		var d Duration
		if d.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}
