//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
)

// A disk that takes nothing more, whatever the reason: the gateway goes on, says
// why, acknowledges nothing that is not safe, and heals by itself. After that, and
// a kill, everything that was acknowledged arrives upstream.
func TestFullDisk(t *testing.T) {
	leak.Check(t)
	for name, f := range map[string]struct {
		mount  string // of the small file system; "": the fault comes from strace
		healed string // its options afterwards
		errno  string // that system calls fail with
		reason string
	}{
		"no space":             {"size=3m", "size=64m", "", "no space left on device"},
		"no inodes":            {"size=64m,nr_inodes=14", "size=64m,nr_inodes=9999", "", "no space left on device"},
		"the disk answers EIO": {"", "", "EIO", "input/output error"},
		"it is read-only":      {"", "", "EROFS", "read-only file system"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			u.network.SetMode(proxy.Cut)
			g := smallDisk(t, u.address(), f.mount)
			const total = 24_000
			fleet := newFleet(t, g)
			fleet.allow(1000)
			fleet.awaitAcked(t, 1000)
			heal := func() { remount(t, g.data, f.healed) }
			if f.errno != "" {
				heal = failing(t, g, f.errno)
			}
			fleet.allow(total)
			g.process.awaitLine(t, "cannot write to the store", f.reason)
			g.wantUnready(f.reason)
			heal()
			fleet.awaitAcked(t, total)
			g.process.awaitLine(t, "the store takes messages again")
			g.kill()
			u.network.SetMode(proxy.Pass)
			g.start()
			g.deliversAll(u, fleet, total)
			u.tap.acked.checkOrder(t, "upstream")
		})
	}
}

// SIGTERM while the disk is full ends the gateway with 0 and a line that says so: what
// it had acknowledged is there after the next start.
func TestStopOnAFullDisk(t *testing.T) {
	leak.Check(t)
	u := newUpstream(t)
	u.network.SetMode(proxy.Cut)
	g := smallDisk(t, u.address(), "size=3m")
	const total = 24_000
	fleet := newFleet(t, g)
	fleet.allow(total)
	g.process.awaitLine(t, "cannot write to the store", "no space left on device")
	code, took := g.stop()
	if said := g.process.with("ended while the store takes nothing", "no space left on device"); code != 0 || took > stopLimit || len(said) != 1 {
		g.process.show(t)
		t.Errorf("exit code %d after %v, want 0 within %v and a line that says why messages are gone", code, took, stopLimit)
	}
	remount(t, g.data, "size=64m")
	u.network.SetMode(proxy.Pass)
	g.start()
	fleet.awaitAcked(t, total)
	g.deliversAll(u, fleet, total)
}

// The newest file of the journal is damaged and the disk is full when the gateway
// starts: it starts, says why it acknowledges nothing, and heals when there is room.
func TestStartWithDamageOnAFullDisk(t *testing.T) {
	leak.Check(t)
	u := newUpstream(t)
	u.network.SetMode(proxy.Cut)
	g := smallDisk(t, u.address(), "size=8m")
	const before, total = 1000, 2000
	fleet := newFleet(t, g)
	fleet.allow(before)
	fleet.awaitAcked(t, before)
	g.kill()
	files, _ := filepath.Glob(filepath.Join(g.data, "journal", "*.seg"))
	damageMeta(t, files[len(files)-1])
	ballast := filepath.Join(g.data, "ballast")
	fillDisk(t, ballast)
	g.start()
	fleet.allow(total)
	g.process.awaitLine(t, "there is no room for the newest segment", "no space left on device")
	g.process.awaitLine(t, "cannot write to the store", "no space left on device")
	g.wantUnready("no space left on device")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	g.process.awaitLine(t, "the store takes messages again")
	fleet.awaitAcked(t, total)
	u.network.SetMode(proxy.Pass)
	g.deliversAll(u, fleet, total)
}

