package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// turn is how long a thread has the processor before another one of the gateway that is woken
// may take it; one that only waits for its turn gets it with the kernel's next tick. The
// kernel's own is 0.7 to 2.8 ms, by the number of processors.
const turn = 200 * time.Microsecond

// shortTurns asks the kernel for it, for each thread: those that come later have it from who
// starts them, and the second look finds who was being started during the first. A kernel
// before Linux 6.12 takes no notice (sched_setattr(2), sched_runtime with SCHED_OTHER).
func shortTurns() error {
	if err := shortenTurns(); err != nil {
		return err
	}
	if a, err := unix.SchedGetAttr(0, 0); err != nil || a.Runtime == 0 {
		return err // an older kernel
	}
	<-time.After(10 * time.Millisecond) // many times what it takes to start a thread
	return shortenTurns()
}

func shortenTurns() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads {
		if err := shortTurn(t.Name()); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("shorten the turns of thread %s: %w", t.Name(), err)
		}
	}
	return nil
}

// shortTurn leaves who has a policy of its own or shorter turns, and the nice value of all.
func shortTurn(thread string) error {
	id, err := strconv.Atoi(thread)
	if err != nil {
		return err
	}
	a, err := unix.SchedGetAttr(id, 0)
	if err != nil || a.Policy != unix.SCHED_NORMAL {
		return err
	}
	if a.Runtime > 0 && a.Runtime <= uint64(turn) {
		return nil
	}
	a.Runtime = uint64(turn)
	return unix.SchedSetAttr(id, a, 0)
}
