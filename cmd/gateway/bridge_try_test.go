package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/bridge"
	"tidegate/internal/testbed"
)

// A server that works and one that refuses connections: each step is a line, and
// the exit code says that not all is well.
func TestBridgeTest(t *testing.T) {
	closed := testbed.ReserveAddr(t)
	config := func(servers string) string {
		text := "gateway: {name: pump-house}\nbridges:\n  - name: cloud\n    servers: [" + servers + "]\n    out: [{topics: [sensor/#], prefix: site/1/}]\n"
		return filepath.Join(writeFiles(t, map[string]string{"t.yaml": text}), "t.yaml")
	}
	good := "tcp://" + startBench(t)
	code, out, errOut := call(t, "bridge", "test", "--config", config(good), "cloud")
	if code != exitDone || errOut != "" || strings.Count(out, "  ok ") != 6 || !strings.Contains(out, "site/1/gateway/pump-house/test") {
		t.Errorf("a good server: ends with %d and says\n%s%s", code, out, errOut)
	}
	code, out, errOut = call(t, "bridge", "test", "--config", config(good+", tcp://"+closed), "cloud")
	if code != exitFailed || !strings.Contains(out, "FAILED  tcp") || !strings.Contains(errOut, "of 2 servers of the bridge cloud, so many do not work: 1") {
		t.Errorf("a bad server: ends with %d and says\n%s%s", code, out, errOut)
	}
	code, out, _ = call(t, "bridge", "test", "--config", config("tcp://"+closed), "-o", "json", "cloud")
	var findings []bridge.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil || code != exitFailed || len(findings) != 2 ||
		findings[1].Step != bridge.StepTCP || findings[1].OK || !strings.Contains(findings[1].Text, "refuses connections: is the broker running there") {
		t.Errorf("in JSON it ends with %d and says\n%s", code, out)
	}
	if code, _, errOut = call(t, "bridge", "test", "--config", config(good), "clod"); code != exitUsage || !strings.Contains(errOut, "there is cloud") {
		t.Errorf("ends with %d and says %s", code, errOut)
	}
}
