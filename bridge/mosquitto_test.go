//go:build unix

package bridge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/internal/testbed"
	"tidegate/internal/units"
)

// mosquitto is the real server, as the distribution packages it.
type mosquitto struct {
	*testbed.Mosquitto
	t testing.TB
}

// newMosquitto starts a server, or skips the test if there is none.
func newMosquitto(t testing.TB) *mosquitto {
	t.Helper()
	return &mosquitto{testbed.StartMosquitto(t, "allow_anonymous true", "max_queued_messages 0", "persistence true"), t}
}

// save makes mosquitto write its state to disk, which it else does when it ends.
func (m *mosquitto) save() {
	m.t.Helper()
	state := filepath.Join(m.Dir, "mosquitto.db")
	before, err := os.Stat(state)
	if err != nil {
		m.t.Fatal(err)
	}
	_ = m.Process.Signal(syscall.SIGUSR1)
	for after := before; os.SameFile(before, after); { // it writes a new file aside and renames it
		<-time.After(time.Millisecond)
		if after, err = os.Stat(state); err != nil {
			m.t.Fatal(err)
		}
	}
}

// subscriber is a mosquitto_sub with a session that outlives its connections.
type subscriber struct {
	process *exec.Cmd
	lines   *bufio.Scanner
}

// subscribe returns when the subscription stands.
func (m *mosquitto) subscribe(topic string) *subscriber {
	m.t.Helper()
	program := testbed.Find(m.t, "mosquitto_sub")
	args := []string{"-h", "127.0.0.1", "-p", m.Port(), "-i", "watcher", "-c", "-q", "1", "-t", topic}
	if out, err := exec.Command(program, append(args, "-E")...).CombinedOutput(); err != nil {
		m.t.Fatalf("mosquitto_sub: %v: %s", err, out)
	}
	s := &subscriber{process: exec.Command(program, append(args, "-F", "%t %p")...)}
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		m.t.Fatal(err)
	}
	s.lines = bufio.NewScanner(stdout)
	m.t.Cleanup(func() {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
	})
	return s
}

// arrivals is what a subscriber gets of numbered messages.
type arrivals struct {
	t    *testing.T
	next int // the first number that has not come
}

// until reads until the message n has come. Each message that comes for the
// first time must be the next. How many come again does not tell of the bridge:
// mosquitto, too, sends again what it had under way to the subscriber, and after
// a restart sometimes hundreds that the subscriber had acknowledged.
func (a *arrivals) until(s *subscriber, n int) {
	a.t.Helper()
	for a.next <= n {
		if !s.lines.Scan() {
			a.t.Fatalf("the subscriber ended before message %d: %v", a.next, s.lines.Err())
		}
		number, err := strconv.Atoi(strings.TrimPrefix(s.lines.Text(), "site/sensor/n "))
		switch {
		case err != nil || number > a.next:
			a.t.Fatalf("got %q, want message %d", s.lines.Text(), a.next)
		case number == a.next:
			a.next++
		}
	}
}

// sendings counts how often the bridge sends each payload, on the way out of its
// connections, before any network or server can do anything to it.
type sendings struct {
	protocol int
	mu       sync.Mutex
	times    map[string]int
}

// payload reads a packet and returns its payload, or nil if it has none.
func (s *sendings) payload(r io.Reader) ([]byte, error) {
	if s.protocol == 5 {
		p, err := packets5.ReadPacket(r)
		if err == nil && p.Type == packets5.PUBLISH {
			return p.Content.(*packets5.Publish).Payload, nil
		}
		return nil, err
	}
	p, err := packets.ReadPacket(r)
	if p, ok := p.(*packets.PublishPacket); ok && err == nil {
		return p.Payload, nil
	}
	return nil, err
}

func (s *sendings) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	return &tappedConn{conn, s}, err
}

// again returns how many messages were sent that had been sent before.
func (s *sendings) again() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.times {
		n += times - 1
	}
	return n
}

// tappedConn shows what is written, whole packets at a time, to sendings.
type tappedConn struct {
	net.Conn
	to *sendings
}

func (c *tappedConn) Write(b []byte) (int, error) {
	for r := bytes.NewReader(b); r.Len() > 0; {
		payload, err := c.to.payload(r)
		if err != nil {
			return 0, fmt.Errorf("a write is no whole packet: %w", err)
		}
		if payload != nil {
			c.to.mu.Lock()
			c.to.times[string(payload)]++
			c.to.mu.Unlock()
		}
	}
	return c.Conn.Write(b)
}

