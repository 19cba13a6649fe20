//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/internal/testbed"
)

// contender is an edge whose bridge is compared: tidegate, or mosquitto.
type contender struct {
	*edge
	name    string
	process func() *process
	kill    func()
	start   func()
}

// What the same outage costs with tidegate and with mosquitto as the edge: the
// uplink is lost, messages are published, the edge is killed and started again,
// messages are published, and the uplink comes back. The publishers, the network,
// the tap and the server upstream are the same.
func TestBesideMosquittosBridge(t *testing.T) {
	if !isFull() {
		t.Skip("only with TIDEGATE_E2E=full: it takes minutes, and its figures need a quiet machine")
	}
	leak.Check(t)
	t.Log("| edge | messages | not upstream | twice upstream | msg/s offline | back after | msg/s draining | RSS | RssAnon |")
	for _, c := range []struct {
		name   string
		queued int
		make   func(testing.TB, *upstream) contender
	}{
		{"tidegate", scale(5000), tidegateEdge},
		{"mosquitto, saved every second", scale(5000), func(t testing.TB, u *upstream) contender { return mosquittoEdge(t, u, "autosave_interval 1") }},
		{"tidegate", scale(300), tidegateEdge}, // beside what follows
		{"mosquitto, saved with every change", scale(300), func(t testing.TB, u *upstream) contender {
			return mosquittoEdge(t, u, "autosave_on_changes true\nautosave_interval 1")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUpstream(t)
			e := c.make(t, u)
			e.name = c.name
			outageOf(t, u, e, c.queued)
		})
	}
}

func outageOf(t *testing.T, u *upstream, e contender, queued int) {
	f := newFleetTo(t, e.edge)
	total := queued / 10
	f.allow(total)
	u.tap.acked.awaitCount(t, total)

	u.network.SetMode(proxy.Cut)
	before := e.process().measure(10 * time.Millisecond)
	began := time.Now()
	f.allow(total + queued)
	total += queued
	f.awaitAcked(t, total)
	rate := perSecond(queued, began)
	hold(t.Context(), 3*time.Second) // so that who saves every second can
	f.allow(total + queued/10)
	f.awaitAcked(t, total+queued/20)
	peak := before()
	e.kill()
	e.start()
	total += queued / 10
	f.awaitAcked(t, total)

	after := e.process().measure(10 * time.Millisecond)
	already := u.tap.acked.count()
	returned := time.Now()
	u.network.SetMode(proxy.Pass)
	first, last := drain(t, u.tap.acked, already, len(f.done.all()))
	peak = most(peak, after())
	lost := f.done.without(u.tap.acked, prefix)
	arrived := u.tap.acked.count() - already
	t.Logf("| %s | %d | %d | %d | %.0f | %.1f s | %.0f | %.1f MiB | %.1f MiB |", e.name, f.done.count(), len(lost),
		u.tap.published.duplicates(), rate, first.Sub(returned).Seconds(), float64(arrived)/last.Sub(first).Seconds(),
		float64(peak.rss)/(1<<20), float64(peak.anon)/(1<<20))
	if e.name == "tidegate" && len(lost) > 0 {
		t.Errorf("tidegate has lost %d messages: %s", len(lost), some(lost))
	}
}

// drain waits until total messages are upstream, or none has come for a while, and
// returns when the first and the last came.
func drain(t *testing.T, l *ledger, already, total int) (first, last time.Time) {
	t.Helper()
	for have := already; have < total; have = l.count() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := l.wait(ctx, func() bool { return l.countLocked() > have })
		cancel()
		if err != nil {
			break
		}
		last = time.Now()
		if first.IsZero() {
			first = last
		}
	}
	return first, last
}

func most(a, b usage) usage { return usage{max(a.rss, b.rss), max(a.anon, b.anon)} }

func tidegateEdge(t testing.TB, u *upstream) contender {
	g := newGateway(t, u.address(), "")
	return contender{edge: &g.edge, process: func() *process { return g.process }, kill: g.kill, start: g.start}
}

// mosquittoEdge is mosquitto with its bridge, which keeps as much as it can be
// told to. How often it saves is what can be chosen.
func mosquittoEdge(t testing.TB, u *upstream, saving string) contender {
	t.Helper()
	dir, address := t.TempDir(), testbed.ReserveAddr(t)
	conf := filepath.Join(dir, "mosquitto.conf")
	write(t, conf, fmt.Sprintf(`
listener %s 127.0.0.1
allow_anonymous true
user %s
persistence true
persistence_location %s/
%s
max_queued_messages 0
max_inflight_messages %d
connection cloud
address %s
clientid edge
cleansession false
try_private false
notifications false
restart_timeout 1
keepalive_interval 5
topic sensor/# out 1 "" %s
`, port(address), user(), dir, saving, maxInflight, u.address(), prefix))
	e, p := &edge{}, (*process)(nil)
	c := contender{edge: e, process: func() *process { return p }}
	c.start = func() {
		p = start(t, testbed.Find(t, "mosquitto"), "-c", conf)
		p.awaitLine(t, "running")
		e.update(func() { e.address = address })
	}
	c.kill = func() {
		e.update(func() { e.address = "" })
		p.end(syscall.SIGKILL)
	}
	c.start()
	return c
}

// user is who mosquitto is to run as, so that it can read what the test wrote.
func user() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}
