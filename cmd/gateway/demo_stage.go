package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tidegate/adapters"
	"tidegate/adapters/decode"
	"tidegate/adapters/serial"
	"tidegate/bridge"
	"tidegate/internal/client"
	"tidegate/internal/proxy"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// stage is everything that the demo needs: a sensor, the gateway, an uplink that
// can fail, and a second gateway that plays the cloud with one subscriber.
type stage struct {
	sensor  *sensor
	gateway *gateway
	uplink  *proxy.Proxy
	cloud   *gateway
	shown   *arrivals // to a subscriber of the gateway
	arrived *arrivals // to a subscriber of the cloud
	down    bool      // the uplink is, on purpose
}

// newStage makes everything and opens what has to be open before the story
// starts. Warnings of the gateway go to log.
func newStage(dir string, log io.Writer) (s *stage, err error) {
	s = &stage{shown: newArrivals(), arrived: newArrivals()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	errorsOnly := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError}))
	if s.sensor, err = newSensor(); err != nil {
		return nil, err
	}
	if s.cloud, err = newGateway(cloudConfig(dir), errorsOnly); err != nil {
		return nil, err
	}
	if _, err = s.cloud.listen(); err != nil {
		return nil, err
	}
	if s.uplink, err = proxy.Listen(s.cloud.mqttAddr().String()); err != nil {
		return nil, err
	}
	if s.gateway, err = newGateway(s.gatewayConfig(dir), errorsOnly); err != nil {
		return nil, err
	}
	_, err = s.gateway.listen()
	return s, err
}

func cloudConfig(dir string) *Config {
	c := Default()
	c.Gateway.Name, c.Gateway.DataDir = "cloud", filepath.Join(dir, "cloud")
	c.Broker.Listeners[0].Address = "tcp://127.0.0.1:0"
	c.Admin.Listen = "127.0.0.1:0"
	return c
}

func (s *stage) gatewayConfig(dir string) *Config {
	c := Default()
	c.Gateway.Name, c.Gateway.DataDir = "demo", filepath.Join(dir, "gateway")
	c.Broker.Listeners[0].Address = free("tcp://127.0.0.1:1883", "tcp://127.0.0.1:0")
	c.Admin.Listen = strings.TrimPrefix(free("tcp://"+c.Admin.Listen, "tcp://127.0.0.1:0"), "tcp://")
	tenth := 0.1
	c.Adapters = []adapters.Entry{&serial.Config{
		Config: adapters.Config{Name: "weather", Fields: map[string]adapters.Field{
			"temperature": {Unit: "°C", Scale: &tenth}, "humidity": {Unit: "%"},
		}},
		Device: s.sensor.pair.Slave,
		Baud:   115200,
		Decode: decode.Config{Kind: decode.KindCSV, Fields: []string{"temperature", "humidity", "number"}},
	}}
	c.Bridges = []bridge.Config{{
		Name: "cloud", Servers: []string{"tcp://" + s.uplink.Addr()},
		Backoff: bridge.Backoff{Min: units.Duration(200 * time.Millisecond), Max: units.Duration(time.Second)},
		Out:     []bridge.Rule{{Topics: []string{"sensor/#"}, Prefix: "site/demo/"}},
	}}
	c.SetDefaults()
	return c
}

// free returns address if nobody listens there, else other.
func free(address, other string) string {
	ln, err := net.Listen("tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		return other
	}
	ln.Close()
	return address
}

