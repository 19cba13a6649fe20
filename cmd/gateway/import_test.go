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
		"/etc/mosquitto/passwd": "passwd", "/etc/mosquitto/acl": "acl", "/etc/tidegate/site-cloud.pass": "bridge.pass",
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
		`servers: ["tls://broker.example.com:1883"]`, `tls: {ca: "/ca"}`, "protocol: 5",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

// Each option that mosquitto.conf(5) lists for bridges is said here, or is left over with
// what to do about it; and nothing travels in the clear that did not.
func TestImportOfEveryBridgeOption(t *testing.T) {
	code, out, errOut := callWith(t.Context(), `listener 1883 127.0.0.1
connection a/b
addresses one.example.com [2001:db8::1]:1884 2001:db8::2:1885
bridge_attempt_unsubscribe true
bridge_bind_address 192.0.2.7
bridge_max_packet_size 1000
bridge_protocol_version mqttv31
cleansession true
local_cleansession true
idle_timeout 60
local_clientid here
local_password hush
local_username here
notification_topic a/b
clientid there
username there
password hush
start_type lazy
threshold 10
try_private true
topic a/# outt 1
topic b/#
bridge_alpn mqtt
bridge_capath /etc/authorities
bridge_identity me
bridge_insecure true
bridge_psk 4d795365637265744b6579
bridge_require_ocsp true
bridge_tls_version tlsv1.2
protocol websockets
connection c
address two.example.com
bridge_capath /etc/ssl/certs
bridge_protocol_version mqttv311
remote_username c
remote_password hush
topic b/#
`, "import", "-")
	if code != exitDone || errOut != "" {
		t.Fatalf("import ends with %d and says %s", code, errOut)
	}
	for _, want := range []string{
		`- address: "ws://127.0.0.1:1883/mqtt"`,
		`servers: ["tls://one.example.com:1883", "tls://[2001:db8::1]:1884", "tls://[2001:db8::2]:1885"]`,
		`password_file: "/etc/tidegate/a-b.pass"`, `password_file: "/etc/tidegate/c.pass"`,
		`servers: ["tls://two.example.com:1883"]`, "# line 21: topic a/# outt 1: a direction is",
		"# line 24: bridge_capath /etc/authorities: write its certificates into one file",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for _, never := range []string{"hush", "4d79", ": no equivalent\n", "# line 33", "# line 34"} {
		if strings.Contains(out, never) {
			t.Errorf("%q stands in\n%s", never, out)
		}
	}
	if n := strings.Count(out, "\n    # line "); n != 22 {
		t.Errorf("%d options are left over in\n%s", n, out)
	}
}

// What asks for certificates or keys must not become a listener that asks for nothing.
func TestImportKeepsListenersSafe(t *testing.T) {
	for conf, want := range map[string]string{
		"bind_address 192.0.2.7\n":    `"tcp://192.0.2.7:1883"`,
		"listener 8883\npsk_hint x\n": `"tls://0.0.0.0:8883"`,
		"listener 8883\ncertfile /c\nkeyfile /k\ncapath /authorities\nrequire_certificate true\n": `client_ca: "/etc/tidegate/certs/clients.crt"`,
	} {
		if code, out, errOut := callWith(t.Context(), conf, "import", "-"); code != exitDone || !strings.Contains(out, want) {
			t.Errorf("%q ends with %d and says %s\n%s", conf, code, errOut, out)
		}
	}
}
