package adapters_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"tidegate/adapters"
	"tidegate/mqtt"
)

// thermometer is an adapter in twenty lines: it opens its device, says that it
// is there, and emits a reading now and then until it is told to stop.
type thermometer struct{ every time.Duration }

func (t thermometer) Run(ctx context.Context, out adapters.Sink) error {
	if err := out.Emit(ctx); err != nil { // the device is open
		return err
	}
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case at := <-tick.C:
			r := adapters.Reading{Name: "temperature", Value: 214, At: at}
			if err := out.Emit(ctx, r); err != nil {
				return err
			}
		}
	}
}

// printer stands for the broker.
type printer struct{ stop context.CancelFunc }

func (p printer) Publish(ctx context.Context, m mqtt.Message) error {
	return p.PublishAsync(ctx, m, nil)
}

func (p printer) PublishAsync(_ context.Context, m mqtt.Message, _ func(error)) error {
	fmt.Printf("%s %s\n", m.Topic, m.Payload)
	if !m.Retain {
		p.stop() // the example has seen enough
	}
	return nil
}

func ExampleAdapter() {
	config := adapters.Config{
		Name:    "cellar",
		Payload: adapters.PayloadValue,
		Fields:  map[string]adapters.Field{"temperature": {Unit: "°C", Scale: new(0.1)}},
	}
	config.SetDefaults()

	ctx, stop := context.WithCancel(context.Background())
	adapter := thermometer{every: time.Millisecond}
	adapters.NewSupervisor(&config, adapter, printer{stop}, slog.New(slog.DiscardHandler)).Run(ctx)
	// Output:
	// sensor/cellar/status offline
	// sensor/cellar/status online
	// sensor/cellar/temperature 21.4
	// sensor/cellar/status offline
}
