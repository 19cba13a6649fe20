//go:build unix

package auth

import (
	"syscall"
	"testing"
	"time"
)

// A wrong password takes as long whether the user is unknown, has a cheap hash or a
// dear one. Without that the three differ by a factor of 100 and more. Processor time
// counts: how long it takes besides depends on what else the machine does.
func TestTimeDoesNotTellWhoExists(t *testing.T) {
	h, err := newHash([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	p := passwords(t, mosquittoFile+"dear:"+h.String()+"\n")
	least := map[string]time.Duration{"nobody": time.Hour, "carol": time.Hour, "alice": time.Hour, "dear": time.Hour}
	for range 7 {
		for user := range least {
			before := processorTime(t)
			p.Verify(user, []byte("wrong"))
			least[user] = min(least[user], processorTime(t)-before)
		}
	}
	for user, took := range least {
		if took > 3*least["nobody"] || least["nobody"] > 3*took {
			t.Errorf("%s: %s, nobody: %s", user, took, least["nobody"])
		}
	}
}

// processorTime is what this process has used.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
