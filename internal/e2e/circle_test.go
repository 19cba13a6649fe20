//go:build linux

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
)

// Two gateways that are bridged to each other, whichever way: what is published
// at one arrives at the other, and does not go on in a circle.
func TestGatewaysBridgedToEachOther(t *testing.T) {
	leak.Check(t)
	const (
		out = `out: [{topics: ["x/#"]}]`
		in  = `in: [{topics: ["x/#"]}]`
	)
	for name, rules := range map[string]string{"both push": out, "both pull": in, "both do both": out + "\n    " + in} {
		t.Run(name, func(t *testing.T) {
			here, there := testbed.ReserveAddr(t), testbed.ReserveAddr(t)
			one := newPeer(t, "one", here, there, rules)
			two := newPeer(t, "two", there, here, rules)
			one.awaitUplink()
			two.awaitUplink()
			a, b := one.watch(t, "x/#"), two.watch(t, "x/#")
			const n = 100
			for i := range n {
				a.publish(t, "x/one", fmt.Sprint(i))
				a.publish(t, "x/one", "the same")
				b.publish(t, "x/two", fmt.Sprint(i))
			}
			// What went in a circle would come again and again.
			for round := range 20 {
				a.publish(t, "x/end/one", fmt.Sprint(round))
				b.awaitPayload(t, "x/end/one", fmt.Sprint(round))
				b.publish(t, "x/end/two", fmt.Sprint(round))
				a.awaitPayload(t, "x/end/two", fmt.Sprint(round))
			}
			for name, w := range map[string]*watcher{"one": a, "two": b} {
				w.mu.Lock()
				for topic, least := range map[string]int{"x/one": 2 * n, "x/two": n} {
					if got := w.counts[topic]; got < least || got > 4*least || got != least && !strings.Contains(rules, "\n") {
						t.Errorf("%s got %d messages of %s, want %d", name, got, topic, least)
					}
				}
				t.Logf("%s got %v", name, w.counts)
				w.mu.Unlock()
			}
		})
	}
}

// newPeer starts a gateway called name at an address that has to be known before.
func newPeer(t testing.TB, name, address, server, rules string) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	write(t, g.conf, fmt.Sprintf(`
gateway: {name: %s, data_dir: %s}
admin: {listen: "127.0.0.1:0"}
broker:
  listeners: [{address: "tcp://%s"}]
bridges:
  - name: peer
    servers: ["tcp://%s"]
    will: false
    backoff: {min: 50ms, max: 500ms}
    %s
`, name, g.data, address, server, rules))
	g.start()
	return g
}

// watcher is a client that counts what it gets.
type watcher struct {
	watched
	conn   *client.Conn
	counts map[string]int
	last   map[string]string
}

func newWatcher() *watcher {
	return &watcher{counts: make(map[string]int), last: make(map[string]string)}
}

func (w *watcher) take(m client.Message) {
	w.update(func() {
		w.counts[m.Topic]++
		w.last[m.Topic] = string(m.Payload)
	})
}

func (g *gateway) watch(t testing.TB, filter string) *watcher {
	t.Helper()
	w := newWatcher()
	conn, err := g.dial(context.Background(), client.Options{ClientID: "watcher", CleanSession: true, Handler: w.take})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if _, err := conn.Subscribe(t.Context(), mqtt.Subscription{Filter: filter, QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	w.conn = conn
	return w
}

func (w *watcher) publish(t testing.TB, topic, payload string) {
	t.Helper()
	if err := w.conn.Publish(t.Context(), mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
}

// awaitPayload waits until the last message of topic is payload.
func (w *watcher) awaitPayload(t testing.TB, topic, payload string) {
	t.Helper()
	w.await(t, payload+" of "+topic, func() bool { return w.last[topic] == payload })
}
