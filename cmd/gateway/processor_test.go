package main

import (
	"log/slog"
	"runtime"
	"testing"
)

// One goroutine that waits for the disk must not keep all others from their work, also
// where there is one processor. Who wants one at a time, says so.
func TestOneProcessorIsShared(t *testing.T) {
	for asked, want := range map[string]int{"": 2, "1": 1} {
		t.Setenv("GOMAXPROCS", asked)
		before := runtime.GOMAXPROCS(1)
		g, err := newGateway(cloudConfig(t.TempDir()), slog.New(slog.DiscardHandler))
		got := runtime.GOMAXPROCS(before)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.close(); err != nil {
			t.Error(err)
		}
		if got != want {
			t.Errorf("with GOMAXPROCS=%q on one processor %d goroutines run at a time, want %d", asked, got, want)
		}
	}
}
