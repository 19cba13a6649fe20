//go:build linux

package serial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/adapters"
	"tidegate/adapters/decode"
	"tidegate/internal/leak"
	"tidegate/internal/pty"
)

// patience is for what must happen but may take its time on a busy machine.
const patience = time.Minute

func plug(t *testing.T) *pty.Pair {
	t.Helper()
	p, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func config(device string) Config {
	c := Config{Config: adapters.Config{Name: "weather"}, Device: device, Baud: 115200}
	c.SetDefaults()
	return c
}

// feed is a sink that hands the readings on through a channel.
type feed struct {
	online   chan struct{} // closed by the first Emit
	once     sync.Once
	readings chan adapters.Reading
}

func newFeed(size int) *feed {
	return &feed{online: make(chan struct{}), readings: make(chan adapters.Reading, size)}
}

func (f *feed) Emit(ctx context.Context, readings ...adapters.Reading) error {
	f.once.Do(func() { close(f.online) })
	for _, r := range readings {
		select {
		case f.readings <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (f *feed) next(t *testing.T) adapters.Reading {
	t.Helper()
	return receive(t, f.readings)
}

func receive[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

// start runs an adapter until the end of the test, or of stop.
func start(t *testing.T, c Config, out adapters.Sink) (a *Adapter, stop func() error) {
	t.Helper()
	if p := c.Check(); len(p) > 0 {
		t.Fatal(p)
	}
	opened, err := c.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a = opened.(*Adapter)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, out) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return a, stop
}

// write plays the sensor; it must not outlast the test.
func write(t *testing.T, p *pty.Pair, s string) {
	t.Helper()
	p.Master.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p.Master, s); err != nil {
		t.Fatal(err)
	}
}

func TestLinesInOddChunksArriveCompleteAndInOrder(t *testing.T) {
	leak.Check(t)
	const lines = 20_000
	p, f := plug(t), newFeed(100)
	c := config(p.Slave)
	c.Decode = decode.Config{Kind: decode.KindCSV, Fields: []string{"n", "half"}, Separator: ","}
	a, stop := start(t, c, f)
	receive(t, f.online)

	wrote := make(chan error, 1)
	go func() { wrote <- writeLines(p, lines) }()
	began := time.Now()
	for n := range int64(lines) {
		if r := f.next(t); r.Name != "n" || r.Value != n {
			t.Fatalf("reading %v instead of %d", r, n)
		}
		if r := f.next(t); r.Name != "half" || r.Value != float64(n)+0.5 {
			t.Fatalf("reading %v instead of %d.5", r, n)
		}
	}
	t.Logf("%d lines in %v", lines, time.Since(began))
	if err := receive(t, wrote); err != nil {
		t.Error(err)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	want := adapters.Report{Device: p.Slave, Frames: lines, Rejected: map[string]uint64{}}
	if got := a.Report(); !reflect.DeepEqual(got, want) {
		t.Errorf("report %+v, want %+v", got, want)
	}
}

// writeLines writes "0,0.5" and so on with different line ends, in chunks of 1 to
// 700 bytes.
func writeLines(p *pty.Pair, lines int) error {
	var all bytes.Buffer
	for n := range lines {
		fmt.Fprintf(&all, "%d,%d.5%s", n, n, []string{"\n", "\r\n", "\r"}[n%3])
	}
	p.Master.SetWriteDeadline(time.Now().Add(patience))
	for size := 1; all.Len() > 0; size = size*7%701 + 1 {
		if _, err := p.Master.Write(all.Next(size)); err != nil {
			return err
		}
	}
	return nil
}

func TestTheFirstFrameIsDroppedIfItWasUnderWay(t *testing.T) {
	p, f := plug(t), newFeed(10)
	write(t, p, "1.4\n121.5\n") // the end of 121.4, then a whole line
	a, _ := start(t, config(p.Slave), f)
	if r := f.next(t); r.Value != 121.5 {
		t.Errorf("the first reading is %v, want 121.5", r.Value)
	}
	if got, want := a.Report().Rejected, map[string]uint64{ReasonCut: 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("rejected %v, want %v", got, want)
	}
}

func TestTheFirstFrameIsKeptIfItBeganAfterOpening(t *testing.T) {
	p, f := plug(t), newFeed(10)
	a, _ := start(t, config(p.Slave), f)
	receive(t, f.online)
	write(t, p, "121.4\n")
	if r := f.next(t); r.Value != 121.4 || a.Report().Rejected["cut"] != 0 {
		t.Errorf("the first reading is %v, want 121.4; report %+v", r.Value, a.Report())
	}
}

// Noise is refused and counted, a line that never ends keeps no memory, and the
// next good line is heard.
func TestNoise(t *testing.T) {
	leak.Check(t)
	const marker = int64(424242)
	p, f := plug(t), newFeed(10)
	c := config(p.Slave)
	c.Decode = decode.Config{Kind: decode.KindKeyValue, Separator: ";", Assign: "=="}
	a, _ := start(t, c, f)
	receive(t, f.online)
	random := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(random)
	noise := string(random) + "\n" + strings.Repeat("x", 1<<20) + "\nmarker==424242\n"
	before := heap()

	write(t, p, noise)
	for f.next(t).Value != marker { // a few lines of noise may be lawful by chance
	}
	if grown := heap() - before; grown > 256<<10 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	r := a.Report()
	if r.Rejected[decode.ReasonNotText] < 1000 || r.Rejected[ReasonTooLong] != 1 || r.Frames > 20 {
		t.Errorf("report %+v", r)
	}
	runtime.KeepAlive(noise)
}

// heap is what is in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestStopIsQuick(t *testing.T) {
	leak.Check(t)
	for name, prepare := range map[string]func(t *testing.T, p *pty.Pair, f *feed){
		"on a quiet line":              func(t *testing.T, p *pty.Pair, f *feed) { receive(t, f.online) },
		"in the middle of a line":      func(t *testing.T, p *pty.Pair, f *feed) { receive(t, f.online); write(t, p, "12") },
		"while the gateway holds back": func(t *testing.T, p *pty.Pair, f *feed) { receive(t, f.online); write(t, p, "1\n2\n3\n") },
		"at once":                      func(*testing.T, *pty.Pair, *feed) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, f := plug(t), newFeed(0) // which takes nothing
			_, stop := start(t, config(p.Slave), f)
			prepare(t, p, f)
			began := time.Now()
			if err := stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("Run ended with %v", err)
			}
			if took := time.Since(began); took > 5*time.Second { // 0.2s, if the machine has nothing else to do
				t.Errorf("stopping took %v", took)
			}
		})
	}
}

