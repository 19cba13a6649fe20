//go:build linux

package e2e

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"
)

// processors is a set of them, as the kernel has it.
type processors [16]uint64

// quarters have processes on processors of their own: what stands in another place does not
// wait for the gateway's processor, nor the gateway for its. The zero value leaves it to
// the kernel.
type quarters struct{ here, there processors }

// newQuarters takes two processors for as long as the test runs, and has this program, where
// sensors and subscribers are, on the one that is for the gateway.
func newQuarters(t *testing.T) (q quarters) {
	t.Helper()
	all := allowed(t)
	for n := range len(all) * 64 {
		var one processors
		one[n/64] = 1 << (n % 64)
		switch {
		case all[n/64]&one[n/64] == 0:
		case q.here == processors{}:
			q.here = one
		case q.there == processors{}:
			q.there = one
		}
	}
	if q.there == (processors{}) {
		t.Skip("needs a processor for the gateway and one for the server")
	}
	most := runtime.GOMAXPROCS(1)
	restrictAll(t, q.here)
	t.Cleanup(func() {
		restrictAll(t, all)
		runtime.GOMAXPROCS(most)
	})
	return q
}

// start runs start, which starts a process on one of the two.
func (q quarters) start(t testing.TB, where processors, start func()) {
	if q == (quarters{}) {
		start()
		return
	}
	runtime.LockOSThread() // a process inherits from the thread that starts it
	defer runtime.UnlockOSThread()
	restrict(t, 0, where)
	defer restrict(t, 0, q.here)
	start()
}

func allowed(t testing.TB) (p processors) {
	t.Helper()
	if _, _, err := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(p), uintptr(unsafe.Pointer(&p))); err != 0 {
		t.Fatalf("get the processors of a thread: %v", err)
	}
	return p
}

// restrictAll restricts all threads of this process, and so those that they start.
func restrictAll(t testing.TB, p processors) {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		restrict(t, id, p)
	}
}

// restrict has a thread run on p only; 0: the one that calls.
func restrict(t testing.TB, thread int, p processors) {
	t.Helper()
	_, _, err := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(thread), unsafe.Sizeof(p), uintptr(unsafe.Pointer(&p)))
	if err != 0 && err != syscall.ESRCH { // it has ended meanwhile
		t.Fatalf("set the processors of thread %d: %v", thread, err)
	}
}
