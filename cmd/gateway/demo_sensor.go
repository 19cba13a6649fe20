package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/internal/pty"
)

// sensorPeriod is how often the demo's sensor sends a line.
const sensorPeriod = 100 * time.Millisecond

// sensor plays a weather sensor on a serial line: temperature, humidity and the
// number of the line.
type sensor struct {
	pair  *pty.Pair
	sent  atomic.Int64
	quit  chan struct{}
	quits sync.Once
}

func newSensor() (*sensor, error) {
	pair, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("play a serial sensor: %w", err)
	}
	return &sensor{pair: pair, quit: make(chan struct{})}, nil
}

// run sends lines until ctx is done or stop is called.
func (s *sensor) run(ctx context.Context) error {
	tick := time.NewTicker(sensorPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.send(); err != nil {
				return fmt.Errorf("play a serial sensor: %w", err)
			}
		case <-s.quit:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *sensor) send() error {
	n := s.sent.Load() + 1
	temperature := 21 + 2*math.Sin(float64(n)/40)
	humidity := 45 + 5*math.Cos(float64(n)/60)
	if err := s.pair.Master.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.pair.Master, "%.0f,%.0f,%d\r\n", 10*temperature, humidity, n)
	if err == nil || os.IsTimeout(err) { // nobody reads: as on a real line, the bytes are gone
		s.sent.Store(n)
		return nil
	}
	return err
}

func (s *sensor) stop() { s.quits.Do(func() { close(s.quit) }) }
