//go:build linux

package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/mqtt"
	"tidegate/store"
)

var rounds = flag.Int("rounds", 30, "how often the kill sweep kills the gateway")

// sweepInflight is the window of the gateways in the sweep, and of the bridge.
const sweepInflight = 10

// sweep is the kill sweep: a gateway that is killed again and again, publishers
// and consumers that keep their sessions, and a second gateway upstream.
type sweep struct {
	t       *testing.T
	rng     *rand.Rand
	g, up   *gateway
	network *proxy.Proxy
	senders *senders
	keepers []*keeper
	away    []*keeper // those of keepers that are often absent
	counts  []*account
	uplinks int            // connections of the bridge that were lost, at most
	kills   map[string]int // by what the gateway did
}

// TestKillSweep kills the gateway in the middle of whatever it does. Nothing that
// it has acknowledged is lost, nothing at QoS 2 comes twice, each topic keeps its
// order, and duplicates at QoS 1 come from lost connections only.
func TestKillSweep(t *testing.T) {
	leak.Check(t)
	s := newSweep(t)
	for round := range *rounds {
		if !t.Run(fmt.Sprint("round ", round), s.round) {
			t.Fatalf("round %d failed; kills so far: %v", round, s.kills)
		}
	}
	s.settle()
	s.verdict()
}

func newSweep(t *testing.T) *sweep {
	s := &sweep{t: t, rng: random(t), kills: make(map[string]int)}
	s.up = s.gateway("upstream", "")
	s.up.start()
	network, err := proxy.Listen(s.up.address)
	if err != nil {
		t.Fatal(err)
	}
	s.network = network
	background(t, func(ctx context.Context) {
		if err := network.Run(ctx); err != nil {
			t.Errorf("the proxy ends: %v", err)
		}
	})
	s.g = s.gateway("edge", fmt.Sprintf(`
bridges:
  - name: cloud
    servers: ["tcp://%s"]
    max_inflight: %d
    will: false
    stall_timeout: 1s
    backoff: {min: 5ms, max: 50ms}
    out: [{topics: ["s/#"], prefix: up/}]
`, network.Addr(), sweepInflight))
	s.g.start()
	s.keep(s.up, "collector", "up/#", 1, "up/")
	s.keep(s.g, "online1", "s/#", 1, "")
	s.keep(s.g, "online2", "s/#", 2, "")
	s.away = append(s.away, s.keep(s.g, "away1", "s/#", 1, ""), s.keep(s.g, "away2", "s/#", 2, ""), s.keep(s.g, "rare", "s/+/rare", 2, ""))
	s.share("$share/g/s/#", 1, 2, 2)
	s.senders = newSenders(t, s.g, s.rng)
	s.g.kill()
	return s
}

