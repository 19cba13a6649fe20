package main

import (
	"log/slog"
	"os"
	"runtime"
)

// shareProcessor has two goroutines run in turn where there is one processor: else nothing
// does while one of them waits for the disk, until the Go runtime finds out, which takes it
// up to 20 ms, or until a page of a mapped file is there. And it asks the kernel for short
// turns of the threads that they run on. Who sets GOMAXPROCS gets neither.
func shareProcessor(log *slog.Logger) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) > 1 {
		return
	}
	runtime.GOMAXPROCS(2)
	if err := shortTurns(); err != nil {
		log.Debug("turns on the processor stay as they are", "error", err)
	}
}
