package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A fleet that lost one server at one moment does not come back in step: in no
// second do many more bridges connect than would if they were spread evenly.
func TestAFleetComesBackSpreadOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fleet, outage = 1000, 10 * time.Minute // long enough for the longest back-off
		back := time.Now().Add(outage)
		var mu sync.Mutex
		var came []time.Duration
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for n := range fleet {
			b, err := New(testConfig(), fmt.Sprint("gateway-", n), newLocal(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			b.open = func(context.Context, string) (link, error) {
				if time.Now().Before(back) {
					return nil, syscall.ECONNREFUSED
				}
				mu.Lock()
				defer mu.Unlock()
				came = append(came, time.Since(back))
				return newFakeLink(nil), nil
			}
			running.Go(func() { _ = b.Run(ctx) })
		}
		time.Sleep(outage + 3*time.Minute) // virtual
		stop()
		running.Wait()
		slices.Sort(came)
		most := 0
		for i := range came {
			in := 0
			for _, at := range came[i:] {
				if at-came[i] < time.Second {
					in++
				}
			}
			most = max(most, in)
		}
		t.Logf("%d bridges, half of them within %v, all within %v, %d in the busiest second", len(came), came[len(came)/2], came[len(came)-1], most)
		if len(came) != fleet || came[fleet-1] > 2*time.Minute || most > 50 { // full jitter over 2m: 17 a second to begin with
			t.Errorf("the fleet came back at %v", came)
		}
	})
}