// start runs everything until ctx is done; what fails calls fail. The result is
// closed when everything has ended.
func (s *stage) start(ctx context.Context, fail context.CancelCauseFunc) (ended <-chan struct{}) {
	var wg sync.WaitGroup
	run := func(what string, fn func() error) {
		wg.Go(func() {
			if err := fn(); err != nil {
				fail(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	run("cloud", func() error { return s.cloud.run(ctx, func() {}) })
	run("uplink", func() error { return s.uplink.Run(ctx) })
	run("cloud subscriber", func() error { return s.arrived.collect(ctx, s.cloud, "site/#") })
	run("gateway", func() error { return s.gateway.run(ctx, func() {}) })
	run("local subscriber", func() error { return s.shown.collect(ctx, s.gateway, "sensor/#") })
	run("sensor", func() error {
		if !s.portOpen(ctx) {
			return nil
		}
		return s.sensor.run(ctx)
	})
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	return done
}

// portOpen waits until the adapter has the port open, so that its first line is
// a whole one. It returns false if ctx is done before.
func (s *stage) portOpen(ctx context.Context) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.gateway.supervisors[0].Status().State != adapters.Online {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// untilConnected waits until the first reading has arrived.
func (s *stage) untilConnected(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(15 * time.Second)
	for lines, _ := s.arrived.count(); lines == 0; lines, _ = s.arrived.count() {
		select {
		case <-tick.C:
		case <-late:
			return errors.New("no reading arrived in the cloud within 15 s")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *stage) uplinkDown() {
	s.down = true
	s.uplink.SetMode(proxy.Cut)
}

func (s *stage) uplinkUp() {
	s.down = false
	s.uplink.SetMode(proxy.Pass)
}

// close gives back what newStage has opened.
func (s *stage) close() error {
	var errs []error
	for _, g := range []*gateway{s.gateway, s.cloud} {
		if g != nil {
			errs = append(errs, g.close())
		}
	}
	if s.uplink != nil {
		s.uplink.Close()
	}
	if s.sensor != nil {
		errs = append(errs, s.sensor.pair.Close())
	}
	return errors.Join(errs...)
}

// numbers are what the story is told with.
type numbers struct {
	Down        bool
	Sent        int64 // lines of the sensor
	Arrived     int64 // of them in the cloud
	Queued      int64 // messages in the gateway: three per line
	Twice       int64 // messages that came again after a lost connection
	Lost        int64 // lines that are neither in the cloud nor, as far as known, on their way
	Temperature float64
	Humidity    float64
}

func (s *stage) numbers() numbers {
	n := s.shown.numbers()
	n.Arrived, n.Twice = s.arrived.count()
	n.Sent, n.Down = s.sensor.sent.Load(), s.down
	n.Queued = s.gateway.broker.Backlog("bridge/cloud")
	n.Lost = n.Sent - n.Arrived
	return n
}

// arrivals are what a subscriber has seen.
type arrivals struct {
	mu    sync.Mutex
	lines map[int64]bool // by their number
	last  numbers
}

func newArrivals() *arrivals { return &arrivals{lines: make(map[int64]bool)} }

// collect subscribes to what g publishes, until ctx is done.
func (a *arrivals) collect(ctx context.Context, g *gateway, filter string) error {
	c, err := client.Dial(ctx, g.mqttAddr().String(), client.Options{ClientID: "viewer", CleanSession: true, Handler: a.take})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Subscribe(ctx, mqtt.Subscription{Filter: filter, QoS: mqtt.AtLeastOnce}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-c.Done():
		if ctx.Err() != nil {
			return nil
		}
		return c.Err()
	}
}

func (a *arrivals) take(m client.Message) {
	var reading struct{ Value float64 }
	if json.Unmarshal(m.Payload, &reading) != nil {
		return // the adapter's status
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch m.Topic[strings.LastIndexByte(m.Topic, '/')+1:] {
	case "temperature":
		a.last.Temperature = reading.Value
	case "humidity":
		a.last.Humidity = reading.Value
	case "number":
		if a.lines[int64(reading.Value)] {
			a.last.Twice++
		}
		a.lines[int64(reading.Value)] = true
	}
}

// count returns how many lines have come, and how many have come again.
func (a *arrivals) count() (lines, twice int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(len(a.lines)), a.last.Twice
}

func (a *arrivals) numbers() numbers {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}