func link(t *testing.T, p *pty.Pair, name string) {
	t.Helper()
	if err := os.Symlink(p.Slave, name); err != nil {
		t.Fatal(err)
	}
}

func unlink(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func TestARunEndsWhenTheDeviceIsGone(t *testing.T) {
	leak.Check(t)
	for name, pull := range map[string]func(t *testing.T, p *pty.Pair, link string){
		"the line hangs up":   func(t *testing.T, p *pty.Pair, _ string) { p.Close() },
		"the node disappears": func(t *testing.T, _ *pty.Pair, name string) { unlink(t, name) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, f := plug(t), newFeed(1)
			device := filepath.Join(t.TempDir(), "sensor")
			link(t, p, device)
			c := config(device)
			a, err := c.Open(slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- a.Run(t.Context(), f) }()
			receive(t, f.online)
			pull(t, p, device)
			err = receive(t, ended)
			gone, ok := errors.AsType[*DeviceError](err)
			if !ok || gone.Device != device || !errors.Is(err, ErrGone) {
				t.Errorf("Run ended with %#v", err)
			}
		})
	}
}

// A driver that says "end of file" at once, for ever, is noticed by the third
// time, and the reads before do not spin.
func TestQuickEndsOfFileMeanGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a read that is not held up takes no time there
		p := plug(t)
		c := config(p.Slave)
		port, err := openPort(&c)
		if err != nil {
			t.Fatal(err)
		}
		defer port.Close()
		port.(*tty).name = t.TempDir() // something that stays
		p.Close()
		buf := make([]byte, 10)
		began := time.Now()
		for i := 1; i < quickReads; i++ {
			if n, err := port.Read(buf); n != 0 || err != nil {
				t.Fatalf("read %d: %d, %v", i, n, err)
			}
		}
		if took := time.Since(began); took < (quickReads-1)*quickPause {
			t.Errorf("the reads took %v: they spin", took)
		}
		if _, err := port.Read(buf); !errors.Is(err, ErrGone) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read %d: %v", quickReads, err)
		}
	})
}

func TestAQuietLineIsNoFault(t *testing.T) {
	p := plug(t)
	c := config(p.Slave)
	port, err := openPort(&c)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	buf := make([]byte, 10)
	for range quickReads + 1 {
		if n, err := port.Read(buf); n != 0 || err != nil {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	}
	write(t, p, "x")
	if n, err := port.Read(buf); n != 1 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestADeviceThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]string{
		filepath.Join(dir, "ttyUSB7"): "no such device " + filepath.Join(dir, "ttyUSB7") + ": is it plugged in? `tidegate devices` lists what is there",
		file:                          file + " is no serial port: `tidegate devices` lists those that are there",
		dir:                           dir + " is no serial port: `tidegate devices` lists those that are there",
	} {
		f := newFeed(1)
		c := config(device)
		opened, err := c.Open(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		err = opened.Run(t.Context(), f)
		if _, ok := errors.AsType[*DeviceError](err); !ok || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		select {
		case <-f.online:
			t.Errorf("%s was said to be online", device)
		default:
		}
	}
}
