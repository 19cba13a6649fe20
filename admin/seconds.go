package admin

import (
	"fmt"
	"math"
	"time"
)

// Seconds is a span of time. It is a plain number in JSON.
type Seconds float64

// since returns how long ago t was, to the millisecond.
func since(t time.Time) Seconds {
	return Seconds(time.Since(t).Round(time.Millisecond).Seconds())
}

// sinceEver is since for a t that may be zero, which stands for never.
func sinceEver(t time.Time) *Seconds {
	if t.IsZero() {
		return nil
	}
	s := since(t)
	return &s
}

// String writes s for people: its two largest units, as in 2d3h, 5m12s, 42s or 4ms.
func (s Seconds) String() string {
	if s < 0.9995 {
		return fmt.Sprintf("%dms", int64(math.Round(float64(s)*1000)))
	}
	switch n := int64(s + 0.0005); {
	case n < 60:
		return fmt.Sprintf("%ds", n)
	case n < 3600:
		return fmt.Sprintf("%dm%ds", n/60, n%60)
	case n < 86400:
		return fmt.Sprintf("%dh%dm", n/3600, n%3600/60)
	default:
		return fmt.Sprintf("%dd%dh", n/86400, n%86400/3600)
	}
}
