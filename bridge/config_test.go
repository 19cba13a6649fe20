package bridge

import (
	"strings"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

func TestDefaults(t *testing.T) {
	cfg := testConfig()
	cfg.SetDefaults()
	if problems := cfg.Check(); len(problems) > 0 {
		t.Errorf("the defaults have problems: %v", problems)
	}
	if cfg.Keepalive != seconds(30) || cfg.MaxInflight != 100 || cfg.StallTimeout != seconds(30) ||
		cfg.Backoff != (Backoff{seconds(1), seconds(120)}) || *cfg.Out[0].QoS != mqtt.AtLeastOnce {
		t.Errorf("the defaults are %+v", cfg)
	}
	cfg.Backoff = Backoff{Min: seconds(600)}
	if cfg.SetDefaults(); cfg.Backoff.Max != seconds(600) {
		t.Errorf("with min 10m, max is %v", cfg.Backoff.Max)
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(*Config)
		path, text string
	}{
		"no name":            {func(c *Config) { c.Name = "" }, "name", "write one topic level"},
		"name of two levels": {func(c *Config) { c.Name = "a/b" }, "name", `"a/b" cannot name a bridge`},
		"no dead letter":     {func(c *Config) { c.DeadLetters.MaxMessages = -1 }, "dead_letters.max_messages", "write 1 or more"},
		"no place for one":   {func(c *Config) { c.DeadLetters.MaxDisk = 1 }, "dead_letters.max_disk", "64KiB or more"},
		"a hasty return":     {func(c *Config) { *c.PreferFirst = 1 }, "prefer_first", "write 1s or more"},
		"no server":          {func(c *Config) { c.Servers = nil }, "servers", "tcp://broker.example.com:1883"},
		"server by name":     {func(c *Config) { c.Servers = append(c.Servers, "broker:1883") }, "servers[1]", "tcp://host:port"},
		"other program's":    {func(c *Config) { c.Servers[0] = "mqtts://broker" }, "servers[0]", "write tls://"},
		"unknown scheme":     {func(c *Config) { c.Servers[0] = "quic://broker" }, "servers[0]", "takes tcp, tls, ws or wss"},
		"TLS for nobody":     {func(c *Config) { c.TLS.CA = "ca.crt" }, "tls", "there is none in servers"},
		"half a certificate": {func(c *Config) { c.Servers[0], c.TLS.Cert = "tls://broker", "a.crt" }, "tls", "write both"},
		"server with path":   {func(c *Config) { c.Servers[0] = "tcp://broker/mqtt" }, "servers[0]", "behind the port"},
		"server with login":  {func(c *Config) { c.Servers[0] = "tcp://u:hush@broker" }, "servers[0]", "password_file"},
		"port out of range":  {func(c *Config) { c.Servers[0] = "tcp://broker:65536" }, "servers[0]", "1 to 65535"},
		"port 0":             {func(c *Config) { c.Servers[0] = "tcp://broker:0" }, "servers[0]", "1 to 65535"},
		"old protocol":       {func(c *Config) { c.Protocol = 3 }, "protocol", "3 is not 4, which is MQTT 3.1.1"},
		"password alone":     {func(c *Config) { c.Password = "x" }, "username", "no password without a user name"},
		"long client id":     {func(c *Config) { c.ClientID = strings.Repeat("x", 65536) }, "client_id", "65535"},
		"keepalive in ms":    {func(c *Config) { c.Keepalive = units.Duration(10500 * time.Millisecond) }, "keepalive", "10.5s is not in whole seconds"},
		"keepalive of a day": {func(c *Config) { c.Keepalive = seconds(86400) }, "keepalive", "65535s"},
		"no window":          {func(c *Config) { c.MaxInflight = -1 }, "max_inflight", "1 to 10000"},
		"window too wide":    {func(c *Config) { c.MaxInflight = 65536 }, "max_inflight", "1 to 10000"},
		"back-off reversed":  {func(c *Config) { c.Backoff.Min = seconds(300) }, "backoff.max", "less than backoff.min"},
		"hasty stall":        {func(c *Config) { c.StallTimeout = 1 }, "stall_timeout", "1s or more"},
		"unknown order":      {func(c *Config) { c.CatchUp.Order = "newest" }, "catch_up.order", "write in_order, or live_first"},
		"all for live ones":  {func(c *Config) { c.CatchUp.LiveShare = 100 }, "catch_up.live_share", "1% to 99%"},
		"no rule":            {func(c *Config) { c.Out = nil }, "out", "topics: [sensor/#]"},
		"no topic":           {func(c *Config) { c.Out[0].Topics = nil }, "out[0].topics", "at least one filter"},
		"bad filter":         {func(c *Config) { c.Out[0].Topics[0] = "a/#/b" }, "out[0].topics[0]", "behind #"},
		"wildcard in prefix": {func(c *Config) { c.Out[0].Prefix = "site/+/" }, "out[0].prefix", "beginning of a topic"},
		"wildcard in strip":  {func(c *Config) { c.Out[0].Strip = "sensor/#" }, "out[0].strip", "beginning of a topic"},
		"idle strip":         {func(c *Config) { c.Out[0].Strip = "sensors/" }, "out[0].topics[0]", "never do anything"},
		"nothing left": {
			func(c *Config) { c.Out[0] = Rule{Topics: []string{"a/b"}, Strip: "a/b"} }, "out[0].topics[0]", "shorten strip",
		},
		"server's own topics": {
			func(c *Config) { c.Out[0] = Rule{Topics: []string{"$SYS/#"}} }, "out[0].topics[0]", "add a prefix",
		},
		"exactly once": {func(c *Config) { c.Out[0].QoS = qos(2) }, "out[0].qos", "use 1"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			cfg.SetDefaults()
			c.change(&cfg)
			for _, p := range cfg.Check() {
				if strings.Contains(p.Text, "hush") {
					t.Errorf("%q shows the password", p.Text)
				}
				if p.Path == c.path && strings.Contains(p.Text, c.text) {
					return
				}
			}
			t.Errorf("the problems are %q, want %q at %s", cfg.Check(), c.text, c.path)
		})
	}
}

