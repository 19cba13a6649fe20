//go:build linux

package adapters_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/adapters"
	"tidegate/adapters/serial"
	"tidegate/internal/leak"
	"tidegate/internal/pty"
	"tidegate/mqtt"
)

// gateway is a publisher that hands the messages on through a channel.
type gateway struct{ messages chan string }

func (g gateway) Publish(ctx context.Context, m mqtt.Message) error {
	return g.PublishAsync(ctx, m, nil)
}

func (g gateway) PublishAsync(ctx context.Context, m mqtt.Message, _ func(error)) error {
	select {
	case g.messages <- m.Topic + " " + string(m.Payload):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gateway) next(t *testing.T) string {
	t.Helper()
	select {
	case m := <-g.messages:
		return m
	case <-time.After(time.Minute):
		t.Fatal("nothing was published")
		return ""
	}
}

func (g gateway) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := g.next(t); got != w {
			t.Fatalf("published %q, want %q", got, w)
		}
	}
}

// A sensor is pulled and comes back under the same name with another node behind
// it, as a USB adapter does: noticed, said once, opened again by its name.
func TestUnplugAndReplug(t *testing.T) {
	leak.Check(t)
	name := filepath.Join(t.TempDir(), "usb-sensor")
	first := plug(t, name)
	c := serial.Config{Config: adapters.Config{Name: "weather", Payload: adapters.PayloadValue}, Device: name}
	c.SetDefaults()
	opened, err := c.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer // written by Run only, read after its end
	g := gateway{make(chan string, 10)}
	s := adapters.NewSupervisor(&c.Config, opened, g, slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	g.expect(t, "sensor/weather/status offline", "sensor/weather/status online")
	write(t, first, "1\n")
	g.expect(t, "sensor/weather/value 1")

	began := time.Now()
	if err := errors.Join(os.Remove(name), first.Close()); err != nil {
		t.Fatal(err)
	}
	g.expect(t, "sensor/weather/status offline")
	t.Logf("noticed after %v", time.Since(began))
	if text := s.Status().LastError; !strings.Contains(text, name+" is gone: was it unplugged") {
		t.Errorf("last error %q", text)
	}

	second := plug(t, name)
	g.expect(t, "sensor/weather/status online")
	write(t, second, "2\n")
	g.expect(t, "sensor/weather/value 2")
	cancel()
	g.expect(t, "sensor/weather/status offline")
	<-ended
	var levels []string
	for line := range strings.Lines(log.String()) {
		levels = append(levels, strings.Fields(line)[1])
	}
	if want := []string{"level=INFO", "level=WARN", "level=INFO"}; !slices.Equal(levels, want) {
		t.Errorf("logged %q, want %q:\n%s", levels, want, &log)
	}
}

// plug opens a pty and gives it the name that udev would.
func plug(t *testing.T, name string) *pty.Pair {
	t.Helper()
	p, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := os.Symlink(p.Slave, name); err != nil {
		t.Fatal(err)
	}
	return p
}

// write plays the sensor.
func write(t *testing.T, p *pty.Pair, s string) {
	t.Helper()
	if _, err := io.WriteString(p.Master, s); err != nil {
		t.Fatal(err)
	}
}
