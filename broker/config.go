package broker

import (
	"net"
	"net/url"
	"strconv"
	"time"

	"tidegate/internal/check"
	"tidegate/internal/units"
)

// Config is the `broker:` part of the configuration.
type Config struct {
	Listeners []Listener  `yaml:"listeners"`
	Limits    Limits      `yaml:"limits"`
	Queue     QueueLimits `yaml:"queue"`
}

// Listener is one address that clients connect to.
type Listener struct {
	Address string `yaml:"address"` // tcp://host:port
}

// Limits bound what clients may use. None of them can be switched off.
type Limits struct {
	MaxConnections   int            `yaml:"max_connections"`
	MaxPacketSize    units.Size     `yaml:"max_packet_size"`
	MaxInflight      int            `yaml:"max_inflight"`      // QoS 1 and 2 messages under way to one client
	ReceiveMaximum   int            `yaml:"receive_maximum"`   // ... and from one client, before it is read no further
	MaxSubscriptions int            `yaml:"max_subscriptions"` // per session
	MaxSessions      int            `yaml:"max_sessions"`
	ConnectTimeout   units.Duration `yaml:"connect_timeout"` // between the connection and its CONNECT
	MaxRetained      int            `yaml:"max_retained"`
	MaxRetainedSize  units.Size     `yaml:"max_retained_size"` // topics and payloads together
}

// QueueLimits bound what one session may use while it is connected. The queue of
// an absent session stands on disk and uses no memory.
type QueueLimits struct {
	MaxMemory units.Size `yaml:"max_memory"`
}

// The largest values that the protocol has room for.
const (
	maxInflight   = 65535     // packet identifiers, MQTT 3.1.1 section 2.3.1
	maxPacketSize = 268435460 // section 2.2.3
)

// SetDefaults fills in what is not set.
func (c *Config) SetDefaults() {
	if len(c.Listeners) == 0 {
		c.Listeners = []Listener{{Address: "tcp://127.0.0.1:1883"}}
	}
	l := &c.Limits
	setInt(&l.MaxConnections, 1000)
	setInt(&l.MaxInflight, 32)
	setInt(&l.ReceiveMaximum, 128)
	setInt(&l.MaxSubscriptions, 100)
	setInt(&l.MaxSessions, 1000)
	setInt(&l.MaxRetained, 10000)
	setSize(&l.MaxPacketSize, units.MiB)
	setSize(&l.MaxRetainedSize, 16*units.MiB)
	setSize(&c.Queue.MaxMemory, 256*units.KiB)
	if l.ConnectTimeout == 0 {
		l.ConnectTimeout = units.Duration(10 * time.Second)
	}
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

// Check reports what is wrong with c once its defaults are filled in.
func (c *Config) Check() check.Problems {
	var p check.Problems
	for i, l := range c.Listeners {
		if _, err := l.hostPort(); err != "" {
			p.Add("listeners["+strconv.Itoa(i)+"].address", "%q %s", l.Address, err)
		}
	}
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
	between("limits.max_retained", l.MaxRetained, 1, 10_000_000)
	between("limits.max_retained_size", int(l.MaxRetainedSize), 1024, 1<<31-1)
	between("queue.max_memory", int(c.Queue.MaxMemory), 4096, 1<<31-1)
	return p
}

// hostPort splits the address, or says in words why it cannot be one.
func (l Listener) hostPort() (addr, problem string) {
	u, err := url.Parse(l.Address)
	switch {
	case err != nil || u.Host == "":
		return "", "is no address; write tcp://127.0.0.1:1883"
	case u.Scheme != "tcp":
		return "", "has the scheme " + strconv.Quote(u.Scheme) + "; this version listens on tcp:// only"
	case u.Path != "" && u.Path != "/":
		return "", "has a path, which tcp:// does not take"
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return "", "has no port; write tcp://" + u.Host + ":1883"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "has the port " + strconv.Quote(port) + "; it takes 0 to 65535"
	} else if n == 0 {
		port = "0"
	}
	return net.JoinHostPort(host, port), ""
}

// Loopback reports whether only this machine can reach the listener.
func (l Listener) Loopback() bool {
	addr, _ := l.hostPort()
	host, _, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
