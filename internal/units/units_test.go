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
	for size, want := range map[Size]string{0: "0", 1023: "1023", 1 << 20: "1MiB", 16e9: "16GB", 64e3: "64kB", 1000 << 10: "1000KiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d is written %q, want %q", int64(size), got, want)
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

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"200/s": {200, 0}, "64KiB/s": {0, 64 << 10}, "9B/s": {0, 9}, "200/s 64KiB/s": {200, 64 << 10}, "1MB/s  7/s": {7, 1e6}, "0": {},
	} {
		var got Rate
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q = %+v, %v; want %+v", text, got, err, want)
		}
		var again Rate
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%q is written %q and read back as %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "200", "64KiB", "0/s", "-1/s", "/s", "200/m", "1/s 2/s", "1/s 2", "1.5/s"} {
		var r Rate
		if r.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q was read as %+v", text, r)
		}
	}
}

func TestPercent(t *testing.T) {
	for text, want := range map[string]Percent{"0%": 0, "50%": 50, "100%": 100} {
		var got Percent
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want || got.String() != text {
			t.Errorf("%q = %v, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "50", "%", "101%", "-1%", "1.5%"} {
		var p Percent
		if p.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q was read as %v", text, p)
		}
	}
}

func TestBudget(t *testing.T) {
	for text, want := range map[string]Budget{"500MB/day": 500e6, " 1GiB/day ": Budget(GiB), "0": 0, "0/day": 0} {
		var b Budget
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q is %d, %v; want %d", text, b, err, want)
		}
		var again Budget
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q is written %q, which is %d, %v", text, b, again, err)
		}
	}
	for _, text := range []string{"", "500MB", "500MB/h", "/day", "-1MB/day", "much/day"} {
		var b Budget
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d", text, b)
		}
	}
}
