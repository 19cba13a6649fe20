package main

import (
	"path/filepath"
	"strings"
	"testing"
)

const twoWays = `gateway: {name: pump-house}
broker:
  listeners: [{address: "tcp://127.0.0.1:1885"}]
bridges:
  - name: cloud
    servers: [tcp://broker.example.com]
    out:
      - topics: [sensor/#]
        prefix: site/1/
      - topics: [sensor/+/t]
        retain: false
        qos: 0
    in:
      - topics: [command/1/#]
        strip: command/1/
        prefix: actuator/
        qos: 2
        valid_for: 10m
`

func TestBridgeMap(t *testing.T) {
	config := filepath.Join(writeFiles(t, map[string]string{"t.yaml": twoWays}), "t.yaml")
	for args, want := range map[string]string{
		"cloud sensor/a/t": "out  sensor/a/t -> site/1/sensor/a/t  (QoS 1 at most; out[0].topics[0])\n" +
			"in   sensor/a/t goes nowhere: no rule matches\n",
		"cloud command/1/pump": "out  command/1/pump goes nowhere: no rule matches\n" +
			"in   command/1/pump -> actuator/pump  (QoS 2 at most, valid for 10m0s; in[0].topics[0])\n",
		"cloud": "out  sensor/# -> site/1/sensor/#  (QoS 1 at most; out[0].topics[0])\n" +
			"out  sensor/+/t -> sensor/+/t  (QoS 0 at most, retain dropped; out[1].topics[0])\n" +
			"in   command/1/# -> actuator/#  (QoS 2 at most, valid for 10m0s; in[0].topics[0])\n",
	} {
		code, out, errOut := call(t, append([]string{"bridge", "map", "--config", config}, strings.Fields(args)...)...)
		if code != exitDone || out != want || errOut != "" {
			t.Errorf("bridge map %s ends with %d and says\n%s%swant\n%s", args, code, out, errOut, want)
		}
	}
	for args, want := range map[string]string{
		"clod":      `no bridge is called "clod"; there is cloud`,
		"cloud a/#": "only a filter may have",
	} {
		code, _, errOut := call(t, append([]string{"bridge", "map", "--config", config}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("bridge map %s ends with %d and says %s", args, code, errOut)
		}
	}
}

func TestCheckWarns(t *testing.T) {
	config := filepath.Join(writeFiles(t, map[string]string{"t.yaml": strings.Replace(twoWays, "broker.example.com", "127.0.0.1:1885", 1)}), "t.yaml")
	code, out, errOut := call(t, "check", "--config", config)
	want := config + ":6:15: warning: bridges[0].servers[0]: tcp://127.0.0.1:1885 is this gateway itself: what goes out comes back\n" +
		config + `:10:18: warning: bridges[0].out[1].topics[0]: "sensor/+/t" never matches: "sensor/#" above takes all of its topics; the first rule that matches wins, so put the narrower one first` + "\n"
	if code != exitDone || out != want || errOut != "" {
		t.Errorf("check ends with %d and says\n%s%swant\n%s", code, out, errOut, want)
	}
}
