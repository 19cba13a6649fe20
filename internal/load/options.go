package load

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// Options choose a scenario and its numbers. Run checks them.
type Options struct {
	Scenario string // one of [Scenarios]
	Addr     string // of the broker; host:port with a loopback address
	Version  packet.Version
	QoS      mqtt.QoS
	Size     int // bytes of a payload, from 16

	N       int // clients of each kind, or retained topics
	Pubs    int // publishers of "wildcard" (0: 4) and "offline" (0: 1)
	Filters int // subscriptions of "wildcard", spread over its clients
	Count   int // messages, over all publishers

	Rate   float64 // messages a second over all publishers; 0: as fast as can be
	Window int     // messages of QoS 1 and 2 that a publisher has unacknowledged
	E2E    int     // deliveries that may be outstanding for a publisher; 0: no limit
	Stall  bool    // subscribers stop at their first message until all is published

	Time    time.Duration // limit of the publishing
	Drain   time.Duration // what has not come after so long without a delivery is lost
	Timeout time.Duration // limit of a connect and of a subscribe

	KeepAlive int           // seconds
	Hold      time.Duration // how long "conns" holds its connections
	Sources   int           // local addresses of "conns", from 127.0.0.2 on

	Kill   string        // "offline": KILL or TERM for the broker once all is published; "" for neither
	Settle time.Duration // ... and how long to wait before

	PID       int    // process to measure; 0: the one that is started, or none
	BrokerCmd string // command line for sh that starts the broker in the foreground
	BrokerLog string // file for what the broker prints; "": nowhere
}

// The bounds of a run.
const (
	maxClients     = 2000   // of a kind; a receiver knows all publishers
	maxIdleClients = 20_000 // of "conns"
	maxRetained    = 1_000_000
	maxCount       = 100_000_000
	maxPayload     = 1 << 20
	maxWindow      = 65_000 // packet identifiers, with some to spare
	maxSources     = 250
	maxTime        = 10 * time.Minute
)

// Check reports the first thing that is wrong with o, or nil.
func (o *Options) Check() error {
	if !slices.Contains(Scenarios(), o.Scenario) {
		return fmt.Errorf("there is no scenario %q", o.Scenario)
	}
	if err := checkLoopback(o.Addr); err != nil {
		return err
	}
	if err := o.checkNumbers(); err != nil {
		return err
	}
	switch {
	case o.Version != packet.V311 && o.Version != packet.V5:
		return fmt.Errorf("MQTT version %d: it takes 4 (3.1.1) or 5", byte(o.Version))
	case !o.QoS.Valid():
		return fmt.Errorf("QoS %d: it takes 0, 1 or 2", o.QoS)
	case o.Rate < 0:
		return errors.New("the rate is negative")
	case !slices.Contains([]string{"", "KILL", "TERM"}, o.Kill):
		return fmt.Errorf("signal %q: it takes KILL or TERM", o.Kill)
	case o.Kill != "" && (o.BrokerCmd == "" || o.Scenario != "offline"):
		return errors.New("killing the broker is for the scenario offline, and needs the command that starts it again")
	case o.PID != 0 && o.BrokerCmd != "":
		return errors.New("a process to measure and a command to start one: it takes one of the two")
	}
	return nil
}

// publishers are those of a scenario whose publishers are not N.
func (o *Options) publishers() int {
	if o.Pubs == 0 && o.Scenario == "wildcard" {
		return 4
	}
	return max(o.Pubs, 1)
}

// checkLoopback makes sure that the load stays on this machine.
func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("address %q is not of this machine: it takes a loopback address such as 127.0.0.1:1883", addr)
	}
	return nil
}

func (o *Options) checkNumbers() error {
	clients := maxClients
	switch o.Scenario {
	case "conns":
		clients = maxIdleClients
	case "retained":
		clients = maxRetained
	}
	for _, x := range []struct {
		name           string
		v, least, most int
	}{
		{"n", o.N, 1, clients},
		{"pubs", o.Pubs, 0, maxClients},
		{"filters", o.Filters, 1, maxRetained},
		{"count", o.Count, 1, maxCount},
		{"size", o.Size, stampSize, maxPayload},
		{"window", o.Window, 1, maxWindow},
		{"e2e", o.E2E, 0, maxCount},
		{"keepalive", o.KeepAlive, 1, 65535},
		{"sources", o.Sources, 1, maxSources},
	} {
		if x.v < x.least || x.v > x.most {
			return fmt.Errorf("%s is %d: it takes %d to %d", x.name, x.v, x.least, x.most)
		}
	}
	for _, x := range []struct {
		name string
		v    time.Duration
	}{{"time", o.Time}, {"drain", o.Drain}, {"timeout", o.Timeout}, {"hold", o.Hold}} {
		if x.v <= 0 || x.v > maxTime {
			return fmt.Errorf("%s is %v: it takes up to %v", x.name, x.v, maxTime)
		}
	}
	if o.Settle < 0 || o.Settle > maxTime {
		return fmt.Errorf("settle is %v: it takes up to %v", o.Settle, maxTime)
	}
	return nil
}
