//go:build linux

package e2e

import (
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/mqtt"
)

// stopLimit is how long an orderly end may take.
const stopLimit = 5 * time.Second

// SIGTERM ends the gateway in time, whatever the uplink does, and everything that
// was queued is sent after the next start.
func TestStopKeepsWhatIsQueued(t *testing.T) {
	leak.Check(t)
	const total = 5000
	for name, mode := range map[string]proxy.Mode{
		"while the uplink is up": proxy.Pass, "while it is down": proxy.Cut, "while it is silent": proxy.Silent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			g := newGateway(t, u.address(), "")
			g.awaitUplink()
			f := newFleet(t, g)
			f.allow(total / 5)
			f.awaitAcked(t, total/5)
			u.network.SetMode(mode)
			f.allow(total)
			f.awaitAcked(t, total/2) // so it is in full flow
			code, took := g.stop()
			t.Logf("SIGTERM: exit code %d after %v", code, took.Round(time.Millisecond))
			if code != 0 || took > stopLimit {
				t.Errorf("exit code %d after %v, want 0 within %v", code, took, stopLimit)
			}
			u.network.SetMode(proxy.Pass)
			g.start()
			f.awaitAcked(t, total)
			u.tap.acked.awaitCount(t, total)
			u.check()
			if lost := f.done.without(u.tap.acked, prefix); len(lost) > 0 {
				t.Errorf("%d acknowledged messages are not upstream: %s", len(lost), some(lost))
			}
			// Each publisher has lost one connection.
			if n, most := u.tap.published.duplicates(), publishers*window+u.cuts()*maxInflight; n > most {
				t.Errorf("%d duplicates upstream, at most %d are allowed", n, most)
			}
		})
	}
}

// Readings that nobody has been told to be safe are nevertheless kept when the
// gateway is ended orderly.
func TestStopKeepsReadings(t *testing.T) {
	leak.Check(t)
	const total = 500
	u := newUpstream(t)
	s := newSensor(t, lineRate, total)
	g := newGateway(t, u.address(), "adapters:"+serialAdapter("probe", s.pair.Slave))
	g.awaitUplink()
	g.awaitAdapter("probe")
	u.network.SetMode(proxy.Cut)
	g.process.awaitLine(t, "bridge is down")
	// A subscriber at QoS 0 is shown a reading at once, before it is on disk.
	live := subscribe(t, g, mqtt.Subscription{Filter: reading("probe")}, true)
	background(t, s.run)
	last := s.awaitEnd()
	live.shown.awaitNumber(t, reading("probe"), last)
	if code, took := g.stop(); code != 0 || took > stopLimit {
		t.Errorf("exit code %d after %v, want 0 within %v", code, took, stopLimit)
	}
	u.network.SetMode(proxy.Pass)
	g.start()
	u.tap.acked.awaitCount(t, total)
	u.check()
	if n, most := u.tap.published.duplicates(), u.cuts()*maxInflight; n > most {
		t.Errorf("%d readings came twice, at most %d may after the connections that were lost", n, most)
	}
}

// A second gateway on the same data says what is wrong and ends, and the first
// does not notice.
func TestDataDirectoryInUse(t *testing.T) {
	leak.Check(t)
	u := newUpstream(t)
	g := newGateway(t, u.address(), "")
	g.awaitUplink()
	second := start(t, program, "run", "--config", g.conf)
	if code := second.exit(t, patience); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if lines := second.with(""); len(lines) != 1 || len(second.with(g.data, "another")) != 1 {
		second.show(t)
		t.Errorf("it printed %d lines, want one that names %s and another process", len(lines), g.data)
	}
	f := newFleet(t, g)
	f.allow(100)
	u.tap.acked.awaitCount(t, 100)
	u.check()
}
