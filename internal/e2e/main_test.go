//go:build linux

package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"tidegate/internal/testbed"
)

// program is the path of the gateway's binary, which TestMain builds.
var program string

func TestMain(m *testing.M) {
	os.Exit(testbed.RunWithProgram(m, &program))
}

// scale is how many messages a test sends that takes n in a normal run.
func scale(n int) int {
	if isFull() {
		return 10 * n
	}
	return n
}

func isFull() bool { return os.Getenv("TIDEGATE_E2E") == "full" }

// random returns the source of a test's random points and logs how to repeat it.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if given := os.Getenv("TIDEGATE_SEED"); given != "" {
		n, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatalf("TIDEGATE_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("repeat with TIDEGATE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// between returns a number from low up to, but without, high.
func between(r *rand.Rand, low, high int) int { return low + r.IntN(high-low) }
