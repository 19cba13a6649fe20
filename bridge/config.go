package bridge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tidegate/internal/check"
	"tidegate/internal/limits"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// Config is one entry of the section "bridges".
type Config struct {
	// Name names the bridge's queue, its client id and its topic
	// $SYS/broker/connection/NAME/state. It is one topic level.
	Name string `yaml:"name"`

	// Servers are tried in turn: tcp://host:port, tls://host:port, or for
	// WebSocket ws://host:port/path and wss://host:port/path. The port may be
	// missing if it is the usual one.
	Servers []string `yaml:"servers"`

	TLS TLS `yaml:"tls"`

	// ClientID is what the server knows this bridge by. Two clients with one
	// id throw each other out. Empty: tidegate-GATEWAY-NAME.
	ClientID string `yaml:"client_id"`

	Username     string `yaml:"username"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"` // whoever loads the configuration reads it into Password

	// Protocol is the version of MQTT: 4 is 3.1.1, 5 is 5.0.
	Protocol int `yaml:"protocol"`

	// Keepalive is the longest silence before the server is pinged; whole
	// seconds, as in the CONNECT packet (MQTT 3.1.1, section 3.1.2.10).
	Keepalive units.Duration `yaml:"keepalive"`

	// MaxInflight is how many messages may be under way, and so how many can
	// arrive twice when a connection is lost.
	MaxInflight int `yaml:"max_inflight"`

	// Backoff bounds the wait before the next connection.
	Backoff Backoff `yaml:"backoff"`

	// Will says whether the server keeps, on gateway/NAME/status under the prefix
	// of out, whether the gateway is connected. nil: true.
	Will *bool `yaml:"will"`

	// ClockWait is how long, after a start, messages with a time in them wait at
	// most for the system's clock to be set, once there is a connection. 0: not
	// at all.
	ClockWait units.Duration `yaml:"clock_wait"`

	// PreferFirst is how long the first server must have answered before the
	// bridge returns to it from another. 0: it stays where it is; nil: 10m.
	PreferFirst *units.Duration `yaml:"prefer_first"`

	// StallTimeout is how long a connected server may owe an acknowledgement
	// without giving any, before the next server is tried.
	StallTimeout units.Duration `yaml:"stall_timeout"`

	// CatchUp says how the backlog goes upstream.
	CatchUp CatchUp `yaml:"catch_up"`

	// MaxPacketSize is the largest message that is taken from the server, which
	// bounds the memory that it can make the gateway use.
	MaxPacketSize units.Size `yaml:"max_packet_size"`

	// Envelope says where what identifies a message stands, see [Envelope]:
	// none, json for around the payload, properties for the user properties of
	// MQTT 5.
	Envelope string `yaml:"envelope"`

	// Queue bounds what waits for the way upstream.
	Queue limits.Queue `yaml:"queue"`

	// DeadLetters bounds what the server has refused for good.
	DeadLetters DeadLetters `yaml:"dead_letters"`

	// Out says what goes upstream and under which topic, In what comes down.
	Out []Rule `yaml:"out"`
	In  []Rule `yaml:"in"`
}

// Backoff bounds the wait before the next connection. The wait is drawn at
// random, so that a fleet does not come back in step.
type Backoff struct {
	Min units.Duration `yaml:"min"`
	Max units.Duration `yaml:"max"`
}

// The limits of a configuration.
const (
	minKeepalive    = 5 * time.Second
	maxKeepalive    = 65535 * time.Second // two bytes of the CONNECT packet
	maxInflight     = 10000               // far below the 65,535 packet identifiers, so that none is reused early
	minStallTimeout = time.Second
	minPreferFirst  = time.Second
	minPacketSize   = 1024  // holds every packet but PUBLISH, and a PUBLISH with a usual topic
	maxString       = 65535 // bytes; MQTT 3.1.1, section 1.5.3
)

