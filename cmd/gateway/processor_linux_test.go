package main

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Each thread has short turns, also one that starts later. What somebody has set stays.
func TestTurnsAreShort(t *testing.T) {
	nice := parked(t, unix.SchedAttr{Nice: 3})
	batch := parked(t, unix.SchedAttr{Policy: unix.SCHED_BATCH, Nice: 2})
	if err := shortTurns(); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		parked(t, unix.SchedAttr{})
	}
	if turnOf(t, nice).Runtime == 0 {
		t.Skip("this kernel has no turns to ask for (Linux before 6.12)")
	}
	if got := turnOf(t, nice).Nice; got != 3 {
		t.Errorf("a thread with the nice value 3 has %d now", got)
	}
	if a := turnOf(t, batch); a.Policy != unix.SCHED_BATCH || a.Nice != 2 || a.Runtime == uint64(turn) {
		t.Errorf("a thread with SCHED_BATCH and the nice value 2 has %+v now", *a)
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
		if got := turnOf(t, id).Runtime; id != batch && got != uint64(turn) {
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
	if err := <-ready; err != nil {
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
