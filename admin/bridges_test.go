package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"tidegate/bridge"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
)

func TestBridgesSayWhatTheirTopicsSay(t *testing.T) {
	d := newBed(t, func(src *Sources) {
		cloud, _ := startBroker(t)
		src.Bridges = []*bridge.Bridge{startBridge(t, src.Broker, cloud.Addrs()[0].String())}
	})
	d.eventually("up", func(st Status) bool { return st.Bridges[0].State == "up" })
	said := nowUp(t, d)
	code, body := d.get("/api/v1/bridges")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(body), &rows); err != nil || code != http.StatusOK || len(rows) != 1 {
		t.Fatalf("bridges answers %d, %v:\n%s", code, err, body)
	}
	if names(rows[0]) != names(said) || rows[0]["name"] != "cloud" || rows[0]["state"] != "up" {
		t.Errorf("bridges answers\n%s\nand the topic has\n%v", body, said)
	}
}

// nowUp returns what the bridge says on its topic once it says that it is up.
func nowUp(t *testing.T, d *bed) (said map[string]any) {
	t.Helper()
	in, err := d.src.Broker.OpenInbox(t.Context(), "reader", mqtt.InboxOptions{MaxInflight: 1000}, mqtt.Subscription{Filter: "$SYS/broker/connection/cloud/status"})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for said["state"] != "up" {
		m, err := in.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		said = nil
		if err := json.Unmarshal(m.Payload, &said); err != nil {
			t.Fatal(err)
		}
	}
	return said
}

// names are the keys of a document.
func names(doc map[string]any) string {
	var list []string
	for name := range doc {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestBridgesOfNone(t *testing.T) {
	if code, body := newBed(t, nil).get("/api/v1/bridges"); code != http.StatusOK || body != "[]\n" {
		t.Errorf("bridges answers %d %q", code, body)
	}
}

func TestReconnectOverTheSocket(t *testing.T) {
	d := newBed(t, func(src *Sources) {
		cloud, _ := startBroker(t)
		src.Bridges = []*bridge.Bridge{startBridge(t, src.Broker, cloud.Addrs()[0].String())}
	})
	client := control(t, t.TempDir(), d.src)
	first := d.eventually("up", func(st Status) bool { return st.Bridges[0].State == "up" })
	for _, c := range []struct {
		method, path, body string
		code               int
	}{
		{"GET", "/api/v1/bridges", `"name": "cloud"`, 200},
		{"POST", "/api/v1/bridges", "is for GET", 405},
		{"GET", "/api/v1/bridges/cloud/reconnect", "is for POST", 405},
		{"POST", "/api/v1/bridges/clou%64x/reconnect", `"error": "there is no bridge \"cloudx\" that runs"`, 404},
		{"POST", "/api/v1/bridges//reconnect", `there is no bridge \"\"`, 404},
		{"POST", "/api/v1/bridges/reconnect", "this version has no", 404},
		{"POST", "/api/v1/bridges/cloud/reconnect", `"bridge": "cloud"`, 202},
	} {
		if code, body := ask(t, &client, c.method, c.path); code != c.code || !strings.Contains(body, c.body) {
			t.Errorf("%s %s: %d, %s", c.method, c.path, code, body)
		}
	}
	b := d.eventually("up again", func(st Status) bool { return st.Bridges[0].Connects == 2 && st.Bridges[0].State == "up" }).Bridges[0]
	if !b.Since.After(first.Bridges[0].Since) || len(b.Failures) != 0 || b.Error != "" {
		t.Errorf("bridge: %+v", b)
	}
}

// Whoever can only reach the page changes nothing, and learns the way.
func TestThePageDoesNotReconnect(t *testing.T) {
	d := newBed(t, func(src *Sources) {
		src.Bridges = []*bridge.Bridge{startBridge(t, src.Broker, testbed.ReserveAddr(t))}
	})
	resp, body := d.do(http.MethodPost, "/api/v1/bridges/cloud/reconnect", nil)
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "curl --unix-socket DATA_DIR/control.sock -X POST http://x/api/v1/bridges/cloud/reconnect") {
		t.Errorf("reconnect answers %d %s", resp.StatusCode, body)
	}
	checkError(t, resp, body)
	if resp, _ := d.do(http.MethodPost, "/api/v1/bridges", nil); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("bridges answers %d to POST", resp.StatusCode)
	}
}