// gateway prepares a gateway whose journal rolls often and is written anew often.
func (s *sweep) gateway(name, bridges string) *gateway {
	dir := s.t.TempDir()
	g := &gateway{t: s.t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	write(s.t, g.conf, fmt.Sprintf(`
gateway: {name: %s, data_dir: %q, log: {level: warn}}
store: {segment_size: 64KiB, compact_interval: 100ms, online_delay: 50ms}
admin: {listen: "127.0.0.1:0"}
broker:
  listeners: [{address: "tcp://127.0.0.1:0"}]
  limits: {max_inflight: %d}
  queue: {max_memory: 16KiB}
%s`, name, g.data, sweepInflight, bridges))
	return g
}

func (s *sweep) keep(g *gateway, id, filter string, q mqtt.QoS, prefix string) *keeper {
	a := newAccount(id, prefix, false)
	k := newKeeper(s.t, g, id, filter, q, a, s.rng)
	s.keepers, s.counts = append(s.keepers, k), append(s.counts, a)
	return k
}

// share starts the members of a shared subscription.
func (s *sweep) share(filter string, qos ...mqtt.QoS) {
	a := newAccount(filter, "", true)
	s.counts = append(s.counts, a)
	for i, q := range qos {
		k := newKeeper(s.t, s.g, fmt.Sprint("member", i), filter, q, a, s.rng)
		s.keepers, s.away = append(s.keepers, k), append(s.away, k)
	}
}

// phases are what the gateway does when it is killed, and how often of a hundred.
var phases = []struct {
	name  string
	share int
	play  func(s *sweep, t *testing.T)
}{
	{"flow", 25, (*sweep).killInFlow},
	{"start", 20, (*sweep).killAtStart},
	{"drain", 17, (*sweep).killInDrain},
	{"freeze", 3, (*sweep).killAfterFreeze},
	{"roll", 10, func(s *sweep, t *testing.T) { s.killWhile(t, "roll", isNewSegment) }},
	{"rewrite", 15, func(s *sweep, t *testing.T) { s.killWhile(t, "rewrite", isRewrite) }},
	{"stop", 7, (*sweep).killInStop},
	{"rest", 3, (*sweep).killAtRest},
}

// phase draws one of them.
func (s *sweep) phase() func(*sweep, *testing.T) {
	n, i := s.rng.IntN(100), 0
	for n -= phases[0].share; n >= 0; n -= phases[i].share {
		i++
	}
	return phases[i].play
}

// round lets the gateway run and kills it.
func (s *sweep) round(t *testing.T) {
	s.g.t = t
	defer func() { s.g.t = s.t }()
	for _, k := range s.away {
		k.want(s.rng.IntN(3) == 0)
	}
	s.flap()
	s.phase()(s, t)
	s.uplinks++
	if err := store.Verify(s.g.data); err != nil {
		t.Errorf("the store is damaged: %v", err)
	}
	for _, a := range s.counts {
		a.report(t)
	}
}

// flap changes the network behind the gateway, and sometimes kills what is there.
func (s *sweep) flap() {
	mode := [...]proxy.Mode{proxy.Pass, proxy.Pass, proxy.Pass, proxy.Cut, proxy.Silent}[s.rng.IntN(5)]
	if s.rng.IntN(20) == 0 {
		s.network.SetMode(proxy.Cut)
		s.up.kill()
		s.up.start()
		s.network.SetTarget(s.up.address)
		s.kills["upstream"]++
	}
	s.network.SetMode(mode)
}

// start starts the gateway and lets the publishers send messages, in all so many
// more, or few if somebody is far behind, because each round reads all that is stored.
func (s *sweep) start(t *testing.T, more int) {
	t.Helper()
	for _, a := range s.counts {
		have := 0
		a.look(func() { have = a.count })
		if s.owed(a) > have+maxBehind {
			more = min(more, 20)
		}
	}
	s.g.start()
	if losses := s.g.status(t).Losses; len(losses) > 0 {
		t.Errorf("the loss ledger has %+v", losses)
	}
	s.senders.allow(more)
}

// maxBehind is from how many messages on somebody is far behind.
const maxBehind = 2000

func (s *sweep) kill(phase string) {
	s.g.kill()
	s.kills[phase]++
}

// killInFlow kills while publishers and consumers are at work.
func (s *sweep) killInFlow(t *testing.T) {
	s.start(t, 600)
	at, chance := 0, s.rng.Float64()
	s.senders.look(func() { at = s.senders.acked + 1 + int(chance*float64(s.senders.allowed-s.senders.acked)/2) })
	s.senders.awaitAcked(t, at)
	s.flap()
	s.uplinks++
	s.after(s.rng.IntN(3000))
	s.kill("flow")
}

// killAtStart kills a moment after the process was started.
func (s *sweep) killAtStart(t *testing.T) {
	s.senders.allow(50)
	s.g.launch()
	s.after(s.rng.IntN(60_000))
	phase := "start"
	if p := s.g.process; len(p.with("ready")) > 0 {
		phase = "first clients"
		s.g.welcome()
		s.after(s.rng.IntN(10_000))
	}
	s.kill(phase)
}

// killInDrain kills while somebody who was absent is sent what has queued up.
func (s *sweep) killInDrain(t *testing.T) {
	k := s.away[s.rng.IntN(len(s.away))]
	k.want(false)
	s.start(t, 200)
	got := 0
	k.update(func() { k.present, got = true, k.got+1+s.rng.IntN(60) })
	late := time.Now().Add(time.Second) // it may not be owed so many
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	drained := func() (done bool) {
		k.look(func() { done = k.got >= got })
		return done
	}
	for !drained() && time.Now().Before(late) {
		<-tick.C
	}
	s.kill("drain")
}

// killWhile kills the moment that a new file of the journal is found for which
// sought holds.
func (s *sweep) killWhile(t *testing.T, phase string, sought func(tmp string) bool) {
	s.start(t, 600)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for late := time.Now().Add(700 * time.Millisecond); time.Now().Before(late); <-tick.C {
		files, _ := filepath.Glob(filepath.Join(s.g.data, "journal", "*.tmp"))
		if slices.ContainsFunc(files, sought) {
			s.kill(phase)
			return
		}
	}
	s.kill("flow")
}

func isNewSegment(tmp string) bool { return !isRewrite(tmp) }

// isRewrite reports whether there is a segment that the file will replace.
func isRewrite(tmp string) bool {
	_, err := os.Stat(strings.TrimSuffix(tmp, ".tmp"))
	return err == nil
}

// killAfterFreeze stops the gateway in flow for longer than stall_timeout, as a busy
// or suspended board does, lets it go on, and then kills it.
func (s *sweep) killAfterFreeze(t *testing.T) {
	s.network.SetMode(proxy.Pass)
	s.start(t, 300)
	s.uplinks++
	s.after(s.rng.IntN(100_000))
	_ = s.g.process.cmd.Process.Signal(syscall.SIGSTOP)
	s.after(1_050_000 + s.rng.IntN(100_000))
	_ = s.g.process.cmd.Process.Signal(syscall.SIGCONT)
	s.after(200_000)
	s.kill("freeze")
}

// killInStop kills a gateway that was told to end.
func (s *sweep) killInStop(t *testing.T) {
	s.start(t, 200)
	s.after(s.rng.IntN(40_000))
	s.g.update(func() { s.g.address = "" })
	if err := s.g.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.after(s.rng.IntN(20_000))
	s.kill("stop")
}

// killAtRest kills when nothing is under way, and what may be late is written.
func (s *sweep) killAtRest(t *testing.T) {
	s.start(t, 300)
	s.senders.await(t, "the last acknowledgement", func() bool { return s.senders.acked == s.senders.allowed })
	s.after(1_500_000)
	s.kill("rest")
}

// after waits so many microseconds, which no event stands for.
func (s *sweep) after(microseconds int) {
	<-time.After(time.Duration(microseconds) * time.Microsecond)
}

// settle lets everybody come, and waits until nothing is owed any more.
func (s *sweep) settle() {
	s.network.SetMode(proxy.Pass)
	for _, k := range s.keepers {
		k.want(true)
	}
	s.g.start()
	s.senders.await(s.t, "the last acknowledgement", func() bool { return s.senders.acked == s.senders.allowed })
	for _, a := range s.counts {
		s.drain(a)
	}
	for _, g := range []*gateway{s.g, s.up} {
		s.rest(g)
	}
}

// drain waits until a has all that it is owed. As long as something comes, it may
// take its time: a backlog of many rounds is behind a window of ten messages.
func (s *sweep) drain(a *account) {
	s.t.Helper()
	want, have := s.owed(a), -1
	for done := false; !done; {
		before := have
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		err := a.wait(ctx, func() bool {
			have, done = a.count, a.count >= want || len(a.faults) > 0
			return done || have >= before+500
		})
		cancel()
		if err != nil && have == before {
			s.t.Fatalf("%s has %d messages of %d, and no more come: %+v", a.name, have, want, s.g.status(s.t))
		}
	}
}

// owed is how many messages a should have.
func (s *sweep) owed(a *account) (n int) {
	s.senders.look(func() {
		for topic, last := range s.senders.last {
			if a.name != "rare" || strings.HasSuffix(topic, "/rare") {
				n += last
			}
		}
	})
	return n
}

// rest waits until a gateway owes nothing, ends it in an orderly way, and looks at
// what is left.
func (s *sweep) rest(g *gateway) {
	queued := func() (n int64) {
		for _, one := range g.status(s.t).Sessions {
			n += one.Queued
		}
		return n
	}
	for late := time.Now().Add(patience); queued() > 0; s.after(10_000) {
		if time.Now().After(late) {
			s.t.Fatalf("%s: still owed: %+v", g.conf, g.status(s.t).Sessions)
		}
	}
	g.balance()
	if losses := g.status(s.t).Losses; len(losses) > 0 {
		s.t.Errorf("the loss ledger has %+v", losses)
	}
	if code, _ := g.stop(); code != 0 {
		s.t.Errorf("exit code %d", code)
	}
	if err := store.Verify(g.data); err != nil {
		s.t.Errorf("the store is damaged: %v", err)
	}
}

// verdict counts.
func (s *sweep) verdict() {
	var acked, again int
	s.senders.look(func() { acked, again = s.senders.acked, s.senders.again })
	for _, a := range s.counts {
		a.report(s.t)
		limit := again + a.lost*sweepInflight
		if a.prefix != "" {
			limit += s.uplinks * sweepInflight
		}
		if a.count != s.owed(a) || a.again > limit {
			s.t.Errorf("%s got %d messages and %d again, want %d and at most %d", a.name, a.count, a.again, s.owed(a), limit)
		}
		s.t.Logf("%s: %d messages, %d came again at QoS 1, at most %d may; %d connections lost", a.name, a.count, a.again, limit, a.lost)
	}
	var kills []string
	for _, phase := range slices.Sorted(maps.Keys(s.kills)) {
		kills = append(kills, fmt.Sprintf("%s %d", phase, s.kills[phase]))
	}
	s.t.Logf("%d messages acknowledged, %d sent again at QoS 1; killed: %s; slowest start %v",
		acked, again, strings.Join(kills, ", "), s.g.slowest.Round(time.Millisecond))
}
