package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidegate/mqtt"
)

const mosquittoFile = `# a gateway of yesterday
user mosquitto
persistence true
per_listener_settings false
allow_anonymous false
password_file /etc/mosquitto/passwd
acl_file /etc/mosquitto/acl
max_inflight_messages 20
message_size_limit 65536
log_type all

listener 1883 127.0.0.1
listener 9001
protocol websockets
max_connections 50

connection site/cloud
address broker.example.com another.example.com:1884
remote_username pump
remote_password s3cret
remote_clientid pump-house
keepalive_interval 60
restart_timeout 5 300
try_private true
topic sensor/# out 1 "" site/1/
topic command/# in 2 actuator/ site/1/
topic alarm both 2
topic "" out 0 local/state site/1/state
`

func TestImport(t *testing.T) {
	dir := writeFiles(t, map[string]string{"mosquitto.conf": mosquittoFile})
	code, out, errOut := call(t, "import", filepath.Join(dir, "mosquitto.conf"))
	if code != exitDone || errOut != "" {
		t.Fatalf("import ends with %d and says %s", code, errOut)
	}
	golden(t, "import", out)
	if strings.Contains(out, "s3cret") {
		t.Error("the password is shown")
	}
	// What comes out is a configuration once its files are there.
	for from, to := range map[string]string{
		"/etc/mosquitto/passwd": "passwd", "/etc/mosquitto/acl": "acl", "/etc/tidegate/bridge.pass": "bridge.pass",
	} {
		to = filepath.Join(dir, to)
		out = strings.ReplaceAll(out, from, to)
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bridge.pass"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tidegate.yaml")
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(path)
	if err != nil {
		t.Fatalf("it does not check:\n%v\n%s", err, out)
	}
	for topic, want := range map[string]string{"sensor/a": "site/1/sensor/a", "alarm": "alarm", "local/state": "site/1/state"} {
		if got, _, _ := cfg.Bridges[0].Map(topic); got != want {
			t.Errorf("%s goes up as %q, want %q", topic, got, want)
		}
	}
	if got, qos, _ := cfg.Bridges[0].MapIn("site/1/command/pump"); got != "actuator/command/pump" || qos != 2 {
		t.Errorf("the command comes down as %q at QoS %d", got, qos)
	}
}

// imported is the configuration that a mosquitto.conf becomes, and its text.
func imported(t *testing.T, conf string) (*Config, string) {
	t.Helper()
	code, out, errOut := callWith(t.Context(), conf, "import", "-")
	if code != exitDone || errOut != "" {
		t.Fatalf("import ends with %d and says %s", code, errOut)
	}
	dir := writeFiles(t, map[string]string{"tidegate.yaml": out})
	cfg, err := Load(filepath.Join(dir, "tidegate.yaml"))
	if err != nil {
		t.Fatalf("it does not check:\n%v\n%s", err, out)
	}
	return cfg, out
}

func TestImportOfLimits(t *testing.T) {
	cfg, out := imported(t, `listener 1883 127.0.0.1
max_connections 50
max_topic_alias 7
max_keepalive 120
max_queued_messages 300
max_queued_bytes 1000000
persistent_client_expiration 2w
connection cloud
address broker.example.com another.example.com
round_robin true
notifications false
bridge_outgoing_retain false
topic a/# out 1
topic b/# in 1
`)
	limits, queue, cloud := cfg.Broker.Limits, cfg.Broker.Queue, cfg.Bridges[0]
	if limits.MaxConnections != 50 || limits.MaxTopicAlias != 7 || time.Duration(limits.MaxKeepalive) != 2*time.Minute || limits.SessionExpiry.String() != "14d" {
		t.Errorf("the limits are %+v", limits)
	}
	if queue.MaxMessages != 300 || queue.MaxDisk != 1000000 || queue.Overflow != mqtt.DropNewest {
		t.Errorf("the queues are %+v", queue)
	}
	if *cloud.PreferFirst != 0 || *cloud.Will || *cloud.Out[0].Retain || !*cloud.In[0].Retain {
		t.Errorf("the bridge is %+v", cloud)
	}
	if strings.Contains(out, "no equivalent") {
		t.Errorf("something has no equivalent in\n%s", out)
	}
}

// What stands at mosquitto's default, or cannot be said here, changes nothing and is
// not dropped silently.
func TestImportLeavesWhatItCannotSay(t *testing.T) {
	cfg, out := imported(t, `listener 1883 127.0.0.1
max_connections -1
max_topic_alias 0
listener 1884 127.0.0.1
max_connections 20
max_queued_bytes 0
memory_limit 5000000
`)
	if l := cfg.Broker.Limits; l.MaxConnections != 1000 || l.MaxTopicAlias != 32 {
		t.Errorf("the limits are %+v", l)
	}
	if cfg.Broker.Queue.Overflow != mqtt.DropOldest {
		t.Errorf("the queues are %+v", cfg.Broker.Queue)
	}
	for _, want := range []string{
		"# line 2: max_connections -1: see broker.limits.max_connections",
		"# line 3: max_topic_alias 0: see broker.limits.max_topic_alias",
		"# line 5: max_connections 20: see broker.limits.max_connections",
		"# line 6: max_queued_bytes 0: see broker.queue",
		"# line 7: memory_limit 5000000: see gateway.memory_limit",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestImportOfTLS(t *testing.T) {
	code, out, errOut := callWith(t.Context(), `port 8883
cafile /ca
certfile /cert
keyfile /key
require_certificate true
use_identity_as_username true
connection cloud
address broker.example.com
bridge_cafile /ca
bridge_protocol_version mqttv50
`, "import", "-")
	if code != exitDone || errOut != "" {
		t.Fatalf("import ends with %d and says %s", code, errOut)
	}
	for _, want := range []string{
		`address: "tls://0.0.0.0:8883"`, `client_ca: "/ca"`, "identity: cn",
		`servers: ["tls://broker.example.com:8883"]`, `tls: {ca: "/ca"`, "protocol: 5",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}
