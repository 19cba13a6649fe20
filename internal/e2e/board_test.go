//go:build linux

package e2e

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/adapters"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/balance"
	"tidegate/internal/clock"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// board is a machine without a battery-backed clock, with the gateway's rooms on
// it, in virtual time. It can be switched off and on.
type board struct {
	t      *testing.T
	dir    string
	uplink *shore
	log    bytes.Buffer

	store  *store.Store
	broker *broker.Broker

	endSensors, endCore context.CancelFunc
	sensors, core       sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	wall   time.Time  // what its clock says at the virtual time set
	set    time.Time
	synced bool // it knows to be right
}

// beginning is what the clock of the board says when it is switched on.
var beginning = time.Unix(0, 0)

// boot switches the board on: adapter, broker, bridge, clock and store run.
func (b *board) boot(cfg bridge.Config, sensor adapters.Adapter) {
	b.t.Helper()
	b.setClock(beginning, false)
	log := slog.New(slog.NewTextHandler(&b.log, nil))
	st, err := store.Open(b.dir, store.Options{Log: log})
	b.must(err)
	time, err := clock.OpenTest(b.t, b.dir, b.now, b.isSynced)
	b.must(err)
	var c broker.Config
	c.SetDefaults()
	br, err := broker.New(c, broker.Options{Store: st, Log: log, Line: time.Now})
	b.must(err)
	up, err := bridge.New(cfg, "board", br, log)
	b.must(err)
	up.UseDialer(b.uplink.dial)
	up.UseClock(time)
	entry := adapters.Config{Name: "probe", Kind: "test"}
	entry.SetDefaults()
	probe := adapters.NewSupervisor(&entry, sensor, br, log)
	probe.UseClock(time)
	b.store, b.broker = st, br

	ctx, cancel := context.WithCancel(context.Background())
	b.endCore = cancel
	b.core.Go(func() { st.Run(ctx, br.StillOwed) })
	b.core.Go(func() {
		b.must(br.Serve(ctx))
		balance.Check(b.t, br)
	})
	b.core.Go(func() { b.must(time.Run(ctx)) })
	b.must(up.Declare(ctx))
	sensing, cancel := context.WithCancel(context.Background())
	b.endSensors = cancel
	b.sensors.Go(func() { b.must(up.Run(sensing)) })
	b.sensors.Go(func() { probe.Run(sensing) })
}

func (b *board) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Error(err)
	}
}

// now is what the board's clock says.
func (b *board) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wall.Add(time.Since(b.set))
}

// setClock sets the board's clock; synced tells whether it is known to be right.
func (b *board) setClock(to time.Time, synced bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wall, b.set, b.synced = to, time.Now(), synced
}

func (b *board) isSynced() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.synced
}

// stop switches the board off in an orderly way.
func (b *board) stop() {
	b.t.Helper()
	b.endSensors()
	b.sensors.Wait()
	b.endCore()
	b.core.Wait()
	b.must(b.store.Close())
}

// cut takes the power away: what is on disk at this moment is what the next boot
// finds.
func (b *board) cut() {
	b.t.Helper()
	synctest.Wait() // no write is under way
	left := b.t.TempDir()
	if err := os.CopyFS(left, os.DirFS(b.dir)); err != nil {
		b.t.Fatal(err)
	}
	b.stop()
	b.dir = left
}

// shore is the other end of the uplink, which can be away for a month. Its server
// takes what comes.
type shore struct {
	t     *testing.T
	dials []time.Time

	mu   sync.Mutex // guards the fields below
	open bool
	got  []landed
}

// landed is a message that has arrived upstream.
type landed struct {
	bridge.Envelope
	topic   string
	payload []byte
	expiry  time.Duration // what is left of it
}

func (s *shore) dial(context.Context, string, string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials = append(s.dials, time.Now())
	if !s.open {
		return nil, syscall.ENETUNREACH
	}
	here, there := net.Pipe()
	go s.serve(there)
	return here, nil
}

func (s *shore) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
}

func (s *shore) serve(conn net.Conn) {
	defer conn.Close()
	r := packet.NewReader(conn, packet.MaxSize)
	for {
		f, err := r.Next()
		if err != nil {
			return
		}
		var answer []byte
		switch f.Type() {
		case packet.TypeConnect:
			var c packet.Connect
			if err := c.Decode(f); err != nil {
				s.t.Errorf("CONNECT: %v", err)
			}
			r.Version = c.Version
			ok := packet.Connack{Version: c.Version}
			answer = ok.Append(nil)
		case packet.TypePublish:
			if id := s.take(f); id > 0 {
				ack := packet.Ack{Type: packet.TypePuback, ID: id}
				answer = ack.Append(nil)
			}
		case packet.TypePingreq:
			answer = packet.Pingresp{}.Append(nil)
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// take keeps a message, unless it is what the bridge says about itself, and returns
// its packet identifier, if any.
func (s *shore) take(f packet.Frame) (id uint16) {
	var p packet.Publish
	if err := p.Decode(f); err != nil {
		s.t.Errorf("PUBLISH: %v", err)
	}
	if string(p.Topic) == "gateway/board/status" {
		return p.ID
	}
	m := mqtt.Message{Topic: string(p.Topic), Payload: bytes.Clone(p.Payload), Properties: &mqtt.Properties{}}
	for name, value := range p.Properties.User() {
		m.Properties.User = append(m.Properties.User, mqtt.UserProperty{Name: name, Value: value})
	}
	e, identified := bridge.EnvelopeOf(m)
	if !identified {
		s.t.Errorf("%s has no envelope", m.Topic)
	}
	if e.Payload != nil {
		m.Payload = e.Payload
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, landed{
		Envelope: e, topic: m.Topic, payload: m.Payload,
		expiry: time.Duration(p.Properties.UintOr(packet.PropMessageExpiry, 0)) * time.Second,
	})
	return p.ID
}

// hourly is a sensor that measures some times an hour, at half past, and knows
// when it really was.
type hourly struct {
	each  int
	mu    sync.Mutex
	times []time.Time // of each reading, by its number
}

func (h *hourly) Run(ctx context.Context, out adapters.Sink) error {
	next := time.Now().Truncate(time.Hour).Add(30 * time.Minute)
	for {
		hold := time.NewTimer(time.Until(next))
		select {
		case <-hold.C:
		case <-ctx.Done():
			hold.Stop()
			return nil
		}
		if err := out.Emit(ctx, h.measure()...); err != nil {
			return err
		}
		next = next.Add(time.Hour)
	}
}

func (h *hourly) measure() (list []adapters.Reading) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range h.each {
		list = append(list, adapters.Reading{Name: "n", Value: len(h.times)})
		h.times = append(h.times, time.Now())
	}
	return list
}

// count returns how many readings there were.
func (h *hourly) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.times)
}