func TestMQTT5TakesAPasswordAlone(t *testing.T) {
	cfg := testConfig()
	cfg.Protocol, cfg.Password = 5, "token"
	cfg.SetDefaults()
	if p := cfg.Check(); len(p) > 0 {
		t.Errorf("the problems are %q", p)
	}
	if hello := (&paho5Client{cfg.client(nil, "id")}).hello(); hello.UsernameFlag || !hello.PasswordFlag {
		t.Errorf("CONNECT is %+v", hello)
	}
}

func TestServersTakenApart(t *testing.T) {
	for server, want := range map[string]string{
		"tcp://broker":             "broker:1883",
		"tcp://broker:1884/":       "broker:1884",
		"tcp://[::1]:1884":         "[::1]:1884",
		"tls://broker":             "broker:8883",
		"ws://broker":              "broker:80/mqtt",
		"ws://broker:8083/":        "broker:8083/mqtt",
		"wss://broker/a/mqtt?x=1":  "broker:443/a/mqtt?x=1",
		"wss://user@broker":        "",
		"ws://broker/mqtt#section": "",
	} {
		e, err := parseServer(server)
		if got := e.address + e.path; got != want || (err != nil) != (want == "") {
			t.Errorf("parseServer(%q) = %q, %v; want %q", server, got, err, want)
		}
	}
}

func TestNewRefusesAConfigurationWithProblems(t *testing.T) {
	cfg := testConfig()
	cfg.Servers = []string{"broker"}
	if _, err := New(cfg, "pump-house", newLocal(), nil); err == nil || !strings.Contains(err.Error(), `bridge "cloud": servers[0]: "broker" is no server`) {
		t.Errorf("got %v", err)
	}
}
