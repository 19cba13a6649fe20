package main

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where there is one processor each thread has short turns, also one that starts later. What
// somebody has set stays, and who sets GOMAXPROCS gets that alone.
func TestTurnsAreShort(t *testing.T) {
	const long, shorter = uint64(3 * time.Millisecond), uint64(turn / 2)
	nice := parked(t, unix.SchedAttr{Nice: 3, Runtime: long})
	batch := parked(t, unix.SchedAttr{Policy: unix.SCHED_BATCH, Nice: 2, Runtime: long})
	short := parked(t, unix.SchedAttr{Runtime: shorter})
	if turnOf(t, nice).Runtime != long {
		t.Skip("this kernel has no turns to ask for (Linux before 6.12)")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	t.Setenv("GOMAXPROCS", "1")
	shareProcessor(slog.New(slog.DiscardHandler))
	if got := turnOf(t, nice).Runtime; got != long {
		t.Errorf("with GOMAXPROCS set a thread has turns of %d ns, want %d", got, long)
	}
	t.Setenv("GOMAXPROCS", "")
	shareProcessor(slog.New(slog.DiscardHandler))
	for range 8 {
		parked(t, unix.SchedAttr{})
	}
	if got := turnOf(t, nice).Nice; got != 3 {
		t.Errorf("a thread with the nice value 3 has %d now", got)
	}
	if a := turnOf(t, batch); a.Policy != unix.SCHED_BATCH || a.Nice != 2 || a.Runtime != long {
		t.Errorf("a thread with SCHED_BATCH and the nice value 2 has %+v now", *a)
	}
	if got := turnOf(t, short).Runtime; got != shorter {
		t.Errorf("a thread with turns of %d ns has %d now", shorter, got)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if id == batch || id == short {
			continue
		}
		if got := turnOf(t, id).Runtime; got != uint64(turn) {
			t.Errorf("thread %d has turns of %d ns, want %d", id, got, turn)
		}
	}
}

// parked has a thread of its own wait until the test ends, with what is not zero in a.
func parked(t *testing.T, a unix.SchedAttr) int {
	t.Helper()
	var (
		id    int
		ended sync.WaitGroup
	)
	ready, end := make(chan error), make(chan struct{})
	ended.Go(func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		var err error
		if id = unix.Gettid(); id != os.Getpid() && a != (unix.SchedAttr{}) {
			err = unix.SchedSetAttr(0, &a, 0)
		}
		ready <- err
		<-end
	})
	t.Cleanup(ended.Wait)
	t.Cleanup(func() { close(end) })
	switch err := <-ready; {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		t.Skip("this system lets nobody ask for turns: ", err)
	case err != nil:
		t.Fatal(err)
	}
	if id == os.Getpid() {
		return parked(t, a) // the first thread of a process does not end before it does
	}
	return id
}

func turnOf(t *testing.T, thread int) *unix.SchedAttr {
	t.Helper()
	a, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		t.Fatalf("read the turns of thread %d: %v", thread, err)
	}
	return a
}
