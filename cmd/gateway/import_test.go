package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
