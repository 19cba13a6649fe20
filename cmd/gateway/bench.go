package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"tidegate/internal/load"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// BenchCmd measures a broker of this machine.
type BenchCmd struct {
	outputFlag `embed:""`

	Scenario string         `arg:"" help:"p2p, fanout, fanin, wildcard, retained, conns or offline."`
	Addr     string         `default:"127.0.0.1:1883" placeholder:"HOST:PORT" help:"Broker, at a loopback address."`
	Version  packet.Version `name:"v" short:"v" default:"4" placeholder:"4|5" help:"MQTT 3.1.1 (4) or 5."`
	QoS      mqtt.QoS       `name:"qos" short:"q" default:"1" placeholder:"0|1|2" help:"Quality of service (default 1)."`
	Size     int            `short:"s" default:"128" placeholder:"BYTES" help:"Of a payload (default 128)."`

	N       int     `name:"n" short:"n" default:"10" placeholder:"N" help:"Clients of each kind, or retained topics (default 10)."`
	Count   int     `default:"100000" placeholder:"N" help:"Messages, over all publishers (default 100000)."`
	Rate    float64 `placeholder:"N" help:"Messages a second, over all publishers (default: no limit)."`
	Window  int     `default:"100" placeholder:"N" help:"Unacknowledged messages of a publisher (default 100)."`
	E2E     int     `name:"e2e" placeholder:"N" help:"Outstanding deliveries of a publisher (default: no limit)."`
	Pubs    int     `default:"4" placeholder:"N" help:"Publishers of wildcard (default 4)."`
	Filters int     `default:"1000" placeholder:"N" help:"Subscriptions of wildcard (default 1000)."`
	Stall   bool    `help:"Subscribers stop reading until all is published."`

	Time    time.Duration `default:"15s" placeholder:"TIME" help:"Limit of the publishing (default 15s)."`
	Drain   time.Duration `default:"3s" placeholder:"TIME" help:"Lost is what has not come after so long without a delivery (default 3s)."`
	Timeout time.Duration `default:"15s" placeholder:"TIME" help:"Limit of a connect or subscribe (default 15s)."`

	Keepalive int           `default:"60" placeholder:"SECONDS" help:"Keep alive (default 60)."`
	Hold      time.Duration `default:"10s" placeholder:"TIME" help:"How long conns holds its connections (default 10s)."`
	Sources   int           `default:"4" placeholder:"N" help:"Local addresses of conns, from 127.0.0.2 on (default 4)."`

	Kill   string        `placeholder:"KILL|TERM" help:"offline: end the broker by a signal once all is published, and start it again."`
	Settle time.Duration `placeholder:"TIME" help:"offline: wait so long before that."`

	PID       int    `name:"pid" placeholder:"N" help:"Process to measure."`
	BrokerCmd string `placeholder:"COMMAND" help:"Starts the broker in the foreground for the run."`
	BrokerLog string `placeholder:"FILE" help:"For what that broker prints."`
	Procs     int    `default:"1" placeholder:"N" help:"Threads of the load itself (default 1)."`
}

// Help is shown by --help.
func (BenchCmd) Help() string {
	return `Puts a load on an MQTT broker of this machine, and prints what came of it and, if it
knows the broker's process (--pid or --broker-cmd), what it cost. Every run ends by
itself, and leaves neither sessions nor retained messages behind.

    p2p       N publishers, each to a subscriber of its own
    fanout    one publisher to N subscribers
    fanin     N publishers to one subscriber
    wildcard  --pubs publishers, --filters filters over N subscribers
    retained  N retained topics, then one subscriber that takes them all
    conns     N idle connections with a subscription each
    offline   messages for an absent durable session, which then drains them

Without --e2e, publishers send as fast as the broker takes messages, and it may drop
what its subscribers do not read in time.

Examples:

    tidegate bench p2p --rate 1000 --count 5000 --pid "$(pidof mosquitto)"
    tidegate bench fanin --n 100 --e2e 50 --broker-cmd "tidegate run --config bench.yaml"
    tidegate bench offline --count 20000 --kill KILL --broker-cmd "mosquitto -c durable.conf"`
}

// maxProcs is how many threads the load may use.
const maxProcs = 64

// Run prints the report, also that of a run that went wrong.
func (c *BenchCmd) Run(ctx context.Context, std stdio) error {
	o := c.options()
	if err := o.Check(); err != nil {
		return &usageError{"bench", err}
	}
	if c.Procs < 1 || c.Procs > maxProcs {
		return &usageError{"bench", fmt.Errorf("procs is %d: it takes 1 to %d", c.Procs, maxProcs)}
	}
	// One thread leaves the other processors to the broker, and collecting less
	// often keeps our own work out of the latencies.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.Procs))
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	r, err := load.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := c.print(std, r); err != nil {
		return err
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	return nil
}

func (c *BenchCmd) options() load.Options {
	return load.Options{
		Scenario: c.Scenario, Addr: c.Addr, Version: c.Version, QoS: c.QoS, Size: c.Size,
		N: c.N, Pubs: c.Pubs, Filters: c.Filters, Count: c.Count,
		Rate: c.Rate, Window: c.Window, E2E: c.E2E, Stall: c.Stall,
		Time: c.Time, Drain: c.Drain, Timeout: c.Timeout,
		KeepAlive: c.Keepalive, Hold: c.Hold, Sources: c.Sources,
		Kill: c.Kill, Settle: c.Settle,
		PID: c.PID, BrokerCmd: c.BrokerCmd, BrokerLog: c.BrokerLog,
	}
}

// print writes the report on one line, so that many of them make a file of lines.
func (c *BenchCmd) print(std stdio, r *load.Report) error {
	if c.Output == "json" {
		return json.NewEncoder(std.Out).Encode(r)
	}
	_, err := fmt.Fprintln(std.Out, r)
	return err
}
