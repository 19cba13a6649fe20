//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/pty"
)

// ward is a gateway with two adapters: "good", whose readings must flow whatever
// happens to the other, and "bad".
type ward struct {
	t    testing.TB
	u    *upstream
	g    *gateway
	good *sensor
}

// newWard starts it. bad is the device of the adapter that will suffer.
func newWard(t testing.TB, bad string) *ward {
	t.Helper()
	u := newUpstream(t)
	good := newSensor(t, 100*lineSize, 1_000_000) // a hundred lines a second, until it is told to stop
	g := newGateway(t, u.address(), "adapters:"+serialAdapter("good", good.pair.Slave)+serialAdapter("bad", bad))
	g.awaitUplink()
	g.awaitAdapter("good")
	background(t, good.run)
	return &ward{t: t, u: u, g: g, good: good}
}

// flow waits until another n good readings have arrived upstream.
func (w *ward) flow(n int) {
	w.t.Helper()
	w.u.tap.acked.awaitNumber(w.t, prefix+reading("good"), w.good.current()+n)
}

// checkBad writes good lines to the bad device, which must arrive.
func (w *ward) checkBad(device *os.File) {
	w.t.Helper()
	const lines = 100
	for n := range lines {
		feed(w.t, device, fmt.Appendf(nil, "n=%d;\n", firstNumber+n))
	}
	for n := range lines {
		w.u.tap.acked.awaitNumber(w.t, prefix+reading("bad"), firstNumber+n)
	}
}

// check ends it: every good reading must have arrived once.
func (w *ward) check() {
	w.t.Helper()
	w.flow(10)
	w.good.update(func() { w.good.total = w.good.heard })
	last := w.good.awaitEnd()
	w.u.tap.acked.awaitNumber(w.t, prefix+reading("good"), last)
	if missing, _ := missingNumbers(w.u.tap.acked, prefix+reading("good"), last, nil); len(missing) > 0 {
		w.t.Errorf("%d readings of the healthy adapter are missing: %s", len(missing), some(missing))
	}
	if n, most := w.u.tap.published.duplicates(), w.u.cuts()*maxInflight; n > most {
		w.t.Errorf("%d readings came twice, at most %d may", n, most)
	}
	w.u.check()
	if code, took := w.g.stop(); code != 0 || took > stopLimit {
		w.t.Errorf("SIGTERM ends the gateway with exit code %d after %v", code, took)
	}
}

// feed writes all of b to a device that is being read.
func feed(t testing.TB, device *os.File, b []byte) {
	t.Helper()
	_ = device.SetWriteDeadline(time.Now().Add(patience))
	if _, err := device.Write(b); err != nil {
		t.Fatalf("the gateway has stopped reading: %v", err)
	}
}

// A device that is not there is said to be missing once, in one clear line, and
// used when it comes.
func TestDeviceThatIsMissing(t *testing.T) {
	leak.Check(t)
	device := filepath.Join(t.TempDir(), "ttyMissing")
	w := newWard(t, device)
	w.g.process.awaitLine(t, "level=WARN", "no such device "+device+": is it plugged in?")
	w.flow(300) // three seconds, in which the device is tried again
	pair, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pair.Close() })
	if err := os.Symlink(pair.Slave, device); err != nil {
		t.Fatal(err)
	}
	w.g.awaitAdapter("bad")
	w.checkBad(pair.Master)
	var complaints []string
	for _, line := range w.g.process.with(device) {
		if !strings.Contains(line, "adapter is online") {
			complaints = append(complaints, line)
		}
	}
	if len(complaints) != 1 {
		t.Errorf("the missing device is in %d lines of the log, want one:\n%s", len(complaints), strings.Join(complaints, "\n"))
	}
	w.check()
}

