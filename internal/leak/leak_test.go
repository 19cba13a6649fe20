package leak

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// recorder stands in for the test that is checked: it keeps what Check tells
// it, and ends when the test says so.
type recorder struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (r *recorder) Helper()           {}
func (r *recorder) Cleanup(fn func()) { r.cleanups = append(r.cleanups, fn) }

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

// waitFor is the leak that the tests look for by name.
func waitFor(stop <-chan struct{}, ended chan<- struct{}) {
	<-stop
	close(ended)
}

func TestCheckShowsTheStackOfWhatStillRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, ended := make(chan struct{}), make(chan struct{})
		r := &recorder{TB: t}
		Check(r)
		go waitFor(stop, ended)
		begin := time.Now()
		r.end()
		waited := time.Since(begin)
		close(stop)
		<-ended
		if len(r.failures) != 1 || !strings.Contains(r.failures[0], "leak.waitFor") {
			t.Errorf("failures %q, want one that names leak.waitFor", r.failures)
		}
		if waited < grace {
			t.Errorf("gave up after %v, before %v had passed", waited, grace)
		}
	})
}

func TestCheckWaitsForWhatIsAboutToEnd(t *testing.T) {
	stop, ended := make(chan struct{}), make(chan struct{})
	r := &recorder{TB: t}
	Check(r)
	go waitFor(stop, ended)
	time.AfterFunc(100*time.Millisecond, func() { close(stop) })
	r.end()
	if len(r.failures) > 0 {
		t.Errorf("failed although the goroutine ended after 100 ms: %q", r.failures)
	}
	select {
	case <-ended:
	default:
		t.Error("Check did not wait for the goroutine")
	}
}

func TestCheckRunsAfterTheCleanupsOfTheTest(t *testing.T) {
	stop, ended := make(chan struct{}), make(chan struct{})
	r := &recorder{TB: t}
	Check(r)
	go waitFor(stop, ended)
	r.Cleanup(func() { close(stop) })
	r.end()
	if len(r.failures) > 0 {
		t.Errorf("failed although a cleanup ended the goroutine: %q", r.failures)
	}
}

func TestCheckLeavesAloneWhatRanBefore(t *testing.T) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go waitFor(stop, ended)
	r := &recorder{TB: t}
	Check(r)
	r.end()
	close(stop)
	<-ended
	if len(r.failures) > 0 {
		t.Errorf("blamed a goroutine from before: %q", r.failures)
	}
}

func TestCheckLeavesAloneTheSignalLoop(t *testing.T) {
	r := &recorder{TB: t}
	Check(r)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	signal.Stop(signals)
	r.end()
	if len(r.failures) > 0 {
		t.Errorf("blamed the process's signal loop: %q", r.failures)
	}
}

func TestCheckAllowsParallelSubtestsAndBubbles(t *testing.T) {
	Check(t)
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				stop, ended := make(chan struct{}), make(chan struct{})
				go waitFor(stop, ended)
				close(stop)
				<-ended
			})
		})
	}
}

func TestOfProcess(t *testing.T) {
	for stack, want := range map[string]bool{
		"goroutine 7 [select]:\nx.f()\ncreated by testing.(*T).Run in goroutine 1\n\t/t.go:1":              true,
		"goroutine 7 [syscall]:\nx.f()\ncreated by os/signal.Notify.func1.1 in goroutine 1\n\t/t.go:1":     true,
		"goroutine 7 [select]:\nx.f()\ncreated by runtime/pprof.StartCPUProfile in goroutine 1\n\t/t.go:1": true,
		"goroutine 7 [select]:\nx.f()\ncreated by tidegate/broker.(*Broker).Serve\n\t/t.go:1":              false,
		"goroutine 7 [select]:\nx.f()\ncreated by os/exec.(*Cmd).Start in goroutine 1\n\t/t.go:1":          false,
		"goroutine 7 [select]:\nx.f()\ncreated by example.org/testing%2ev2.Start in goroutine 1":           false,
		"goroutine 7 [select]:\nx.f()\ncreated by example.org/testing.Start in goroutine 1":                false,
		"goroutine 1 [running]:\nmain.main()":                                                              false,
	} {
		if got := ofProcess(stack); got != want {
			t.Errorf("ofProcess(%q) = %v, want %v", stack, got, want)
		}
	}
}

func TestDumpHoldsAnyNumberOfGoroutines(t *testing.T) {
	const n = 2000
	before, stop := running(), make(chan struct{})
	ended := make([]chan struct{}, n)
	for i := range ended {
		ended[i] = make(chan struct{})
		go waitFor(stop, ended[i])
	}
	got := len(started(before))
	close(stop)
	for _, e := range ended {
		<-e
	}
	if got != n {
		t.Errorf("saw %d new goroutines, want %d", got, n)
	}
}
