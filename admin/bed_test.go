package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tidegate/adapters"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/balance"
	"tidegate/internal/client"
	"tidegate/internal/clock"
	"tidegate/internal/leak"
	"tidegate/mqtt"
	"tidegate/store"
)

var quiet = slog.New(slog.DiscardHandler)

// patience is how long a test waits for something that has to happen.
const patience = time.Minute

// bed is a server on a real broker and store in a temporary folder.
type bed struct {
	t     *testing.T
	src   Sources
	admin *Server
	http  http.Client
	stop  func() // ends the server; may be called again
}

// newBed starts broker and server; change, if not nil, changes the sources.
func newBed(t *testing.T, change func(*Sources)) *bed {
	t.Helper()
	leak.Check(t)
	d := &bed{t: t, http: http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}}
	d.src = Sources{Name: "pump-house", Version: "1.2.3", Started: time.Now(), Clock: clock.New(), Events: new(Events)}
	d.src.Broker, d.src.Store = startBroker(t)
	if change != nil {
		change(&d.src)
	}
	d.admin = New("127.0.0.1:0", d.src, quiet)
	if err := d.admin.Listen(); err != nil {
		t.Fatal(err)
	}
	d.stop = running(t, d.admin.Serve)
	return d
}

// running runs serve until the test ends, or until stop is called, which waits.
func running(t *testing.T, serve func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func startBroker(t *testing.T) (*broker.Broker, *store.Store) {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	cfg := broker.Config{Listeners: []broker.Listener{{Address: "tcp://127.0.0.1:0"}}}
	cfg.SetDefaults()
	b, err := broker.New(cfg, broker.Options{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	running(t, func(ctx context.Context) error {
		if err := b.Serve(ctx); err == nil { // fails if the test breaks the store
			balance.Check(t, b)
		}
		return nil
	})
	return b, st
}

// startBridge carries sensor/# from one broker to the other.
func startBridge(t *testing.T, from *broker.Broker, to string) *bridge.Bridge {
	t.Helper()
	cfg := bridge.Config{Name: "cloud", Servers: []string{"tcp://" + to}, Out: []bridge.Rule{{Topics: []string{"sensor/#"}}}}
	b, err := bridge.New(cfg, "pump-house", from, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	running(t, b.Run)
	return b
}

// thermometer emits one reading and stays online.
type thermometer struct{}

func (thermometer) Run(ctx context.Context, out adapters.Sink) error {
	if err := out.Emit(ctx, adapters.Reading{Name: "temperature", Value: 21.4, Unit: "°C"}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (thermometer) Report() adapters.Report {
	return adapters.Report{Device: "/dev/ttyS9", Frames: 7, Rejected: map[string]uint64{"checksum": 2}}
}

func startAdapter(t *testing.T, to mqtt.Publisher, on *Events) *adapters.Supervisor {
	t.Helper()
	cfg := &adapters.Config{Name: "weather", Kind: "test"}
	cfg.SetDefaults()
	s := adapters.NewSupervisor(cfg, thermometer{}, to, quiet)
	s.UseObserver(on.OnAdapter)
	running(t, func(ctx context.Context) error {
		s.Run(ctx)
		return nil
	})
	return s
}

// do sends a request and returns the answer with its body.
func (d *bed) do(method, path string, change func(*http.Request)) (*http.Response, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+d.admin.Addr().String()+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp, string(body)
}

// get returns code and body.
func (d *bed) get(path string) (int, string) {
	d.t.Helper()
	resp, body := d.do(http.MethodGet, path, nil)
	return resp.StatusCode, body
}

// status asks over HTTP.
func (d *bed) status() (st Status) {
	d.t.Helper()
	code, body := d.get("/api/v1/status")
	if err := json.Unmarshal([]byte(body), &st); err != nil || code != http.StatusOK {
		d.t.Fatalf("status answers %d, %v:\n%s", code, err, body)
	}
	return st
}

// eventually asks until ok, since nothing tells when a counter rises.
func (d *bed) eventually(what string, ok func(Status) bool) Status {
	d.t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		st := d.status()
		if ok(st) {
			return st
		}
		select {
		case <-tick.C:
		case <-deadline:
			d.t.Fatalf("still not %s: %+v", what, st)
		}
	}
}

// dial connects an MQTT client.
func (d *bed) dial(id string, clean bool) *client.Conn {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	c, err := client.Dial(ctx, d.src.Broker.Addrs()[0].String(), client.Options{ClientID: id, CleanSession: clean})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}
