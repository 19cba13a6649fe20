package limits

import (
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

func TestDefaultsAreLawful(t *testing.T) {
	var q Queue
	q.SetDefaults(32 * units.MiB)
	if p := q.Check(); len(p) > 0 {
		t.Errorf("the defaults have %q", p)
	}
	want := mqtt.QueueLimits{MaxMemory: 256 << 10, MaxDisk: 32 << 20, Overflow: mqtt.DropOldest}
	if got := q.Limits(); got != want {
		t.Errorf("the defaults are %+v, want %+v", got, want)
	}
}

func TestEachMistakeHasItsPath(t *testing.T) {
	for path, change := range map[string]func(*Queue){
		"max_memory":   func(q *Queue) { q.MaxMemory = 1 },
		"max_disk":     func(q *Queue) { q.MaxDisk = 1 },
		"max_messages": func(q *Queue) { q.MaxMessages = -1 },
		"max_age":      func(q *Queue) { q.MaxAge = units.Duration(time.Millisecond) },
		"overflow":     func(q *Queue) { q.Overflow = "drop" },
		"durability":   func(q *Queue) { q.Durability = "none" },
	} {
		var q Queue
		q.SetDefaults(units.MiB)
		change(&q)
		if p := q.Check(); len(p) != 1 || p[0].Path != path {
			t.Errorf("a wrong %s gives %q", path, p)
		}
	}
}
