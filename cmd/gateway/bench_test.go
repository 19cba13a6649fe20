package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"tidegate/broker"
	"tidegate/internal/balance"
	"tidegate/internal/leak"
	"tidegate/internal/load"
	"tidegate/internal/testbed"
	"tidegate/store"
)

// startBench runs a broker over a store until the test ends, and returns its address.
func startBench(t *testing.T) string {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := broker.Config{Listeners: []broker.Listener{{Address: "tcp://127.0.0.1:0"}}}
	cfg.SetDefaults()
	b, err := broker.New(cfg, broker.Options{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		balance.Check(t, b)
		if err := st.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	_, hostPort, _ := strings.Cut(fmt.Sprint(b.Addrs()[0]), "://")
	if hostPort == "" {
		hostPort = fmt.Sprint(b.Addrs()[0])
	}
	return hostPort
}

// bench runs the command and returns its report.
func bench(t *testing.T, args ...string) load.Report {
	t.Helper()
	code, out, errOut := call(t, append([]string{"bench", "-o", "json"}, args...)...)
	if code != exitDone || errOut != "" {
		t.Fatalf("bench %s ends with %d: %s", args, code, errOut)
	}
	var r load.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return r
}

// Every scenario, for a moment, against the real broker: nothing is lost, comes
// twice, or out of order, and the broker of the next row finds nothing left behind.
func TestBenchScenarios(t *testing.T) {
	leak.Check(t)
	addr := startBench(t)
	for _, c := range []struct {
		args                  string
		sent, acked, expected int64
	}{
		{"p2p -n 3 -q 0 --count 100 --e2e 20", 100, 0, 100},
		{"p2p -n 3 -q 1 --count 100 --e2e 20", 100, 100, 100},
		{"p2p -n 3 -q 2 --count 100 --e2e 20", 100, 100, 100},
		{"p2p -n 2 -q 1 --count 40 --rate 2000 --size 20000", 40, 40, 40},
		{"p2p -n 1 -q 1 --count 300 --window 1", 300, 300, 300},
		{"fanout -n 7 -q 1 --count 50 --e2e 70", 50, 50, 350},
		{"fanin -n 7 -q 2 --count 100 --e2e 10", 100, 100, 100},
		{"fanin -n 2 -q 1 --count 100 --stall", 100, 100, 100},
		{"wildcard -n 5 --pubs 3 --filters 200 -q 0 --count 200 --e2e 50", 200, 0, -1},
		{"retained -n 200 -q 1", 200, 200, 200},
		{"retained -n 50 -q 2", 50, 50, 50},
		{"offline -q 1 --count 500", 500, 500, 500},
		{"offline -q 2 --count 500", 500, 500, 500},
		{"offline -q 1 --pubs 7 --count 500", 500, 500, 500},
		{"offline -q 2 --pubs 3 --count 200 --rate 5000", 200, 200, 200},
		{"p2p -v 5 -n 3 -q 1 --count 100 --e2e 20", 100, 100, 100},
		{"offline -v 5 -q 1 --count 200", 200, 200, 200},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := bench(t, append(strings.Fields(c.args), "--addr", addr)...)
			if c.expected < 0 { // of random filters
				c.expected = r.Expected
			}
			if r.Sent != c.sent || r.Acked != c.acked || r.Expected != c.expected || r.Expected == 0 {
				t.Errorf("sent %d, acknowledged %d, expected %d; want %d, %d, %d", r.Sent, r.Acked, r.Expected, c.sent, c.acked, c.expected)
			}
			if want := flagged(c.args, "--pubs"); want != "" && strconv.Itoa(r.Pubs) != want {
				t.Errorf("%d publishers, want %s", r.Pubs, want)
			}
			if r.Received != r.Expected || r.Lost+r.Duplicates+r.Unordered+r.Refused+r.Foreign != 0 {
				t.Errorf("received %d of %d, lost %d, twice %d, out of order %d, refused %d, foreign %d",
					r.Received, r.Expected, r.Lost, r.Duplicates, r.Unordered, r.Refused, r.Foreign)
			}
			if a, lone := r.Acknowledged, r.Scenario == "offline" || r.Scenario == "retained"; lone != (a != nil) || lone && !(0 < a.P50 && a.P50 <= a.P99 && a.P99 <= a.Max*1.02) {
				t.Errorf("acknowledged after %+v", a)
			}
			if r.Seconds <= 0 || r.MsgPerSecond <= 0 {
				t.Errorf("%v s, %v messages a second", r.Seconds, r.MsgPerSecond)
			}
		})
	}
}

// flagged is what follows the flag in args, "" if it is not there.
func flagged(args, flag string) string {
	_, after, _ := strings.Cut(args, flag+" ")
	value, _, _ := strings.Cut(after, " ")
	return value
}