// SetDefaults fills in what the configuration leaves open.
func (c *Config) SetDefaults() {
	setDefault(&c.Protocol, 4)
	setDefault(&c.Keepalive, units.Duration(30*time.Second))
	setDefault(&c.MaxInflight, 100)
	setDefault(&c.Backoff.Min, units.Duration(time.Second))
	setDefault(&c.Backoff.Max, max(c.Backoff.Min, units.Duration(2*time.Minute)))
	setDefault(&c.StallTimeout, units.Duration(30*time.Second))
	setNil(&c.Will, true)
	setNil(&c.PreferFirst, units.Duration(10*time.Minute))
	setDefault(&c.CatchUp.Order, inOrder)
	setDefault(&c.CatchUp.LiveShare, 50)
	setDefault(&c.Envelope, envelopeNone)
	setDefault(&c.MaxPacketSize, units.MiB)
	c.Queue.SetDefaults(512 * units.MiB)
	setDefault(&c.DeadLetters.MaxMessages, 10000)
	setDefault(&c.DeadLetters.MaxDisk, 16*units.MiB)
	for _, rules := range [][]Rule{c.Out, c.In} {
		for i := range rules {
			setNil(&rules[i].QoS, mqtt.AtLeastOnce)
			setNil(&rules[i].Retain, true)
		}
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func setNil[T any](v **T, to T) {
	if *v == nil {
		*v = &to
	}
}

// Check returns what is wrong with c after SetDefaults. It opens nothing.
func (c *Config) Check() check.Problems {
	var p check.Problems
	if err := mqtt.ValidName(c.Name); err != nil || strings.Contains(c.Name, "/") {
		p.Add("name", "%q cannot name a bridge: write one topic level, without / + and #, as in cloud", c.Name)
	}
	c.checkServers(&p)
	c.checkTLS(&p)
	c.checkLogin(&p)
	c.checkNumbers(&p)
	p.Under("queue", c.Queue.Check())
	c.DeadLetters.check(&p)
	c.checkRules(&p)
	return p
}

func (c *Config) checkServers(p *check.Problems) {
	if len(c.Servers) == 0 {
		p.Add("servers", "is missing: write at least one, as in [tcp://broker.example.com:1883]")
	}
	for i, s := range c.Servers {
		if _, err := parseServer(s); err != nil {
			p.Add(fmt.Sprintf("servers[%d]", i), "%v", err)
		}
	}
}

// checkTLS opens no file: each connection reads them.
func (c *Config) checkTLS(p *check.Problems) {
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		p.Add("tls", "cert and key belong together: write both, or neither")
	}
	secure := slices.ContainsFunc(c.Servers, func(s string) bool {
		e, err := parseServer(s)
		return err != nil || e.secure()
	})
	if c.TLS != (TLS{}) && !secure {
		p.Add("tls", "is for servers with tls:// or wss://, and there is none in servers")
	}
}

func (c *Config) checkLogin(p *check.Problems) {
	for _, field := range []struct{ path, text string }{
		{"client_id", c.ClientID}, {"username", c.Username}, {"password", c.Password},
	} {
		if len(field.text) > maxString {
			p.Add(field.path, "has %d bytes, more than the %d of MQTT", len(field.text), maxString)
		}
	}
	if c.Username == "" && c.Protocol != 5 && (c.Password != "" || c.PasswordFile != "") {
		p.Add("username", "is missing: MQTT 3.1.1 allows no password without a user name")
	}
}

func (c *Config) checkNumbers(p *check.Problems) {
	if c.Protocol != 4 && c.Protocol != 5 {
		p.Add("protocol", "%d is not 4, which is MQTT 3.1.1, or 5, which is MQTT 5", c.Protocol)
	}
	if d := time.Duration(c.Keepalive); d < minKeepalive || d > maxKeepalive || d%time.Second != 0 {
		p.Add("keepalive", "%v is not in whole seconds from 5s to 65535s; 30s is usual", c.Keepalive)
	}
	if c.MaxInflight < 1 || c.MaxInflight > maxInflight {
		p.Add("max_inflight", "%d is not in 1 to %d; 100 is usual", c.MaxInflight, maxInflight)
	}
	if o := c.CatchUp.Order; o != inOrder && o != liveFirst {
		p.Add("catch_up.order", "%q is unknown: write in_order, or live_first for new messages before queued ones", o)
	}
	if s := c.CatchUp.LiveShare; s < 1 || s > 99 {
		p.Add("catch_up.live_share", "%v leaves nothing for the others: write 1%% to 99%%, 50%% is usual", s)
	}
	switch c.Envelope {
	case envelopeNone, envelopeJSON:
	case envelopeProperties:
		if c.Protocol != 5 {
			p.Add("envelope", "properties travel in MQTT 5 only: write protocol: 5, or envelope: json")
		}
	default:
		p.Add("envelope", "%q is unknown: write none, json or properties", c.Envelope)
	}
	if n := c.MaxPacketSize; n < minPacketSize || n > maxRemaining {
		p.Add("max_packet_size", "%v is not in %v to 256MiB; 1MiB is usual", n, units.Size(minPacketSize))
	}
	if c.Backoff.Max < c.Backoff.Min {
		p.Add("backoff.max", "%v is less than backoff.min, %v", c.Backoff.Max, c.Backoff.Min)
	}
	if c.ClockWait < 0 {
		p.Add("clock_wait", "%v is no time to wait; write 1m, or 0 for not at all", c.ClockWait)
	}
	if d := time.Duration(*c.PreferFirst); d != 0 && d < minPreferFirst {
		p.Add("prefer_first", "%v is too short to tell whether the first server is well; write 1s or more, 10m is usual, or 0 for never", d)
	}
	if time.Duration(c.StallTimeout) < minStallTimeout {
		p.Add("stall_timeout", "%v is shorter than a slow link may need; write 1s or more, 30s is usual", c.StallTimeout)
	}
}
