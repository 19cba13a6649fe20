//go:build linux

package e2e

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// processors is a set of them, as the kernel has it.
type processors [16]uint64

// quarters have processes on processors of their own: what stands in another place does not
// wait for the gateway's processor, nor the gateway for its. The zero value leaves it to
// the kernel.
type quarters struct{ here, there processors }

// newQuarters takes two processors for as long as the test runs, and has this program, where
// sensors and subscribers are, on the one that is for the gateway. That is the one which
// serves the disk: the server's has nothing to do with the gateway's disk in the field.
func newQuarters(t *testing.T) (q quarters) {
	t.Helper()
	all := allowed(t)
	q.here = all.only(diskProcessor(t))
	for n := range len(all) * 64 {
		if one := all.only(n); one != (processors{}) && one != q.here {
			q.there = one
		}
	}
	if q.here == (processors{}) || q.there == (processors{}) {
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

// only returns the processor n alone, none if it is not one of p.
func (p processors) only(n int) (one processors) {
	one[n/64] = p[n/64] & (1 << (n % 64))
	return one
}

// diskProcessor returns the one that takes the interrupts of the disk with temporary folders:
// most of what a device makes while it is synced. It is 0 if there are none.
func diskProcessor(t *testing.T) (n int) {
	t.Helper()
	before := interrupts(t)
	newDisk(t).measure(time.Second / 4)
	most := 0
	for line, counts := range interrupts(t) {
		for i, count := range counts {
			if was := before[line]; i < len(was) && count-was[i] > most {
				n, most = i, count-was[i]
			}
		}
	}
	return n
}

// interrupts returns how many each processor took of each device.
func interrupts(t *testing.T) map[string][]int {
	t.Helper()
	text, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string][]int)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if _, err := strconv.Atoi(strings.TrimSuffix(fields[0], ":")); err != nil {
			continue // the processors' names, or interrupts that they send each other
		}
		for _, field := range fields[1:] {
			count, err := strconv.Atoi(field)
			if err != nil {
				break
			}
			counts[fields[0]] = append(counts[fields[0]], count)
		}
	}
	return counts
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
