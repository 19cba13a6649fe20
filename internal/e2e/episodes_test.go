//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
)

// episode is something that the network does for a while.
type episode struct {
	mode  proxy.Mode
	delay time.Duration // each way
	rate  int           // bytes per second, 0: no limit
	lasts time.Duration
	heals bool // and the uplink recovers before the next one
}

func (e episode) String() string {
	return fmt.Sprintf("%v, delay %v, %d B/s, for %v", e.mode, e.delay, e.rate, e.lasts)
}

// kinds are what an episode can be. Most last less than the time after which the
// bridge takes a server for stalled, some last longer.
var kinds = []func(*rand.Rand) episode{
	func(*rand.Rand) episode { return episode{mode: proxy.Cut} },
	func(*rand.Rand) episode { return episode{mode: proxy.Drop} },
	func(*rand.Rand) episode { return episode{mode: proxy.Silent} },
	func(*rand.Rand) episode { return episode{mode: proxy.HalfOpen} },
	func(*rand.Rand) episode { return episode{mode: proxy.UpOnly} },
	func(*rand.Rand) episode { return episode{mode: proxy.DownOnly} },
	func(r *rand.Rand) episode {
		return episode{delay: time.Duration(between(r, 10, 300)) * time.Millisecond}
	},
	func(r *rand.Rand) episode { return episode{rate: between(r, 2_000, 100_000)} },
	func(r *rand.Rand) episode {
		return episode{delay: time.Duration(between(r, 1, 50)) * time.Millisecond, rate: between(r, 10_000, 100_000)}
	},
}

func randomEpisode(r *rand.Rand) episode {
	e := kinds[r.IntN(len(kinds))](r)
	e.lasts = time.Duration(between(r, 20, 600)) * time.Millisecond
	if r.IntN(8) == 0 {
		e.lasts = 2500 * time.Millisecond
	}
	e.heals = r.IntN(3) > 0
	return e
}

// begin and end change the network.
func (e episode) begin(p *proxy.Proxy) {
	p.SetDelay(e.delay)
	p.SetRate(e.rate)
	p.SetMode(e.mode)
}

func (e episode) end(p *proxy.Proxy) { episode{}.begin(p) }

// A network does what it likes while messages flow through the gateway: it resets,
// ends, silences, delays and throttles, loses one way, or forgets a connection.
// All that publishers were told to be safe arrives, in order.
func TestRandomEpisodes(t *testing.T) {
	leak.Check(t)
	for _, protocol := range []int{4, 5} {
		t.Run(fmt.Sprint("protocol ", protocol), func(t *testing.T) {
			t.Parallel()
			throughEpisodes(t, protocol, scale(10))
		})
	}
}

func throughEpisodes(t *testing.T, protocol, episodes int) {
	r := random(t)
	u := newUpstream(t)
	g := newGatewayTo(t, protocol, []string{u.address()}, "")
	g.awaitUplink()
	f := newFleet(t, g)
	total := 0
	var told []string
	for i := range episodes {
		e := randomEpisode(r)
		total += between(r, 50, 500)
		f.allow(total)
		u.tap.published.awaitCount(t, total-40) // so it hits in mid-flow
		e.begin(u.network)
		total += between(r, 1, 300) // queued, or under way with the others
		f.allow(total)
		hold(t.Context(), e.lasts)
		e.end(u.network)
		told = append(told, fmt.Sprintf("%3d: %v", i+1, e))
		if e.heals || i == episodes-1 {
			u.tap.acked.awaitCount(t, total)
		}
	}
	t.Logf("%d episodes:\n%s", episodes, strings.Join(told, "\n"))
	f.awaitAcked(t, total)
	u.check()
	lost := f.done.without(u.tap.acked, prefix)
	cuts, duplicates := u.cuts(), u.tap.published.duplicates()
	t.Logf("%d messages through %d episodes, which cost %d connections: %d lost, %d duplicates upstream, max_inflight %d",
		total, episodes, cuts, len(lost), duplicates, maxInflight)
	if len(lost) > 0 || f.done.count() != total {
		t.Errorf("of %d messages that were acknowledged to publishers, these are not upstream: %s", f.done.count(), some(lost))
	}
	if duplicates > cuts*maxInflight {
		t.Errorf("%d duplicates upstream, at most %d are allowed", duplicates, cuts*maxInflight)
	}
}

// hold waits for d, or until ctx is done.
func hold(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
