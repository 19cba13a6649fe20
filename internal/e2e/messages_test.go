//go:build linux

package e2e

import (
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
)

// startLimit is how long a start may take, whatever is queued. It takes some ten
// milliseconds; the rest is for machines that are busy.
const startLimit = 3 * time.Second

// Publishers send messages at QoS 1, as fast as they can, to a gateway that is
// killed three times, behind an uplink that is lost twice. Every message that was
// acknowledged to its publisher arrives upstream, in the order of its topic.
func TestMessagesThroughOutages(t *testing.T) {
	leak.Check(t)
	total := scale(20_000)
	r := random(t)
	u := newUpstream(t)
	g := newGateway(t, u.address(), "")
	g.awaitUplink()
	f := newFleet(t, g)
	restart := func() {
		g.kill()
		g.start()
	}
	for _, e := range disturbances(r, total, u, g, restart) {
		f.allow(min(total, e.at+total/20)) // enough to be in full flow at e.at, and to be so afterwards
		f.awaitAcked(t, e.at)
		t.Logf("message %6d: %s", e.at, e.what)
		e.do()
	}
	f.allow(total)
	f.awaitAcked(t, total)
	u.tap.acked.awaitCount(t, total)
	checkMessages(t, u, f, total)
	t.Logf("slowest of %d starts %v", kills+1, g.slowest.Round(time.Millisecond))
	if g.slowest > startLimit {
		t.Errorf("a start took %v, with whatever was queued", g.slowest)
	}
}

func checkMessages(t *testing.T, u *upstream, f *fleet, total int) {
	t.Helper()
	u.check()
	if lost := f.done.without(u.tap.acked, prefix); len(lost) > 0 {
		t.Errorf("%d messages that the gateway has acknowledged are not upstream: %s", len(lost), some(lost))
	}
	if n := f.done.count(); n != total {
		t.Errorf("%d messages were acknowledged to the publishers, want %d", n, total)
	}
	var publishersLost int
	f.look(func() { publishersLost = f.lost })
	cuts, duplicates := u.cuts(), u.tap.published.duplicates()
	if limit := publishersLost*window + cuts*maxInflight; duplicates > limit {
		t.Errorf("%d duplicates upstream, at most %d are allowed", duplicates, limit)
	}
	t.Logf("acknowledged to publishers %d, upstream distinct %d, duplicates %d, connections lost %d of publishers and %d of the uplink, "+
		"window %d, max_inflight %d, lost by mosquitto's own kill %d",
		f.done.count(), u.tap.acked.count(), duplicates, publishersLost, cuts, window, maxInflight, len(u.excused))
}

// What an outage costs: the gateway takes messages in while the uplink is up,
// while it is down, and sends them when it is back. Its memory does not follow
// what is queued.
func TestWhatAnOutageCosts(t *testing.T) {
	leak.Check(t)
	total := scale(20_000)
	online := total / 4
	u := newUpstream(t)
	g := newGateway(t, u.address(), "")
	g.awaitUplink()
	f := newFleet(t, g)

	peak, began := g.measure(), time.Now()
	f.allow(online)
	f.awaitAcked(t, online)
	u.tap.acked.awaitCount(t, online)
	rate, used := perSecond(online, began), peak()
	t.Logf("uplink up: %d messages of %d bytes, %.0f msg/s through to upstream; peak %v", online, payloadSize, rate, used)
	checkMemory(t, used)

	u.network.SetMode(proxy.Cut)
	g.process.awaitLine(t, "bridge is down")
	peak, began = g.measure(), time.Now()
	before := g.written()
	f.allow(online + total)
	f.awaitAcked(t, online+total)
	rate, used = perSecond(total, began), peak()
	t.Logf("uplink down: %d messages acknowledged, %.0f msg/s, %.0f bytes written per message; peak %v",
		total, rate, float64(g.written()-before)/float64(total), used)
	checkMemory(t, used)

	peak = g.measure()
	u.network.SetMode(proxy.Pass)
	g.awaitUplink()
	began = time.Now()
	u.tap.acked.awaitCount(t, online+total)
	rate, used = perSecond(total, began), peak()
	t.Logf("draining: %d messages, %.0f msg/s from reconnect to empty; peak %v", total, rate, used)
	checkMemory(t, used)

	u.check()
	if lost := f.done.without(u.tap.acked, prefix); len(lost) > 0 {
		t.Errorf("%d messages are missing upstream: %s", len(lost), some(lost))
	}
	if n, most := u.tap.published.duplicates(), u.cuts()*maxInflight; n > most {
		t.Errorf("%d duplicates upstream, at most %d are allowed", n, most)
	}
}

func perSecond(n int, since time.Time) float64 { return float64(n) / time.Since(since).Seconds() }

// memoryCeiling is what the gateway may use of its own, whatever it is sent and
// whatever is queued: far below its memory_limit, and a small part of what
// 200,000 messages, or a line of 4 MB that is kept, would take.
const memoryCeiling = 24 << 20

func checkMemory(t *testing.T, u usage) {
	t.Helper()
	if u.anon == 0 || u.anon > memoryCeiling {
		t.Errorf("the gateway uses %d bytes of memory of its own, more than %d, or none", u.anon, memoryCeiling)
	}
}