func TestBenchConnections(t *testing.T) {
	leak.Check(t)
	r := bench(t, "conns", "-n", "100", "--sources", "2", "--hold", "50ms", "--keepalive", "1", "--addr", startBench(t))
	if r.Connections != 100 || r.ConnectionsLost != 0 || r.ConnectionsPerSecond <= 0 || r.Latency == nil {
		t.Errorf("report %+v", r)
	}
}

// A process that is named is measured: here it is the test, broker and load in one.
func TestBenchMeasuresProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	r := bench(t, "p2p", "--count", "2000", "--pid", strconv.Itoa(os.Getpid()), "--addr", startBench(t))
	if c := r.Broker; c == nil || c.RSSPeak < c.AnonPeak || c.AnonPeak < 1<<20 || c.RSSBefore == 0 {
		t.Errorf("cost %+v", c)
	}
	if code, _, errOut := call(t, "bench", "p2p", "--pid", "999999999"); code != exitFailed || !strings.Contains(errOut, "measure process 999999999") {
		t.Errorf("a process that does not exist ends with %d and says %q", code, errOut)
	}
}

func TestBenchText(t *testing.T) {
	code, out, errOut := call(t, "bench", "p2p", "-n", "1", "--count", "10", "--addr", startBench(t))
	if code != exitDone || errOut != "" || !strings.HasPrefix(out, "p2p, MQTT 3.1.1, QoS 1: 10 of 10 delivered in ") || strings.Count(out, "\n") != 1 {
		t.Errorf("it ends with %d, says %q and prints\n%s", code, errOut, out)
	}
}

func TestBenchRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"p4p":                               `no scenario "p4p"`,
		"p2p --addr 192.0.2.1:1883":         "not of this machine",
		"p2p --procs 0":                     "procs is 0",
		"p2p --time 1h":                     "up to 10m0s",
		"offline --kill KILL":               "command that starts it again",
		"p2p --pid 1 --broker-cmd mosquito": "one of the two",
	} {
		code, out, errOut := call(t, append([]string{"bench"}, strings.Fields(args)...)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, want) || !strings.Contains(errOut, "tidegate bench --help") {
			t.Errorf("bench %s ends with %d and says %q, want %q", args, code, errOut, want)
		}
	}
	if code, _, errOut := call(t, "bench", "p2p", "--addr", testbed.ReserveAddr(t)); code != exitFailed || !strings.Contains(errOut, "refused") {
		t.Errorf("without a broker it ends with %d and says %q", code, errOut)
	}
}

// benchRun in the environment makes the test binary the program itself, so that
// bench has a process to start, measure, and kill.
const benchRun = "TIDEGATE_TEST_BENCH_RUN"

func TestMain(m *testing.M) {
	if config := os.Getenv(benchRun); config != "" {
		os.Args = []string{program, "run", "--config", config}
		main()
	}
	os.Exit(m.Run())
}

func TestBenchStartsAndKillsBroker(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	leak.Check(t)
	addr := testbed.ReserveAddr(t)
	dir := writeFiles(t, map[string]string{"bench.yaml": "gateway: {name: x, data_dir: data}\nadmin: {listen: 127.0.0.1:0}\nbroker: {listeners: [{address: tcp://" + addr + "}]}\n"})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir) // the data folder starts here
	t.Setenv(benchRun, filepath.Join(dir, "bench.yaml"))
	for _, signal := range []string{"KILL", "TERM"} {
		r := bench(t, "offline", "--count", "300", "--pubs", "2", "--kill", signal, "--broker-cmd", self, "--broker-log", "log", "--addr", addr)
		if r.Acked != 300 || r.Received != 300 || r.Lost+r.Duplicates+r.Unordered != 0 || r.Restart <= 0 || r.SessionPresent == nil || !*r.SessionPresent {
			t.Errorf("SIG%s: report %+v", signal, r)
		}
		if r.Broker == nil || r.Broker.DiskStored == 0 || r.Broker.Disk < int64(300*r.Broker.DiskStored) || r.Broker.RSSPeak == 0 {
			t.Errorf("SIG%s: cost %+v", signal, r.Broker)
		}
	}
	log, err := os.ReadFile("log")
	if err != nil || bytes.Count(log, []byte("ready\n")) != 4 {
		t.Errorf("the log does not have four starts: %v\n%s", err, log)
	}
	if nc, err := net.Dial("tcp", addr); err == nil {
		nc.Close()
		t.Error("a broker runs on")
	}
	code, _, errOut := call(t, "bench", "p2p", "--broker-cmd", "true", "--addr", addr)
	if code != exitFailed || !strings.Contains(errOut, "it has ended") {
		t.Errorf("a broker that ends at once: exit code %d, %q", code, errOut)
	}
}
