package store

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var faults = flag.Int("faults", 2, "how many processes are made to fail at a system call")

// A system call of a working process fails, any of those that write, sync, open,
// rename or remove, once or several times in a row. The process says why, goes
// on, and all batches are there; also if the power is cut at any moment.
func TestFailingCallsLoseNothing(t *testing.T) {
	seed := cmp.Or(*simSeed, uint64(time.Now().UnixNano()))
	t.Logf("go test -run %s -seed %d -faults %d", t.Name(), seed, *faults)
	rng := rand.New(rand.NewPCG(seed, 2))
	calls := make(map[string]int)
	for _, c := range tracePlan(t, seed).calls {
		calls[c.name]++
	}
	names := []string{"fdatasync", "pwrite64", "fsync", "ftruncate", "openat", "renameat", "unlinkat"}
	begin := rng.IntN(len(names))
	for i := range *faults {
		name := names[(begin+i)%len(names)]
		first := 1 + rng.IntN(calls[name])
		failCalls(t, seed, name, first, first+rng.IntN(3), []syscall.Errno{syscall.EIO, syscall.ENOSPC}[rng.IntN(2)])
		if t.Failed() {
			return
		}
	}
}

// failCalls lets the calls first to last of that name fail with errno.
func failCalls(t *testing.T, seed uint64, name string, first, last int, errno syscall.Errno) {
	t.Helper()
	what := fmt.Sprintf("inject=%s:error=%s:when=%d..%d", name, map[bool]string{true: "EIO", false: "ENOSPC"}[errno == syscall.EIO], first, last)
	t.Log(what)
	p := tracePlan(t, seed, "-e", what)
	dir := filepath.Join(p.root, "data", "store")
	if err := p.check(t, dir, tracedBatches); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if p.failed(name) && !bytes.Contains(p.out, []byte(errno.Error())) {
		t.Errorf("%s: the process does not say %q:\n%s", what, errno, p.out)
	}
	p.cutPower(t, cutsPerFault)
}

// cutsPerFault is how many times the power is cut beside one fault.
const cutsPerFault = 50

// failed reports whether a call of that name failed on a file of the store. Go
// opens some of its own, and that a file is not there is what removing it wants.
func (p *plan) failed(name string) bool {
	d := newDisk(p.root, p.rng)
	for _, c := range p.calls {
		if c.name == name && c.injected {
			switch name {
			case "openat":
				if _, below := d.below(c.text(1)); below {
					return true
				}
			case "unlinkat":
				if d.names[c.text(1)] != nil {
					return true
				}
			default:
				return true
			}
		}
		d.play(c)
	}
	return false
}
