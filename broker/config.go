package broker

import (
	"strconv"
	"time"

	"tidegate/internal/check"
	"tidegate/internal/limits"
	"tidegate/internal/units"
)

// Config is the `broker:` part of the configuration.
type Config struct {
	Listeners []Listener   `yaml:"listeners"`
	Limits    Limits       `yaml:"limits"`
	Queue     limits.Queue `yaml:"queue"` // of each session; an inbox brings its own

	AllowAnonymous *bool  `yaml:"allow_anonymous"` // clients need no user name; nil: only if all listeners are of this machine
	PasswordFile   string `yaml:"password_file"`   // see package auth; empty: there are no users
	ACLFile        string `yaml:"acl_file"`        // empty: everybody may do everything
}

// Listener is one address that clients connect to.
type Listener struct {
	Address  string `yaml:"address"`   // tcp:// or tls://host:port, ws:// or wss://host:port/path, unix:///path
	Cert     string `yaml:"cert"`      // file with the certificate and those that lead to its root, PEM
	Key      string `yaml:"key"`       // file with its private key, PEM
	ClientCA string `yaml:"client_ca"` // file with the roots of clients' certificates; empty: they need none
	Identity string `yaml:"identity"`  // where the user name comes from: the CONNECT, or cn, the common name in the client's certificate
}

// Limits bound what clients may use. None of them but PublishRate and MaxKeepalive
// can be switched off.
type Limits struct {
	MaxConnections   int            `yaml:"max_connections"`
	MaxPacketSize    units.Size     `yaml:"max_packet_size"`
	MaxInflight      int            `yaml:"max_inflight"`      // QoS 1 and 2 messages under way to one client
	ReceiveMaximum   int            `yaml:"receive_maximum"`   // ... and from one client, before it is read no further
	MaxSubscriptions int            `yaml:"max_subscriptions"` // per session
	MaxSessions      int            `yaml:"max_sessions"`
	MaxTopicAlias    int            `yaml:"max_topic_alias"` // MQTT 5, each way
	SessionExpiry    units.Duration `yaml:"session_expiry"`  // the longest that a session outlives its connection
	ConnectTimeout   units.Duration `yaml:"connect_timeout"` // between the connection and its CONNECT
	MaxKeepalive     units.Duration `yaml:"max_keepalive"`   // longest keep alive of an MQTT 5 client, whole seconds; 0: any, and none at all
	MaxRetained      int            `yaml:"max_retained"`
	MaxRetainedSize  units.Size     `yaml:"max_retained_size"` // topics and payloads together
	PublishRate      int            `yaml:"publish_rate"`      // messages a second of one client, before it is read no further; 0: any
}

// The largest values that the protocol has room for.
const (
	maxInflight   = 65535     // packet identifiers, MQTT 3.1.1 section 2.3.1
	maxPacketSize = 268435460 // section 2.2.3

	maxKeepalive = 65535 * time.Second // section 3.1.2.10

	maxExpiry = 10 * 365 * 24 * time.Hour // a little less than MQTT 5 can say
)

// SetDefaults fills in what is not set.
func (c *Config) SetDefaults() {
	if len(c.Listeners) == 0 {
		c.Listeners = []Listener{{Address: "tcp://127.0.0.1:1883"}}
	}
	c.setAccessDefaults()
	l := &c.Limits
	setInt(&l.MaxConnections, 1000)
	setInt(&l.MaxInflight, 32)
	setInt(&l.ReceiveMaximum, 128)
	setInt(&l.MaxSubscriptions, 100)
	setInt(&l.MaxSessions, 1000)
	setInt(&l.MaxTopicAlias, 32)
	setInt(&l.MaxRetained, 10000)
	setSize(&l.MaxPacketSize, units.MiB)
	setSize(&l.MaxRetainedSize, 16*units.MiB)
	c.Queue.SetDefaults(32 * units.MiB)
	setDuration(&l.ConnectTimeout, 10*time.Second)
	setDuration(&l.SessionExpiry, 24*time.Hour)
}

func setInt(v *int, standard int) {
	if *v == 0 {
		*v = standard
	}
}

func setSize(v *units.Size, standard units.Size) {
	if *v == 0 {
		*v = standard
	}
}

func setDuration(v *units.Duration, standard time.Duration) {
	if *v == 0 {
		*v = units.Duration(standard)
	}
}

// Check reports what is wrong with c once its defaults are filled in.
func (c *Config) Check() check.Problems {
	var p check.Problems
	for i, l := range c.Listeners {
		p.Under("listeners["+strconv.Itoa(i)+"]", l.check())
	}
	c.checkAccess(&p)
	between := func(path string, v, low, high int) {
		if v < low || v > high {
			p.Add(path, "%d is out of range; it takes %d to %d", v, low, high)
		}
	}
	l := c.Limits
	between("limits.max_connections", l.MaxConnections, 1, 1_000_000)
	between("limits.max_packet_size", int(l.MaxPacketSize), 128, maxPacketSize)
	between("limits.max_inflight", l.MaxInflight, 1, maxInflight)
	between("limits.receive_maximum", l.ReceiveMaximum, 1, maxInflight)
	between("limits.max_subscriptions", l.MaxSubscriptions, 1, 1_000_000)
	between("limits.max_sessions", l.MaxSessions, 1, 1_000_000)
	between("limits.max_topic_alias", l.MaxTopicAlias, 1, 65535)
	if expiry := time.Duration(l.SessionExpiry); expiry < time.Second || expiry > maxExpiry {
		p.Add("limits.session_expiry", "%s is out of range; it takes 1s to %s", l.SessionExpiry, units.Duration(maxExpiry))
	}
	if keep := time.Duration(l.MaxKeepalive); keep < 0 || keep > maxKeepalive || keep%time.Second != 0 {
		p.Add("limits.max_keepalive", "%s is out of range; it takes whole seconds up to %s, 0 for any", l.MaxKeepalive, units.Duration(maxKeepalive))
	}
	between("limits.max_retained", l.MaxRetained, 1, 10_000_000)
	between("limits.max_retained_size", int(l.MaxRetainedSize), 1024, 1<<31-1)
	between("limits.publish_rate", l.PublishRate, 0, 1_000_000)
	p.Under("queue", c.Queue.Check())
	return p
}
