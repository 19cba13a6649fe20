package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"tidegate/adapters"
	"tidegate/admin"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/clock"
	"tidegate/mqtt"
	"tidegate/store"
)

// gateway is all rooms wired together.
type gateway struct {
	cfg         *Config
	log         *slog.Logger
	started     time.Time
	store       *store.Store
	broker      *broker.Broker
	clock       *clock.Clock
	bridges     []*bridge.Bridge
	supervisors []*adapters.Supervisor
	admin       *admin.Server
	control     *admin.Control // nil once its socket could not be opened
}

// newGateway opens the store and makes the rooms. It starts nothing; close has
// to be called.
func newGateway(cfg *Config, log *slog.Logger) (*gateway, error) {
	debug.SetMemoryLimit(int64(cfg.Gateway.MemoryLimit) / 16 * 13) // the rest is for what the runtime does not count: the program itself, and mapped files
	shareProcessor(log)
	g := &gateway{cfg: cfg, log: log, started: time.Now()}
	st, err := store.Open(filepath.Clean(cfg.Gateway.DataDir), store.Options{
		SegmentSize: cfg.Store.SegmentSize, CompactInterval: time.Duration(cfg.Store.CompactInterval), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("data_dir %s: %w", cfg.Gateway.DataDir, err)
	}
	g.store = st
	if err := g.make(); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return g, nil
}

func (g *gateway) make() (err error) {
	o := broker.Options{
		Store:          g.store,
		Log:            g.log,
		Version:        thisBuild().Version,
		CommitInterval: g.cfg.Store.CommitInterval,
		OnlineDelay:    g.cfg.Store.OnlineDelay,
		MaxStoreSize:   g.cfg.Store.MaxSize,
		MinFree:        g.cfg.Store.MinFree,
		FlashBudget:    g.cfg.Store.FlashBudget,
		MemoryLimit:    g.cfg.Gateway.MemoryLimit,
	}
	events := new(admin.Events)
	o.Hooks.Event = events
	circle := bridge.NewCircle()
	if g.clock, err = clock.Open(g.cfg.Gateway.DataDir); err != nil {
		g.log.Warn("the clock's state", "error", err)
	}
	g.clock.Raise(thisBuild().time)
	o.Line = g.clock.Now
	if len(g.cfg.Bridges) > 0 {
		o.Circle = circle
	}
	if g.broker, err = broker.New(g.cfg.Broker, o); err != nil {
		return err
	}
	for _, c := range g.cfg.Bridges {
		b, err := bridge.New(c, g.cfg.Gateway.Name, g.broker, g.log)
		if err != nil {
			return err
		}
		b.UseClock(g.clock)
		b.UseObserver(events.OnBridge)
		g.bridges = append(g.bridges, b)
	}
	bridge.Join(circle, g.bridges...)
	g.unclaim()
	for _, c := range g.cfg.Adapters {
		a, err := c.Open(g.log.With("adapter", c.Common().Name))
		if err != nil {
			return fmt.Errorf("adapter %q: %w", c.Common().Name, err)
		}
		s := adapters.NewSupervisor(c.Common(), a, g.broker, g.log)
		s.UseClock(g.clock)
		s.UseObserver(events.OnAdapter)
		g.supervisors = append(g.supervisors, s)
	}
	src := admin.Sources{
		Name: g.cfg.Gateway.Name, Version: thisBuild().Version, Started: g.started,
		Broker: g.broker, Bridges: g.bridges, Adapters: g.supervisors, Store: g.store, Clock: g.clock, Events: events,
	}
	g.admin = admin.New(g.cfg.Admin.Listen, src, g.log)
	g.control = admin.NewControl(g.cfg.Gateway.DataDir, src, g.log)
	return nil
}

// unclaim has the queues of bridges that are not configured any more collect nothing
// more. What they have stays: it may be a mistake.
func (g *gateway) unclaim() {
	for _, q := range g.broker.Unclaim(func(name string) bool { return bridge.Abandoned(name, g.bridges...) }) {
		g.log.Warn("no bridge of this name is configured; its queue collects nothing more and keeps what it has, until a bridge has the name again or queue purge removes it; queue export copies it",
			"queue", q.ID, "messages", q.Queued)
	}
}

func (g *gateway) close() error { return g.store.Close() }

// listen opens all listeners and returns their addresses.
func (g *gateway) listen() ([]string, error) {
	if err := g.broker.Listen(); err != nil {
		return nil, err
	}
	if err := g.admin.Listen(); err != nil {
		return nil, err
	}
	if err := g.control.Listen(); err != nil { // some file systems have no sockets, and messages do not need it
		g.log.Warn("the commands queue, backup and bridge requeue cannot reach this gateway", "error", err)
		g.control = nil
	}
	return append(g.broker.URLs(), g.page()), nil
}

// page returns the address of the page.
func (g *gateway) page() string { return "http://" + g.admin.Addr().String() + "/" }

// mqttAddr returns the address of the first listener.
func (g *gateway) mqttAddr() net.Addr { return g.broker.Addrs()[0] }

// run starts everything, calls ready, and runs until ctx is done or a room
// fails. The rooms end in the order in which messages flow, so that each finds
// the next one still there.
func (g *gateway) run(ctx context.Context, ready func()) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	failed := func(room string, err error) {
		if err != nil {
			fail(fmt.Errorf("%s: %w", room, err))
		}
	}
	core := newRoom()
	core.run(func(ctx context.Context) { g.store.Run(ctx, g.broker.StillOwed) })
	core.run(func(ctx context.Context) { failed("broker", g.broker.Serve(ctx)) })
	core.run(func(ctx context.Context) {
		if err := g.clock.Run(ctx); err != nil {
			g.log.Warn("the time could not be saved", "error", err)
		}
	})
	core.run(func(ctx context.Context) { failed("admin", g.admin.Serve(ctx)) })
	if g.control != nil {
		core.run(func(ctx context.Context) { failed("control", g.control.Serve(ctx)) })
	}
	defer core.stop()
	uplinks := newRoom()
	defer uplinks.stop()
	for _, b := range g.bridges {
		if err := b.Declare(ctx); err != nil {
			return err
		}
		uplinks.run(func(ctx context.Context) { failed("bridge", b.Run(ctx)) })
	}
	defer g.announce("offline")
	sensors := newRoom()
	defer sensors.stop()
	for _, s := range g.supervisors {
		sensors.run(s.Run)
	}
	ticker := time.NewTicker(lossInterval)
	defer ticker.Stop()
	sensors.run(func(ctx context.Context) { g.reportLosses(ctx, ticker.C) })
	g.announce("online")
	ready()
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// announce publishes the retained status of the gateway.
func (g *gateway) announce(state string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	topic := "gateway/" + g.cfg.Gateway.Name + "/status"
	err := g.broker.PublishAsync(ctx, mqtt.Message{Topic: topic, Payload: []byte(state), QoS: mqtt.AtLeastOnce, Retain: true}, nil)
	if err != nil {
		g.log.Warn("cannot publish the gateway's status", "state", state, "error", err)
	}
}

// room is a group of goroutines that is ended as one.
type room struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newRoom() *room {
	ctx, cancel := context.WithCancel(context.Background())
	return &room{ctx: ctx, cancel: cancel}
}

func (r *room) run(fn func(context.Context)) { r.wg.Go(func() { fn(r.ctx) }) }

// stop ends the group and waits for it.
func (r *room) stop() {
	r.cancel()
	r.wg.Wait()
}
