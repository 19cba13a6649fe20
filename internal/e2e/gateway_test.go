//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/admin"
	"tidegate/internal/balance"
	"tidegate/internal/client"
)

// The gateway's configuration in these tests.
const (
	maxInflight = 100
	prefix      = "site/" // of topics upstream
	memoryLimit = 64 << 20
)

// gateway is the program under test. It keeps its configuration and data when
// it is killed and started again; its port changes.
type gateway struct {
	edge
	t       testing.TB
	conf    string
	data    string
	process *process
	slowest time.Duration // from the start of the process to "ready"
}

// edge is where publishers connect to.
type edge struct {
	watched
	address string // empty while it is down
}

// newGateway starts a gateway whose uplink goes to server. adapters is that part
// of its configuration, if any.
func newGateway(t testing.TB, server, adapters string) *gateway {
	t.Helper()
	return newGatewayTo(t, 4, []string{server}, adapters)
}

// newGatewayTo starts a gateway whose uplink goes to one of servers, in MQTT
// 3.1.1 (protocol 4) or 5.
func newGatewayTo(t testing.TB, protocol int, servers []string, adapters string) *gateway {
	t.Helper()
	return newGatewayOf(t, fmt.Sprintf(`
    servers: ["tcp://%s"]
    protocol: %d
    max_inflight: %d
    stall_timeout: 2s
%s`, strings.Join(servers, `", "tcp://`), protocol, maxInflight, adapters))
}

// newGatewayOf starts a gateway whose bridge has the rest of its configuration, behind
// which other parts may follow.
func newGatewayOf(t testing.TB, rest string) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	write(t, g.conf, fmt.Sprintf(`
gateway: {name: e2e, data_dir: %s, memory_limit: %d}
admin: {listen: "127.0.0.1:0"}
broker:
  listeners: [{address: "tcp://127.0.0.1:0"}]
bridges:
  - name: cloud
    backoff: {min: 50ms, max: 500ms}
    out: [{topics: ["sensor/#"], prefix: %s}]%s`, g.data, memoryLimit, prefix, rest))
	g.start()
	return g
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start returns when the gateway is ready.
func (g *gateway) start() {
	g.t.Helper()
	began := time.Now()
	g.launch()
	g.process.await(g.t, `"ready"`, func() bool { return g.process.ended || slices.Contains(g.process.lines, "ready") })
	g.slowest = max(g.slowest, time.Since(began))
	g.welcome()
	p := g.process
	g.t.Cleanup(func() {
		if p == g.process && g.address != "" && !g.t.Failed() {
			g.balance()
		}
	})
}

// launch starts the process and waits for nothing.
func (g *gateway) launch() {
	g.t.Helper()
	g.process = start(g.t, program, "run", "--config", g.conf)
}

// welcome tells clients where the gateway listens.
func (g *gateway) welcome() {
	g.t.Helper()
	const listening = "listening on tcp://"
	line := g.process.awaitLine(g.t, listening)
	g.update(func() { g.address = strings.TrimPrefix(line, listening) })
}

// kill is a power cut, as far as a process can have one.
func (g *gateway) kill() {
	g.update(func() { g.address = "" })
	g.process.end(syscall.SIGKILL)
}

// stop ends the gateway orderly and returns its exit code and how long it took.
func (g *gateway) stop() (code int, took time.Duration) {
	g.t.Helper()
	g.update(func() { g.address = "" })
	began := time.Now()
	if err := g.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatalf("the gateway has ended before it was told to: %v", err)
	}
	code = g.process.exit(g.t, patience)
	return code, time.Since(began)
}

// awaitUplink waits until the log says that the bridge is connected.
func (g *gateway) awaitUplink() {
	g.t.Helper()
	g.process.await(g.t, "the uplink", func() bool {
		states := g.process.withLocked([]string{"msg=\"bridge is "})
		return len(states) > 0 && strings.Contains(states[len(states)-1], "bridge is up")
	})
}

// awaitAdapter waits until the adapter has opened its device.
func (g *gateway) awaitAdapter(name string) {
	g.t.Helper()
	g.process.awaitLine(g.t, "adapter is online", "adapter="+name)
}

// balance expects that nothing is unaccounted for, once the gateway rests: what
// sessions were owed is delivered, queued or in the loss ledger.
func (g *gateway) balance() {
	g.t.Helper()
	for late := time.Now().Add(patience); ; pause(context.Background()) {
		st := g.status(g.t)
		err := balance.Of(&st.Broker, st.Losses)
		if err == nil {
			return
		}
		if time.Now().After(late) {
			g.t.Error(err)
			return
		}
	}
}

// dial connects to the edge as soon as it is up. It fails only when ctx is done.
func (e *edge) dial(ctx context.Context, o client.Options) (c *client.Conn, err error) {
	err = e.reach(ctx, func(address string) (err error) {
		c, err = client.Dial(ctx, address, o)
		return err
	})
	return c, err
}

// reach calls try with the address of the edge, whenever it is up, until that
// works or ctx is done.
func (e *edge) reach(ctx context.Context, try func(address string) error) error {
	for {
		var address string
		up := func() bool { address = e.address; return address != "" }
		if err := e.wait(ctx, up); err != nil {
			return err
		}
		err := try(address)
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx)
	}
}

// status asks the gateway for its status document.
func (g *gateway) status(t testing.TB) (st admin.Status) {
	t.Helper()
	const listening = "listening on http://"
	answer, err := http.Get("http://" + strings.TrimPrefix(g.process.awaitLine(t, listening), listening) + "api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&st); err != nil {
		t.Fatal(err)
	}
	return st
}

// serialAdapter is a part of the configuration: a serial port with lines as a
// [sensor] writes them.
func serialAdapter(name, device string) string {
	return fmt.Sprintf(`
  - {name: %s, kind: serial, device: %s, baud: 115200, decode: {kind: regex, pattern: '^n=(?P<n>\d{6});$'}}`, name, device)
}

// reading is the topic of the adapter's readings.
func reading(adapter string) string { return "sensor/" + adapter + "/n" }

// usage is what a process uses.
type usage struct {
	rss, anon int // bytes; anon: without mapped files, which the system can drop at any time
}

func (u usage) String() string {
	return fmt.Sprintf("RSS %.1f MiB (anonymous %.1f MiB)", float64(u.rss)/(1<<20), float64(u.anon)/(1<<20))
}

// measure samples what the gateway's process uses until peak is called.
func (g *gateway) measure() (peak func() usage) { return g.process.measure(10 * time.Millisecond) }

func (p *process) measure(every time.Duration) (peak func() usage) {
	path := fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)
	stop, result := make(chan struct{}), make(chan usage, 1)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for most := (usage{}); ; {
			status, _ := os.ReadFile(path) // it is gone with the process
			most.rss = max(most.rss, field(status, "VmRSS:")<<10)
			most.anon = max(most.anon, field(status, "RssAnon:")<<10)
			select {
			case <-tick.C:
			case <-stop:
				result <- most
				return
			}
		}
	}()
	return func() usage {
		close(stop)
		return <-result
	}
}

// written returns how many bytes the gateway's process has caused to be written
// to storage.
func (g *gateway) written() int {
	g.t.Helper()
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", g.process.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	return field(io, "\nwrite_bytes:")
}

// field reads the number behind name in a file of /proc; 0 if there is none.
func field(file []byte, name string) (n int) {
	_, rest, _ := bytes.Cut(file, []byte(name))
	_, _ = fmt.Sscan(string(rest[:min(len(rest), 40)]), &n)
	return n
}
