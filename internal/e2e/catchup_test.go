//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/mqtt"
)

// probe publishes numbered messages to the gateway in a steady rhythm and notes how
// long each takes to a subscriber, which is connected to the gateway or upstream.
type probe struct {
	watched
	sent map[int]time.Time
	took []time.Duration // since mark was called
}

const rhythm = 10 * time.Millisecond

// newProbe subscribes to topic, with prefix, at address.
func newProbe(t testing.TB, g *gateway, topic, address, prefix string) *probe {
	t.Helper()
	p := &probe{sent: make(map[int]time.Time)}
	sub, err := client.Dial(t.Context(), address, client.Options{CleanSession: true, Handler: func(m client.Message) { p.arrived(m.Payload) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Close)
	if _, err := sub.Subscribe(t.Context(), mqtt.Subscription{Filter: prefix + topic, QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	pub, err := g.dial(t.Context(), client.Options{CleanSession: true, Window: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	background(t, func(ctx context.Context) { p.run(ctx, pub, topic) })
	return p
}

func (p *probe) run(ctx context.Context, pub *client.Conn, topic string) {
	beat := time.NewTicker(rhythm)
	defer beat.Stop()
	for n := 1; ; n++ {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
		p.update(func() { p.sent[n] = time.Now() })
		m := mqtt.Message{Topic: topic, Payload: fmt.Appendf(nil, "%d ", n), QoS: mqtt.AtLeastOnce}
		if pub.PublishAsync(ctx, m, func(error) {}) != nil {
			return
		}
	}
}

func (p *probe) arrived(payload []byte) {
	now := time.Now()
	n, _ := number(payload)
	p.update(func() {
		if at, ok := p.sent[n]; ok {
			p.took = append(p.took, now.Sub(at))
			delete(p.sent, n)
		}
	})
}

// mark begins a phase: what was published before does not count.
func mark(probes ...*probe) {
	for _, p := range probes {
		p.update(func() {
			p.took = nil
			clear(p.sent)
		})
	}
}

// latencies is what a probe has seen in one phase.
type latencies struct {
	n                int
	median, p99, max time.Duration
}

func (l latencies) String() string {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("%.2f / %.2f / %.2f ms of %d", ms(l.median), ms(l.p99), ms(l.max), l.n)
}

// phase returns what was seen since mark, of all that was published up to now.
func (p *probe) phase(t testing.TB) (l latencies) {
	t.Helper()
	var now time.Time
	p.look(func() { now = time.Now() })
	p.await(t, "the end of a phase", func() bool {
		for _, at := range p.sent {
			if at.Before(now) {
				return false
			}
		}
		return true
	})
	p.look(func() {
		s := slices.Sorted(slices.Values(p.took))
		if l.n = len(s); l.n > 0 {
			l.median, l.p99, l.max = s[l.n/2], s[l.n*99/100], s[l.n-1]
		}
	})
	return l
}

// await waits until n messages have arrived in this phase.
func (p *probe) awaitCount(t testing.TB, n int) {
	t.Helper()
	p.await(t, fmt.Sprintf("%d messages of a probe", n), func() bool { return len(p.took) >= n })
}

// catchUp is a gateway with a backlog behind a network that delays.
type catchUp struct {
	t testing.TB
	u *upstream
	g *gateway
	f *fleet
}

// newCatchUp starts all of it, with the uplink up and nothing queued. section is that
// of the bridge's catch_up.
func newCatchUp(t testing.TB, section string) *catchUp {
	t.Helper()
	u := newUpstream(t)
	g := newGateway(t, u.address(), "    catch_up: "+section)
	g.awaitUplink()
	return &catchUp{t, u, g, newFleet(t, g)}
}

// outage queues n messages.
func (c *catchUp) outage(n int) {
	c.t.Helper()
	c.u.network.SetMode(proxy.Cut)
	c.g.process.awaitLine(c.t, "bridge is down")
	c.f.allow(n)
	c.f.awaitAcked(c.t, n)
}

// drained returns how much of what the fleet has published upstream has taken. The
// caller holds the ledger's mu.
func (c *catchUp) drainedLocked() (n int) {
	for topic, e := range c.u.tap.acked.topics {
		if strings.HasPrefix(topic, prefix+"sensor/p") {
			n += len(e.seen)
		}
	}
	return n
}

// awaitDrained waits until upstream has taken n messages of the fleet.
func (c *catchUp) awaitDrained(n int) time.Time {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Hour)
	defer cancel()
	if err := c.u.tap.acked.wait(ctx, func() bool { return c.drainedLocked() >= n }); err != nil {
		c.t.Fatalf("waiting for %d messages: %v", n, err)
	}
	return time.Now()
}

// drain brings the uplink back and returns how many messages a second went upstream
// between the 2000th, up to which the window grows, and the n-th. Then, if given, is
// called for the former.
func (c *catchUp) drain(n int, then func()) (perSecond float64) {
	c.t.Helper()
	var before int
	c.u.tap.acked.look(func() { before = c.drainedLocked() })
	c.u.network.SetMode(proxy.Pass)
	began := c.awaitDrained(before + 2000)
	if then != nil {
		then()
	}
	return float64(n-2000) / c.awaitDrained(before+n).Sub(began).Seconds()
}

// reference returns how many messages a second upstream takes of a client with the
// bridge's window, over the same network.
func (c *catchUp) reference(n int) (perSecond float64) {
	c.t.Helper()
	conn, err := client.Dial(c.t.Context(), c.u.address(), client.Options{CleanSession: true, Window: maxInflight})
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	acked := make(chan error, n)
	payload := []byte(strings.Repeat(".", payloadSize))
	began := time.Now()
	for range n {
		m := mqtt.Message{Topic: prefix + "sensor/p0/n", Payload: payload, QoS: mqtt.AtLeastOnce}
		if err := conn.PublishAsync(c.t.Context(), m, func(err error) { acked <- err }); err != nil {
			c.t.Fatal(err)
		}
	}
	for range n {
		if err := <-acked; err != nil {
			c.t.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// The full run wants the rate exactly; the short one, beside other tests, only that
// there is one: without it ten times as many go.
func TestABacklogKeepsToItsRate(t *testing.T) {
	leak.Check(t)
	const rate = 500
	n, least, most := 2000+scale(2500), rate*0.95, rate*1.05
	if !isFull() {
		least, most = rate/5, rate*2
	}
	c := newCatchUp(t, fmt.Sprintf("{rate: %d/s}", rate))
	c.outage(n)
	got := c.drain(n, nil)
	t.Logf("a backlog of %d messages at %d/s: %.1f/s", n, rate, got)
	if got < least || got > most {
		t.Errorf("the backlog went upstream at %.1f messages a second, want %d", got, rate)
	}
	c.u.check()
}

// A backlog goes upstream as fast as window and round-trip time allow. With
// live_first that costs what is published meanwhile next to nothing. Each figure is
// compared with one of the same run, over the same network. The full run wants what
// is promised; the short one, beside other tests, only that nothing stands still.
func TestCatchingUp(t *testing.T) {
	leak.Check(t)
	if !isFull() {
		testCatchingUp(t, "live_first", 20*time.Millisecond, 8000)
		return
	}
	for _, order := range []string{"in_order", "live_first"} {
		for _, c := range []struct{ rtt, n int }{{0, 100_000}, {20, 300_000}, {200, 30_000}} {
			t.Run(fmt.Sprintf("%s %d ms", order, c.rtt), func(t *testing.T) {
				testCatchingUp(t, order, time.Duration(c.rtt)*time.Millisecond, c.n)
			})
		}
	}
}

func testCatchingUp(t *testing.T, order string, rtt time.Duration, n int) {
	c := newCatchUp(t, "{order: "+order+"}")
	c.u.network.SetDelay(rtt / 2)
	var server string
	c.u.tap.look(func() { server = c.u.tap.target })
	live := newProbe(t, c.g, "sensor/live/n", server, prefix)
	local := newProbe(t, c.g, "local/n", c.g.address, "")
	live.awaitCount(t, 20)
	mark(live, local)
	live.awaitCount(t, scale(200))
	quiet, quietHere := live.phase(t), local.phase(t)

	other := c.reference(min(n, 50_000, int(maxInflight/max(rtt, time.Millisecond).Seconds())*5))
	c.outage(n)
	got := c.drain(n, func() { mark(live, local) })
	busy, busyHere := live.phase(t), local.phase(t)
	all := got
	if order == "live_first" { // which the live messages have places in as well
		all += 1 / rhythm.Seconds()
	}
	t.Logf("%d messages: %.0f/s, with live ones %.0f/s; window / round-trip time is %.0f/s; %.0f %% of the %.0f/s of another client with that window", n, got, all, maxInflight/rtt.Seconds(), 100*all/other, other)
	t.Logf("median / p99 / longest, to the server: quiet %v, draining %v", quiet, busy)
	t.Logf("median / p99 / longest, here: quiet %v, draining %v", quietHere, busyHere)
	switch {
	case rtt == 0: // then it is a matter of processor time, which the test needs as well
	case !isFull():
		whole := time.Duration(float64(n) / got * float64(time.Second))
		if got < other/50 || busy.median > whole/5 { // half of it, behind the backlog
			t.Errorf("it stands still: %.0f/s, and live messages take %v of the %v that it takes", got, busy, whole)
		}
	case all < other*0.85: // what is acknowledged and not on disk has places, too (ADR 33)
		t.Errorf("the backlog went upstream at %.0f/s, with live messages at %.0f/s, another client gets %.0f/s", got, all, other)
	case order == "live_first" && busy.p99 > 2*quiet.p99:
		t.Errorf("live messages take %v, and %v without a backlog", busy, quiet)
	}
}