// 5,000 messages go through a network that is cut and falls silent, to a server
// that is restarted and killed. All arrive, in the order of their first arrival,
// and no more are sent twice than were under way when a connection was lost.
func TestNothingIsLostThroughABadNetwork(t *testing.T) {
	for _, protocol := range []int{4, 5} {
		t.Run(fmt.Sprint("protocol ", protocol), func(t *testing.T) { throughABadNetwork(t, protocol) })
	}
}

func throughABadNetwork(t *testing.T, protocol int) {
	leak.Check(t)
	const total, inflight = 5000, 25
	server := newMosquitto(t)
	network := newNetwork(t, server.Addr)
	cfg := testConfig()
	cfg.Servers = []string{"tcp://" + network.Addr()}
	cfg.MaxInflight, cfg.Protocol = inflight, protocol
	cfg.StallTimeout = seconds(1)
	cfg.Backoff = Backoff{units.Duration(time.Millisecond), units.Duration(20 * time.Millisecond)}
	messages := numbered(total)
	local := newLocal(messages[:1000]...)
	upstream, got := server.subscribe("site/#"), arrivals{t: t}
	sent := &sendings{protocol: protocol, times: make(map[string]int)}
	r := newRig(t, cfg, local, sent.dial).start()

	restart := func(sig syscall.Signal) {
		server.End(sig)
		awaitDown(r)
		server.Start()
	}
	more := func() {
		n := len(local.queue)
		local.add(messages[n : n+500]...)
	}
	for _, fail := range []func(){
		func() { network.SetMode(proxy.Cut); more(); awaitDown(r) },
		func() { network.SetMode(proxy.Silent); more(); awaitDown(r) },
		func() { restart(syscall.SIGTERM); more() },
		func() { // what mosquitto acknowledged and did not save is lost by the kill, so it may owe nothing
			network.SetMode(proxy.Silent)
			more()
			awaitDown(r)
			got.until(upstream, int(r.Status().Acknowledged)-1)
			server.save()
			restart(syscall.SIGKILL)
		},
	} {
		first := len(local.queue)
		more()
		got.until(upstream, first+10)
		fail() // while the rest is under way
		network.SetMode(proxy.Pass)
	}
	got.until(upstream, total-1)
	<-local.empty()
	s := r.Status()
	r.end()
	t.Logf("%d connections, %d messages sent again", s.Connects, sent.again())
	if n, limit := sent.again(), inflight*int(s.Connects-1); n > limit {
		t.Errorf("%d messages were sent again, want %d at most", n, limit)
	}
	if s.Acknowledged != total || s.Connects < 5 {
		t.Errorf("the status is %+v", s)
	}
}

// newNetwork runs a proxy to target until the test has ended.
func newNetwork(t *testing.T, target string) *proxy.Proxy {
	t.Helper()
	p, err := proxy.Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the proxy: %v", err)
		}
	})
	return p
}

// awaitDown waits until the bridge has closed its inbox.
func awaitDown(r *rig) {
	for r.local.isOpen() {
		<-time.After(time.Millisecond)
	}
}

func TestMosquittoForgetsWhatNoRuleHasAnyMore(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol int) {
		leak.Check(t)
		server, local, k := newMosquitto(t), newLocal(), &kept{}
		local.keep = k.keep
		run := func(filters ...string) *rig {
			cfg := listening(filters...)
			cfg.Protocol, cfg.Servers = protocol, []string{"tcp://" + server.Addr}
			return newRig(t, cfg, local, new(net.Dialer).DialContext).start()
		}
		publish := func(topic string) {
			args := []string{"-h", "127.0.0.1", "-p", server.Port(), "-q", "1", "-t", topic, "-m", "x"}
			if out, err := exec.Command(testbed.Find(t, "mosquitto_pub"), args...).CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_pub: %v: %s", err, out)
			}
		}
		until := func(what string, ok func() bool) {
			deadline, tick := time.After(time.Minute), time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for !ok() {
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatal("still not: ", what)
				}
			}
		}
		r := run("a/#", "b/#")
		until("subscribed", func() bool { publish("b/1"); return len(k.text()) > 0 })
		r.end()
		r = run("a/#")
		until("unsubscribed", func() bool { return r.log.count("has unsubscribed") == 1 })
		before := r.Status().In
		publish("b/2")
		publish("a/1")
		until("a/1 came", func() bool { return slices.Contains(k.text(), "in/a/1 x 1") })
		if in := r.Status().In; in.Unmatched != before.Unmatched || in.Received != before.Received+1 {
			t.Errorf("from upstream came %+v, before %+v", in, before)
		}
		r.end()
	})
}