// Bytes that are no lines, and a line that never ends, cost neither memory nor
// anything else, and the good lines behind them arrive.
func TestDeviceThatWritesRubbish(t *testing.T) {
	leak.Check(t)
	noise := make([]byte, 1<<20)
	for r, i := random(t), 0; i < len(noise); i++ {
		noise[i] = byte(r.Uint32())
	}
	for name, rubbish := range map[string][]byte{
		"a megabyte of noise":    noise,
		"a line that never ends": bytes.Repeat([]byte("n=100001;"), 4<<20/len("n=100001;")),
	} {
		t.Run(name, func(t *testing.T) {
			pair, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { pair.Close() })
			w := newWard(t, pair.Slave)
			w.g.awaitAdapter("bad")
			w.flow(20)
			peak := w.g.measure()
			feed(t, pair.Master, rubbish)
			feed(t, pair.Master, []byte("\n"))
			w.checkBad(pair.Master)
			used := peak()
			t.Logf("%d bytes of rubbish: peak %v", len(rubbish), used)
			checkMemory(t, used)
			w.check()
		})
	}
}

// A wrong configuration is refused with one line that says where and what, and
// nothing is created.
func TestWrongConfiguration(t *testing.T) {
	leak.Check(t)
	cases := []struct {
		name, text string
		want       string // behind the file's name
	}{
		{"an unknown key", "store: {comit_interval: 10ms}\n", `:2:9: store: unknown key "comit_interval": did you mean "commit_interval"?`},
		{"an unknown section", "bridge: []\n", `:2:1: unknown key "bridge": did you mean "bridges"?`},
		{"no YAML", "store: {commit_interval: 10ms\n", ":2:8: not YAML: "},
		{"no duration", "store:\n  commit_interval: soon\n", `:3:20: store.commit_interval: "soon" is not a duration`},
		{"a listener that is open to all", "broker:\n  listeners:\n    - address: tcp://0.0.0.0:1883\n", ":4:16: broker.listeners[0].address: "},
		{"a bridge without a server", "bridges:\n  - name: cloud\n    out: [{topics: [sensor/#]}]\n", ":3:5: bridges[0].servers: is missing"},
		{"a filter that is none", "bridges:\n  - name: cloud\n    servers: [tcp://example.com]\n    out: [{topics: [sensor/#/x]}]\n", ":5:21: bridges[0].out[0].topics[0]: "},
		{"a variable that is not set", "bridges:\n  - name: cloud\n    servers: [tcp://example.com]\n    username: u\n    password: ${TIDEGATE_E2E_UNSET}\n    out: [{topics: [sensor/#]}]\n", ":6:15: bridges[0].password: environment variable TIDEGATE_E2E_UNSET is not set"},
		{"an unknown kind of adapter", "adapters:\n  - name: weather\n    kind: seriel\n", `:4:11: adapters[0].kind: "seriel" is no kind: did you mean "serial"?`},
		{"a baud rate that no port has", "adapters:\n  - name: weather\n    kind: serial\n    device: /dev/ttyUSB0\n    baud: 9601\n", ":6:11: adapters[0].baud: 9601 is no standard rate"},
		{"two adapters of one name", "adapters:\n  - {name: a, kind: serial, device: /dev/ttyUSB0}\n  - {name: a, kind: serial, device: /dev/ttyUSB1}\n", `:4:12: adapters[1].name: "a" is the name of adapters[0] already`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			conf, data := filepath.Join(dir, "tidegate.yaml"), filepath.Join(dir, "data")
			write(t, conf, fmt.Sprintf("gateway: {data_dir: %s}\n", data)+c.text)
			p := start(t, program, "run", "--config", conf)
			if code := p.exit(t, patience); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if lines := p.with(""); len(lines) != 1 || !strings.HasPrefix(lines[0], conf+c.want) {
				t.Errorf("printed\n%s\nwant one line with\n%s", strings.Join(lines, "\n"), conf+c.want)
			}
			if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("data_dir was created: %v", err)
			}
		})
	}
}
