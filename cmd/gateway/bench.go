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
	outputFlag

	Scenario string
	Addr     string
	Version  packet.Version
	QoS      mqtt.QoS
	Size     int

	N       int
	Count   int
	Rate    float64
	Window  int
	E2E     int
	Pubs    int
	Filters int
	Stall   bool

	Time    time.Duration
	Drain   time.Duration
	Timeout time.Duration

	Keepalive int
	Hold      time.Duration
	Sources   int

	Kill   string
	Settle time.Duration

	PID       int
	BrokerCmd string
	BrokerLog string
	Procs     int
}

func (c *BenchCmd) define(p *params) {
	c.outputFlag.define(p)
	p.arg(&c.Scenario, "SCENARIO", "p2p, fanout, fanin, wildcard, retained, conns or offline.")
	c.defineBroker(p)
	c.defineLoad(p)
	c.defineLimits(p)
}

func (c *BenchCmd) defineBroker(p *params) {
	p.StringVar(&c.Addr, "addr", "127.0.0.1:1883", "`HOST:PORT` of the broker, which is of this machine.")
	p.IntVar(&c.PID, "pid", 0, "`NUMBER` of the process to measure.")
	p.StringVar(&c.BrokerCmd, "broker-cmd", "", "Start the broker in the foreground for the run, with this `COMMAND`.")
	p.StringVar(&c.BrokerLog, "broker-log", "", "`FILE` for what that broker prints.")
	p.StringVar(&c.Kill, "kill", "", "offline: end the broker by the signal `KILL|TERM` once all is published, and start it again.")
	p.DurationVar(&c.Settle, "settle", 0, "offline: wait this `TIME` before that.")
}

func (c *BenchCmd) defineLoad(p *params) {
	p.Uint8VarP((*byte)(&c.Version), "v", "v", 4, "`VERSION` of MQTT: 4 (which is 3.1.1) or 5.")
	p.Uint8VarP((*byte)(&c.QoS), "qos", "q", 1, "Quality of service, `0|1|2`.")
	p.IntVarP(&c.Size, "size", "s", 128, "`BYTES` of a payload.")
	p.IntVarP(&c.N, "n", "n", 10, "`NUMBER` of clients of each kind, or of retained topics.")
	p.IntVar(&c.Count, "count", 100000, "`NUMBER` of messages, over all publishers.")
	p.Float64Var(&c.Rate, "rate", 0, "`NUMBER` of messages a second, over all publishers. Default: no limit.")
	p.IntVar(&c.Window, "window", 100, "`NUMBER` of unacknowledged messages of a publisher.")
	p.IntVar(&c.E2E, "e2e", 0, "`NUMBER` of outstanding deliveries of a publisher. Default: no limit.")
	p.IntVar(&c.Pubs, "pubs", 0, "`NUMBER` of publishers of wildcard (default 4) and offline (default 1).")
	p.IntVar(&c.Filters, "filters", 1000, "`NUMBER` of subscriptions of wildcard.")
	p.BoolVar(&c.Stall, "stall", false, "Subscribers stop reading until all is published.")
	p.IntVar(&c.Procs, "procs", 1, "`THREADS` of the load itself.")
}

func (c *BenchCmd) defineLimits(p *params) {
	p.DurationVar(&c.Time, "time", 15*time.Second, "`TIME` that the publishing may take.")
	p.DurationVar(&c.Drain, "drain", 3*time.Second, "Lost is what has not come after this `TIME` without a delivery.")
	p.DurationVar(&c.Timeout, "timeout", 15*time.Second, "`TIME` that a connect or subscribe may take.")
	p.IntVar(&c.Keepalive, "keepalive", 60, "`SECONDS` of the keep alive.")
	p.DurationVar(&c.Hold, "hold", 10*time.Second, "`TIME` that conns holds its connections.")
	p.IntVar(&c.Sources, "sources", 4, "`NUMBER` of local addresses of conns, from 127.0.0.2 on.")
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
    offline   --pubs publishers to an absent durable session, which then drains

Without --e2e, publishers send as fast as the broker takes messages, and it may drop
what its subscribers do not read in time.

Examples:

    tidegate bench p2p --rate 1000 --count 5000 --pid "$(pidof mosquitto)"
    tidegate bench fanin --n 100 --e2e 50 --broker-cmd "tidegate run --config bench.yaml"
    tidegate bench offline --pubs 10 --kill KILL --broker-cmd "mosquitto -c durable.conf"`
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
