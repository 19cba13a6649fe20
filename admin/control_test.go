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
	return dir, control(t, dir, d.src)
}

// control starts a control socket in dir and returns who asks over it.
func control(t *testing.T, dir string, src Sources) (client http.Client) {
	t.Helper()
	c := NewControl(dir, src, quiet)
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	running(t, c.Serve)
	client.Timeout = patience
	client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return DialControl(ctx, dir)
	}}
	return client
}

// ask sends a request and returns code and body of the answer.
func ask(t *testing.T, client *http.Client, method, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://gateway"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
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
		code, body := ask(t, &client, c.method, c.path)
		if code != c.code || !strings.Contains(body, c.body) || c.body == "" && body != "" {
			t.Errorf("%s %s: %d, %s", c.method, c.path, code, body)
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
