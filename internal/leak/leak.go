// Package leak fails a test that leaves goroutines running.
//
// It has one verb. [Check] notes which goroutines run when it is called; when
// the test ends, every one that is new must have ended, too.
package leak

import (
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// grace is how long goroutines may take to end once the test is over, on a
	// machine that is busy with other things. Only a test that fails waits so long.
	// It is real time, except inside a testing/synctest bubble.
	grace = 20 * time.Second

	// maxPause is the longest pause between two looks at the goroutines.
	maxPause = 50 * time.Millisecond
)

// creator finds, in the stack of a goroutine, the import path of the package
// whose go statement started it. A dot behind the last slash of an import path
// stands as %2e in a stack.
var creator = regexp.MustCompile(`(?m)^created by ((?:[^/\s]+/)*[^./\s]+)\.`)

// Check makes t fail when goroutines that start after the call still run 20
// seconds after the test and its later cleanups have ended. The failure shows
// their stacks.
//
// Call it first: cleanups run last to first, so whatever the test closes in one
// of its own is closed by then. A test that uses it cannot be parallel to
// others, whose goroutines it would blame; parallel subtests are fine. Inside a
// testing/synctest bubble it is not needed: a bubble ends only when all its
// goroutines have.
func Check(t testing.TB) {
	t.Helper()
	before := running()
	t.Cleanup(func() {
		t.Helper()
		left := settle(before, grace)
		if len(left) > 0 {
			t.Errorf("the test left %d goroutine(s) running:\n\n%s", len(left), strings.Join(left, "\n\n"))
		}
	})
}

// settle waits until no goroutine runs that is not in before, but not longer
// than patience, and returns the stacks of those that still do, oldest first.
func settle(before map[int]string, patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		runtime.Gosched()
		left := started(before)
		if len(left) == 0 || !time.Now().Before(deadline) {
			return left
		}
		<-time.After(pause)
	}
}

// started returns the stacks of the goroutines that are not in before, oldest
// first, without those that serve the whole process.
func started(before map[int]string) []string {
	now := running()
	maps.DeleteFunc(now, func(id int, stack string) bool {
		_, old := before[id]
		return old || ofProcess(stack)
	})
	var stacks []string
	for _, id := range slices.Sorted(maps.Keys(now)) {
		stacks = append(stacks, now[id])
	}
	return stacks
}

// ofProcess reports whether a goroutine was started by the runtime, by package
// testing or by package os/signal. None of those is the test's to end: the
// signal loop, for one, starts with the first signal.Notify and never ends.
func ofProcess(stack string) bool {
	m := creator.FindStringSubmatch(stack)
	if m == nil {
		return false
	}
	switch m[1] {
	case "testing", "os/signal", "runtime":
		return true
	}
	return strings.HasPrefix(m[1], "runtime/")
}

// running returns the stack of every goroutine by its number, which the runtime
// never uses twice.
func running() map[int]string {
	stacks := make(map[int]string)
	for stack := range strings.SplitSeq(dump(), "\n\n") {
		var id int
		if _, err := fmt.Sscanf(stack, "goroutine %d ", &id); err == nil {
			stacks[id] = strings.TrimSpace(stack)
		}
	}
	return stacks
}

// dump returns the runtime's text about all goroutines, however long it is.
func dump() string {
	for buf := make([]byte, 64<<10); ; buf = make([]byte, 2*len(buf)) {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return string(buf[:n])
		}
	}
}
