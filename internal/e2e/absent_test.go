//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/load"
	"tidegate/internal/testbed"
)

// stage is where one broker is measured with "tidegate bench", which starts it.
type stage struct {
	dir, address, command string
}

// tidegateStage has the gateway with its defaults and what is given of its
// configuration.
func tidegateStage(t testing.TB, store, broker string) stage {
	t.Helper()
	s := stage{dir: t.TempDir(), address: testbed.ReserveAddr(t)}
	conf := filepath.Join(s.dir, "tidegate.yaml")
	write(t, conf, fmt.Sprintf(`
gateway: {name: bench, data_dir: %s/data, log: {level: warn}}
store: {%s}
broker:
  listeners: [{address: "tcp://%s"}]
%s
admin: {listen: "127.0.0.1:0"}
`, s.dir, store, s.address, broker))
	s.command = program + " run --config " + conf
	return s
}

// mosquittoStage has mosquitto as safe as it can be set.
func mosquittoStage(t testing.TB) stage {
	t.Helper()
	s := stage{dir: t.TempDir(), address: testbed.ReserveAddr(t)}
	if err := os.Mkdir(filepath.Join(s.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(s.dir, "mosquitto.conf")
	write(t, conf, fmt.Sprintf(`
listener %s 127.0.0.1
allow_anonymous true
user %s
persistence true
persistence_location %s/data/
autosave_on_changes true
autosave_interval 1
max_queued_messages 0
max_inflight_messages 100
`, port(s.address), user(), s.dir))
	s.command = testbed.Find(t, "mosquitto") + " -c " + conf
	return s
}

// bench runs "tidegate bench" with these arguments. The broker starts with an
// empty folder.
func (s stage) bench(args string) (r load.Report, err error) {
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		return r, err
	}
	if err := os.Mkdir(filepath.Join(s.dir, "data"), 0o700); err != nil {
		return r, err
	}
	all := append([]string{"bench"}, strings.Fields(args)...)
	all = append(all, "-o", "json", "--addr", s.address, "--broker-cmd", s.command)
	cmd := exec.Command(program, all...)
	cmd.Stderr = new(strings.Builder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it ends its broker
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("bench %s: %w: %s", args, err, cmd.Stderr)
	}
	return r, json.Unmarshal(out, &r)
}

// measured does so, and nothing that is owed may be missing.
func (s stage) measured(t *testing.T, args string) load.Report {
	t.Helper()
	r, err := s.bench(args + " --drain 20s") // a machine may be busy
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost != 0 || r.Unordered != 0 || r.Broker == nil || r.Acknowledged == nil && r.Scenario == "offline" {
		t.Errorf("bench %s: %+v", args, r)
	}
	return r
}

// Ten publishers with a window of 100 each, and a durable client that is away: the
// gateway is killed after the last acknowledgement, and everything that was
// acknowledged is there.
func TestAbsentConsumer(t *testing.T) {
	leak.Check(t)
	r := tidegateStage(t, "", "").measured(t, fmt.Sprintf("offline --pubs 10 --window 100 --count %d --kill KILL", scale(3000)))
	if r.Acked != r.Sent || r.Received != r.Sent || r.Duplicates != 0 {
		t.Errorf("of %d messages %d were acknowledged, %d came, %d of them twice", r.Sent, r.Acked, r.Received, r.Duplicates)
	}
	t.Logf("%.0f acknowledged/s, %.0f bytes written for each", r.SentPerSecond, r.Broker.DiskStored)
}

// What an absent consumer costs, in the tables of docs/performance.md.
func TestWhatAnAbsentConsumerCosts(t *testing.T) {
	if !isFull() {
		t.Skip("only with TIDEGATE_E2E=full: it takes minutes, and its figures need a quiet machine")
	}
	leak.Check(t)
	slow := slowRates(t)
	t.Run("rate", absentRates)
	t.Run("bytes", func(t *testing.T) { absentBytes(t, slow) })
	t.Run("wait", absentWaits)
	t.Run("memory", absentMemory)
}

func absentRates(t *testing.T) {
	busy, _ := os.ReadFile("/proc/loadavg")
	t.Logf("load of the machine %.14s, fdatasync of 4 KiB %s ms", busy, newDisk(t).measure(time.Second))
	t.Log("| | acknowledged/s | p99 of PUBACK, ms | written per message, B | lost | drained/s | RSS, RssAnon at the peak, MB |")
	stages := []stage{tidegateStage(t, "", ""), mosquittoStage(t)}
	reports := make([][]load.Report, len(stages))
	for range 3 {
		for i, s := range stages {
			r, err := s.bench("offline --pubs 10 --window 100 --count 150000 --time 10s --kill KILL")
			if err != nil {
				t.Fatal(err)
			}
			reports[i] = append(reports[i], r)
		}
	}
	for i, name := range []string{"tidegate", "mosquitto"} {
		of := func(f func(load.Report) float64) float64 { return middle(reports[i], f) }
		t.Logf("| %s | %.0f | %.1f | %.0f | %.0f | %.0f | %.1f, %.1f |", name,
			of(func(r load.Report) float64 { return r.SentPerSecond }),
			of(func(r load.Report) float64 { return r.Acknowledged.P99 / 1e3 }),
			of(func(r load.Report) float64 { return r.Broker.DiskStored }),
			of(func(r load.Report) float64 { return float64(r.Lost) }),
			of(func(r load.Report) float64 { return r.MsgPerSecond }),
			of(func(r load.Report) float64 { return float64(r.Broker.RSSPeak) / 1e6 }),
			of(func(r load.Report) float64 { return float64(r.Broker.AnonPeak) / 1e6 }))
	}
	for _, r := range reports[0] {
		if r.Lost != 0 {
			t.Errorf("tidegate has lost %d messages", r.Lost)
		}
	}
}

// middle is the median of a figure.
func middle(reports []load.Report, f func(load.Report) float64) float64 {
	var all []float64
	for _, r := range reports {
		all = append(all, f(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// intervals are the values of commit_interval that are compared.
var intervals = []string{"1s", "10ms"}

// slowRates begins to publish one message a second, with each commit_interval, and
// returns what waits for the outcome: bytes written per message.
func slowRates(t *testing.T) (outcome func(i int) (float64, error)) {
	type result struct {
		bytes float64
		err   error
	}
	results := make([]chan result, len(intervals))
	for i, interval := range intervals {
		s, done := tidegateStage(t, "commit_interval: "+interval, ""), make(chan result, 1)
		results[i] = done
		go func() {
			r, err := s.bench("offline --rate 1 --count 120 --time 150s")
			if err != nil {
				done <- result{err: err}
				return
			}
			done <- result{bytes: r.Broker.DiskStored}
		}()
	}
	return func(i int) (float64, error) { r := <-results[i]; return r.bytes, r.err }
}

func absentBytes(t *testing.T, slow func(int) (float64, error)) {
	t.Log("written per message of 128 bytes")
	t.Log("| commit_interval | 1/s | 100/s | 10,000/s |")
	for i, interval := range intervals {
		s := tidegateStage(t, "commit_interval: "+interval, "  limits: {receive_maximum: 65535}")
		some := s.measured(t, "offline --rate 100 --window 1000 --count 1500")
		many := s.measured(t, "offline --rate 10000 --pubs 10 --window 2000 --count 100000")
		few, err := slow(i)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("| %s | %.0f B | %.0f B | %.0f B |", interval, few, some.Broker.DiskStored, many.Broker.DiskStored)
	}
}

func absentWaits(t *testing.T) {
	t.Log("from publication to PUBACK at the default commit_interval, and fdatasync of 4 KiB meanwhile, ms")
	t.Log("| rate | median | p90 | p99 | fdatasync | 10 ms + two of their medians |")
	for range 3 {
		for _, rate := range []int{100, 1000} {
			d := newDisk(t)
			d.begin()
			r := tidegateStage(t, "", "").measured(t, fmt.Sprintf("offline --rate %d --count %d", rate, 10*rate))
			syncs := d.end()
			a := r.Acknowledged
			t.Logf("| %d/s | %.1f | %.1f | %.1f | %s | %.2f |", rate, a.P50/1e3, a.P90/1e3, a.P99/1e3, syncs, 10+2*syncs.median)
		}
	}
}

func absentMemory(t *testing.T) {
	t.Log("| | messages | RSS before, at the peak, at the end, MB | RssAnon at the peak, MB |")
	s := tidegateStage(t, "", "  queue: {max_disk: 64GiB}\n  limits: {max_inflight: 1000}")
	for _, c := range []struct{ name, args string }{
		{"a consumer that is there", "fanin --n 10 --e2e 100 --count 2000000 --time 60s"},
		{"absent, then back", "offline --pubs 10 --count 150000 --time 60s"},
		{"absent, then back", "offline --pubs 10 --count 2000000 --time 60s"},
	} {
		r := s.measured(t, c.args)
		b := r.Broker
		t.Logf("| %s | %d | %.1f, %.1f, %.1f | %.1f |", c.name, r.Sent, float64(b.RSSBefore)/1e6, float64(b.RSSPeak)/1e6, float64(b.RSSAfter)/1e6, float64(b.AnonPeak)/1e6)
	}
}

// disk is a file that is overwritten and synced beside a broker.
type disk struct {
	t    *testing.T
	file *os.File
	stop chan struct{}
	done chan syncs
}

// syncs is how long fdatasync took, in milliseconds.
type syncs struct{ median, p99 float64 }

func (s syncs) String() string { return fmt.Sprintf("%.2f, p99 %.2f", s.median, s.p99) }

func newDisk(t *testing.T) *disk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &disk{t: t, file: f}
}

// begin syncs a block of 4 KiB every 5 ms until end.
func (d *disk) begin() {
	d.stop, d.done = make(chan struct{}), make(chan syncs, 1)
	go func() {
		var took []float64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				began := time.Now()
				if _, err := d.file.WriteAt(make([]byte, 4096), 0); err != nil {
					d.t.Error(err)
				}
				if err := syscall.Fdatasync(int(d.file.Fd())); err != nil {
					d.t.Error(err)
				}
				took = append(took, float64(time.Since(began))/1e6)
			case <-d.stop:
				slices.Sort(took)
				d.done <- syncs{took[len(took)/2], took[len(took)*99/100]}
				return
			}
		}
	}()
}

func (d *disk) end() syncs {
	close(d.stop)
	return <-d.done
}

// measure does so for a while.
func (d *disk) measure(long time.Duration) syncs {
	d.begin()
	hold(d.t.Context(), long)
	return d.end()
}
