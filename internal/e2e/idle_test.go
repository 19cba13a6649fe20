//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"tidegate/internal/leak"
)

// writing matches system calls that write to a file, or change names in a folder,
// below data. Sockets and what is printed are other descriptors.
func writing(data string) *regexp.Regexp {
	return regexp.MustCompile(`(pwrite64|write|fsync|fdatasync|ftruncate|renameat|unlinkat|mkdirat|openat)\(.*` + regexp.QuoteMeta(data))
}

// A gateway with clients, a bridge and sessions, in which nothing happens, writes
// nothing at all. TIDEGATE_E2E=full watches it for eleven minutes, in which every
// timer of the gateway has rung, once the clock has saved, within ten, that it was
// asked for the time.
func TestIdleGatewayWritesNothing(t *testing.T) {
	leak.Check(t)
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace to see what the gateway writes: apt-get install strace")
	}
	settle, watch := 5*time.Second, 20*time.Second // positions and the like may wait a second
	if scale(1) > 1 {
		settle, watch = 10*time.Minute+5*time.Second, 11*time.Minute
	}
	u := newUpstream(t)
	g := newGateway(t, u.address(), "")
	g.awaitUplink()
	f := newFleet(t, g) // and messages before, so that everything has been at work
	f.allow(200)
	f.awaitAcked(t, 200)
	u.tap.acked.awaitCount(t, 200)
	rest := time.NewTimer(settle)
	defer rest.Stop()
	<-rest.C
	before := g.written()
	calls := straceFor(t, g, watch)
	if n := g.written() - before; n != 0 {
		t.Errorf("%d bytes were written in %v", n, watch)
	}
	for _, call := range writing(g.data).FindAllString(calls, 10) {
		t.Errorf("the idle gateway calls %s", call)
	}
	t.Logf("watched for %v", watch)
}

// straceFor returns the calls on files that the gateway makes in so long.
func straceFor(t *testing.T, g *gateway, watch time.Duration) string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	p := start(t, "strace", "-f", "-y", "-o", log, "-e", "trace=file,desc", "-p", strconv.Itoa(g.process.cmd.Process.Pid))
	timer := time.NewTimer(watch)
	defer timer.Stop()
	<-timer.C
	p.end(os.Interrupt)
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatalf("strace saw nothing: %v", err)
	}
	return string(text)
}
