//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"tidegate/admin"
	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/mqtt"
)

// A server that takes messages and acknowledges none is left for the next, and whoever
// reads events sees so.
func TestAStallIsAnEvent(t *testing.T) {
	leak.Check(t)
	u := newUpstream(t)
	mute, err := proxy.Listen(u.tap.address())
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) { _ = mute.Run(ctx) })
	g := newGatewayTo(t, 4, []string{mute.Addr(), u.address()}, "")
	g.awaitUplink()
	next := g.events(t)
	mute.SetMode(proxy.DownOnly)
	c, err := g.dial(t.Context(), client.Options{CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Publish(t.Context(), mqtt.Message{Topic: "sensor/x", Payload: []byte("1"), QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	if e := next("client"); e.State != "connected" {
		t.Errorf("got %+v", e)
	}
	for _, want := range []admin.Event{
		{State: "down", Place: "tcp://" + mute.Addr(), Cause: "stalled"},
		{State: "up", Place: "tcp://" + u.address()},
	} {
		if e := next("bridge"); e.Name != "cloud" || e.State != want.State || e.Place != want.Place || e.Cause != want.Cause {
			t.Errorf("got %+v, want %+v", e, want)
		}
	}
	u.tap.acked.await(t, "the message", func() bool { return u.tap.acked.of(prefix+"sensor/x").highest == 1 })
}

// events returns what waits for the gateway's next event of a kind.
func (g *gateway) events(t *testing.T) (next func(kind string) admin.Event) {
	t.Helper()
	const listening = "listening on http://"
	page := "http://" + strings.TrimPrefix(g.process.awaitLine(t, listening), listening)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, page+"api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	lines := bufio.NewScanner(answer.Body)
	return func(kind string) (e admin.Event) {
		t.Helper()
		for e.Kind != kind && lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					t.Fatal(err)
				}
			}
		}
		if e.Kind != kind {
			t.Fatalf("no event of a %s: %v", kind, lines.Err())
		}
		return e
	}
}
