//go:build linux

package e2e

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/mqtt"
)

const (
	kills = 3 // of the gateway, per test

	// atRisk is how long ago a reading may have been sent for a kill to take it:
	// nobody waits for readings, so they may be written once a second, and the
	// machine may be slow.
	atRisk = 3 * time.Second
)

// event is something that happens once a count has been reached.
type event struct {
	at   int
	what string
	do   func()
}

// disturbances returns two cuts of the uplink, by a kill of mosquitto and a silence of the
// network, and the three kills of a run of total counts,
// at random points, in order. Each cut has its part of the run, so that neither
// hides the other; a kill may hit anywhere, an outage included.
func disturbances(r *rand.Rand, total int, u *upstream, g *gateway, restart func()) []event {
	part := func(n int) int { return total * n / 100 }
	crash := between(r, part(10), part(30))
	silence := between(r, part(45), part(65))
	var silenced *process
	fallSilent := func() {
		g.awaitUplink() // a kill may have just been
		silenced = g.process
		u.network.SetMode(proxy.Silent)
	}
	heal := func() {
		if silenced == g.process { // else it was killed meanwhile, and knows of no connection
			silenced.awaitLine(g.t, "bridge is down", "acknowledges nothing for 2s")
		}
		u.network.SetMode(proxy.Pass)
	}
	events := []event{
		{crash, "mosquitto is killed", u.kill},
		{crash + between(r, part(5), part(15)), "mosquitto is back", u.start},
		{silence, "the network is silent", fallSilent},
		{silence + part(22), "the network is back", heal},
	}
	for range kills {
		events = append(events, event{between(r, part(3), part(97)), "the gateway is killed", restart})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}

// A sensor at 115200 baud sends 20,000 readings to a gateway that is killed three
// times, behind an uplink that is lost twice. What a local subscriber at QoS 1
// was shown arrives upstream, in order, all of it.
func TestReadingsThroughOutages(t *testing.T) {
	leak.Check(t)
	for _, session := range []string{"clean", "persistent"} {
		t.Run(session+" session", func(t *testing.T) {
			t.Parallel()
			const total = 20_000
			r := random(t)
			u := newUpstream(t)
			s := newSensor(t, lineRate, total)
			g := newGateway(t, u.address(), "adapters:"+serialAdapter("probe", s.pair.Slave))
			g.awaitUplink()
			g.awaitAdapter("probe")
			wants := mqtt.Subscription{Filter: reading("+"), QoS: mqtt.AtLeastOnce}
			local := subscribe(t, g, wants, session == "clean")
			background(t, s.run)

			var gaps []gap
			restart := func() { gaps = append(gaps, killUnderSensor(g, s)) }
			for _, e := range disturbances(r, total, u, g, restart) {
				s.awaitHeard(e.at)
				t.Logf("reading %5d: %s", e.at, e.what)
				e.do()
			}
			last := s.awaitEnd()
			u.tap.acked.awaitNumber(t, prefix+reading("probe"), last)
			local.shown.awaitNumber(t, reading("probe"), last)
			checkReadings(t, u, local, s, gaps)
			if code, took := g.stop(); code != 0 || took > stopLimit {
				t.Errorf("SIGTERM ends the gateway with exit code %d after %v", code, took)
			}
		})
	}
}

// gap is the numbers that a kill may take with it.
type gap struct{ from, to int }

// killUnderSensor kills the gateway while the sensor is sending and starts it
// again. Nobody listens to the sensor meanwhile.
func killUnderSensor(g *gateway, s *sensor) gap {
	g.t.Helper()
	from := s.before(atRisk)
	g.kill()
	s.mute()
	g.start()
	g.awaitAdapter("probe")
	s.unmute()
	return gap{from, s.current() + 1} // the first line may be joined with the rest of an older one
}

func checkReadings(t *testing.T, u *upstream, local *subscriber, s *sensor, gaps []gap) {
	t.Helper()
	u.check()
	local.shown.checkOrder(t, "the local subscriber")
	lost := local.shown.without(u.tap.acked, prefix)
	if len(lost) > 0 {
		t.Errorf("%d readings that the local subscriber has confirmed are not upstream: %s", len(lost), some(lost))
	}
	missing, unexplained := missingNumbers(u.tap.acked, prefix+reading("probe"), s.current()-1, gaps)
	if len(unexplained) > 0 {
		t.Errorf("%d readings are missing upstream, and no kill explains it: %s", len(unexplained), some(unexplained))
	}
	if shown := local.shown.count(); shown < s.total/2 {
		t.Errorf("the local subscriber was shown %d readings only", shown)
	}
	cuts, duplicates := u.cuts(), u.tap.published.duplicates()
	if limit := cuts * maxInflight; duplicates > limit {
		t.Errorf("%d duplicates upstream, at most %d are allowed", duplicates, limit)
	}
	t.Logf("%d baud; sent %d (and %d while the gateway was dead), confirmed locally %d, upstream distinct %d, duplicates %d, "+
		"connections lost %d, max_inflight %d, gaps explained by kills %d with %d readings, lost by mosquitto's own kill %d",
		s.rate*10, s.heard, s.lost, local.shown.count(), u.tap.acked.count(), duplicates,
		cuts, maxInflight, countRuns(missing), len(missing)-s.lost, len(u.excused))
}

// missingNumbers returns the numbers up to last that were not seen, and those of
// them that lie in no gap.
func missingNumbers(l *ledger, topic string, last int, gaps []gap) (missing, unexplained []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := firstNumber; n <= last; n++ {
		if _, seen := l.of(topic).seen[n]; seen {
			continue
		}
		missing = append(missing, n)
		if !slices.ContainsFunc(gaps, func(g gap) bool { return g.from <= n && n <= g.to }) {
			unexplained = append(unexplained, n)
		}
	}
	return missing, unexplained
}

// countRuns returns of how many runs without a hole the ascending list consists.
func countRuns(list []int) (runs int) {
	for i, n := range list {
		if i == 0 || n != list[i-1]+1 {
			runs++
		}
	}
	return runs
}
