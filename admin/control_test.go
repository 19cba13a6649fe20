package admin

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/mqtt"
)

// controlled starts a control socket on a broker with one message in the queue of
// the inbox bridge/cloud, and returns its folder and who asks over it.
func controlled(t *testing.T) (dir string, client http.Client) {
	t.Helper()
	d := newBed(t, nil)
	in, err := d.src.Broker.OpenInbox(t.Context(), "bridge/cloud", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a/#", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := d.src.Broker.Publish(t.Context(), mqtt.Message{Topic: "a/b", Payload: []byte("<&>"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, socketName), nil, 0o600); err != nil { // of a crash
		t.Fatal(err)
	}
	c := NewControl(dir, d.src, quiet)
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	running(t, c.Serve)
	client.Timeout = patience
	client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return DialControl(ctx, dir)
	}}
	return dir, client
}

func TestControlSocketIsForItsOwner(t *testing.T) {
	dir, _ := controlled(t)
	info, err := os.Stat(filepath.Join(dir, socketName))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket has the mode %v, %v", info.Mode(), err)
	}
}

func TestControlAnswers(t *testing.T) {
	_, client := controlled(t)
	for _, c := range []struct {
		method, path, body string
		code               int
	}{
		{"GET", "/api/v1/queues", `"name": "bridge/cloud"`, 200},
		{"GET", "/api/v1/queues/messages?queue=bridge/cloud", `"topic":"a/b","qos":1,"payload":"<&>"}` + "\n", 200},
		{"GET", "/api/v1/queues/messages?queue=bridge/cloud&after=9", "", 200},
		{"GET", "/api/v1/queues/messages?queue=bridge/cloud&after=x", `after is \"x\": give a whole number`, 400},
		{"GET", "/api/v1/queues/messages?queue=no", "there is no such queue", 404},
		{"GET", "/api/v1/store/verify", `"damage": []`, 200},
		{"POST", "/api/v1/bridges/requeue?bridge=no", `there is no bridge \"no\" that runs`, 404},
		{"GET", "/api/v1/bridges/requeue", "is for POST", 405},
		{"GET", "/api/v1/queues/purge?queue=bridge/cloud", "is for POST", 405},
		{"POST", "/api/v1/queues/purge?queue=no", "there is no such queue", 404},
		{"POST", "/api/v1/queues/purge?queue=bridge/cloud", `"messages": 1`, 200},
		{"POST", "/api/v1/queues", "is for GET", 405},
		{"GET", "/", "this version has no /", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://gateway"+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.code || !strings.Contains(string(body), c.body) || c.body == "" && len(body) > 0 {
			t.Errorf("%s %s: %d, %s, %v", c.method, c.path, resp.StatusCode, body, err)
		}
	}
}

// The page's API has the numbers, not the messages.
func TestQueuesOverTheNetwork(t *testing.T) {
	d := newBed(t, nil)
	for path, want := range map[string]int{"/api/v1/queues": 200, "/api/v1/queues/messages": 404, "/api/v1/store/verify": 404} {
		resp, err := d.http.Get("http://" + d.admin.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		var rows []Queue
		err = json.NewDecoder(resp.Body).Decode(&rows)
		resp.Body.Close()
		if resp.StatusCode != want || want == 200 && err != nil {
			t.Errorf("%s answers %d, %v", path, resp.StatusCode, err)
		}
	}
}