// state.db is damaged or gone and the disk is full when the gateway starts: it starts,
// says so, and delivers upstream all that was queued, which may make the room already;
// when there is, it heals.
func TestStartWithoutStateOnAFullDisk(t *testing.T) {
	leak.Check(t)
	for name, spoil := range map[string]func(t *testing.T, path string){
		"damaged": zeroPages,
		"gone": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			u.network.SetMode(proxy.Cut)
			g := smallDisk(t, u.address(), "size=8m")
			const before, total = 2000, 3000
			fleet := newFleet(t, g)
			fleet.allow(before)
			fleet.awaitAcked(t, before)
			g.kill()
			spoil(t, filepath.Join(g.data, "state.db"))
			ballast := filepath.Join(g.data, "ballast")
			fillDisk(t, ballast)
			g.start()
			g.process.awaitLine(t, "there is no room for state.db", "no space left on device")
			g.process.awaitLine(t, "cannot write state.db", "no space left on device")
			g.wantUnready("no space left on device")
			u.network.SetMode(proxy.Pass)
			u.tap.acked.awaitCount(t, before)
			fleet.allow(total)
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			g.process.awaitLine(t, "there is room for state.db")
			fleet.awaitAcked(t, total)
			g.deliversAll(u, fleet, total)
		})
	}
}

// zeroPages zeroes all but the meta pages.
func zeroPages(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, info.Size()-2*4096), 2*4096); err != nil {
		t.Fatal(err)
	}
}

// damageMeta flips a bit of a meta page's checksum: everything else is sound.
func damageMeta(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	const sum = 16 + 56 // behind the page's header
	if _, err := f.ReadAt(b, sum); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, sum); err != nil {
		t.Fatal(err)
	}
}

// deliversAll waits until all that was acknowledged is upstream, but for what the queue gave up and
// the ledger has, where store.min_free was sooner than the disk.
func (g *gateway) deliversAll(u *upstream, f *fleet, total int) {
	g.t.Helper()
	given := 0
	for _, l := range g.status(g.t).Losses {
		if l.Reason == "store_full" {
			given += int(l.Count)
		}
	}
	if given > 10 {
		g.t.Errorf("%d messages were given up", given)
	}
	u.tap.acked.awaitCount(g.t, total-given)
	if lost := f.done.without(u.tap.acked, prefix); len(lost) > given {
		g.t.Errorf("%d acknowledged messages are not upstream, %d were given up: %s", len(lost), given, some(lost))
	}
}

// fillDisk writes the file at path until there is room for one page only: with none,
// store.min_free would have queues give up messages.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || f.Truncate(at-4096) != nil {
		t.Fatal(err)
	}
}

// smallDisk starts a gateway with its data on a file system with these options; ""
// is the one of the test.
func smallDisk(t *testing.T, server, options string) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	if err := os.Mkdir(g.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if options != "" {
		if err := syscall.Mount("tmpfs", g.data, "tmpfs", 0, options); err != nil {
			t.Skipf("cannot mount a small file system (needs root): %v", err)
		}
		t.Cleanup(func() {
			g.process.end(os.Kill)
			if err := syscall.Unmount(g.data, 0); err != nil {
				t.Error(err)
			}
		})
	}
	write(t, g.conf, fmt.Sprintf(`
gateway: {name: e2e, data_dir: %s}
admin: {listen: "127.0.0.1:0"}
store: {segment_size: 256KiB, min_free: 1}
broker:
  listeners: [{address: "tcp://127.0.0.1:0"}]
bridges:
  - {name: cloud, servers: ["tcp://%s"], backoff: {min: 50ms, max: 500ms}, out: [{topics: ["sensor/#"], prefix: %s}]}
`, g.data, server, prefix))
	g.start()
	return g
}

func remount(t *testing.T, dir, options string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, options); err != nil {
		t.Fatal(err)
	}
}

// failing makes all calls of the gateway that write to files fail until heal is
// called.
func failing(t *testing.T, g *gateway, errno string) (heal func()) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace to make system calls fail: apt-get install strace")
	}
	calls := "pwrite64,fsync,fdatasync,ftruncate,renameat"
	p := start(t, "strace", "-f", "-o", "/dev/null", "-e", "trace="+calls, "-e", "inject="+calls+":error="+errno, "-p", strconv.Itoa(g.process.cmd.Process.Pid))
	p.awaitLine(t, "attached")
	return func() { p.end(os.Interrupt) }
}

// wantUnready expects the reason at /readyz and that the process is alive.
func (g *gateway) wantUnready(reason string) {
	g.t.Helper()
	page := strings.TrimPrefix(g.process.awaitLine(g.t, "listening on http://"), "listening on ")
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(page + "readyz")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), reason) {
		g.t.Errorf("/readyz answers %d, %s", resp.StatusCode, body)
	}
}
