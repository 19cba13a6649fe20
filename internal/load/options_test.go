package load

import (
	"strings"
	"testing"
	"time"

	"tidegate/mqtt/packet"
)

// lawful are options that Check takes.
func lawful(addr string) Options {
	return Options{
		Scenario: "p2p", Addr: addr, Version: packet.V311, QoS: 1, Size: 64,
		N: 2, Pubs: 2, Filters: 20, Count: 100, Window: 10,
		Time: time.Minute, Drain: 2 * time.Second, Timeout: time.Minute,
		KeepAlive: 60, Hold: time.Millisecond, Sources: 1,
	}
}

func TestOptionsCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string // part of the error; "": none
	}{
		{"lawful", func(*Options) {}, ""},
		{"IPv6", func(o *Options) { o.Addr = "[::1]:1883" }, ""},
		{"many idle connections", func(o *Options) { o.Scenario, o.N = "conns", 10_000 }, ""},
		{"a killed broker", func(o *Options) { o.Scenario, o.Kill, o.BrokerCmd = "offline", "KILL", "x" }, ""},
		{"unknown scenario", func(o *Options) { o.Scenario = "p3p" }, `no scenario "p3p"`},
		{"another machine", func(o *Options) { o.Addr = "192.0.2.1:1883" }, "not of this machine"},
		{"a name that may be another machine", func(o *Options) { o.Addr = "broker:1883" }, "not of this machine"},
		{"no port", func(o *Options) { o.Addr = "127.0.0.1" }, "missing port"},
		{"MQTT 3.1", func(o *Options) { o.Version = packet.V31 }, "4 (3.1.1) or 5"},
		{"QoS 3", func(o *Options) { o.QoS = 3 }, "0, 1 or 2"},
		{"no clients", func(o *Options) { o.N = 0 }, "n is 0"},
		{"too many clients", func(o *Options) { o.N = 10_000 }, "1 to 2000"},
		{"payload without room for the stamp", func(o *Options) { o.Size = 15 }, "16 to"},
		{"window without room for identifiers", func(o *Options) { o.Window = 65_536 }, "window"},
		{"endless", func(o *Options) { o.Time = time.Hour }, "up to 10m0s"},
		{"no patience", func(o *Options) { o.Drain = 0 }, "drain"},
		{"negative rate", func(o *Options) { o.Rate = -1 }, "rate"},
		{"unknown signal", func(o *Options) { o.Kill = "HUP" }, "KILL or TERM"},
		{"kill without a command", func(o *Options) { o.Scenario, o.Kill = "offline", "KILL" }, "command"},
		{"kill in another scenario", func(o *Options) { o.Kill, o.BrokerCmd = "KILL", "x" }, "offline"},
		{"two brokers", func(o *Options) { o.PID, o.BrokerCmd = 1, "x" }, "one of the two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := lawful("127.0.0.1:1883")
			c.change(&o)
			err := o.Check()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
