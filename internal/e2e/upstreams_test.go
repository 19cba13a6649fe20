//go:build linux

package e2e

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// upstreamFacts is what docs/bridge.md says about a server.
type upstreamFacts struct {
	name string
	make func(testing.TB, int) *cluster
	full bool // not in a normal run

	topics    map[string]string // what arrives of a topic that does not arrive as it is; "": it becomes a dead letter
	clientIDs []string          // of oddIDs, which it refuses
	granted   mqtt.QoS          // of a subscription at QoS 2
	twoAsOne  bool              // it answers a PUBLISH at QoS 2 with PUBACK
	retained  bool              // a subscription with a wildcard gets what is retained
	five      bool              // it speaks MQTT 5
}

// oddTopics are published at the gateway, below odd/.
var oddTopics = []string{"plain", "a.b", "a b", "/empty/", "ü☃", "x>y", "$x"}

// oddIDs are client ids as names of gateways make them.
var oddIDs = []string{"tidegate-pump.house", "tidegate-pump house"}

// What docs/bridge.md says about servers upstream is so.
func TestUpstreams(t *testing.T) {
	for _, f := range []upstreamFacts{
		{name: "mosquitto", make: newMosquittos, granted: mqtt.ExactlyOnce, retained: true, five: true},
		{
			name: "NATS", make: newNATS, granted: mqtt.ExactlyOnce, retained: true,
			topics: map[string]string{"a b": ""}, clientIDs: oddIDs,
		},
		{
			name: "RabbitMQ", make: newRabbitMQ, granted: mqtt.AtLeastOnce, full: true, twoAsOne: true,
			topics: map[string]string{"a.b": "a/b"}, five: rabbitMQSpeaks5(t),
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			if f.full && !isFull() {
				t.Skip("only with TIDEGATE_E2E=full: it takes half a minute to start")
			}
			leak.Check(t)
			c := f.make(t, 1)
			c.start(c.nodes...)
			f.check(t, c.nodes[0].address)
		})
	}
}

func (f upstreamFacts) check(t *testing.T, server string) {
	there := visitor(t, server)
	if code := there.subscribe(t, "odd/#"); code != f.granted {
		t.Errorf("a subscription at QoS 2 is granted QoS %d, want %d", code, f.granted)
	}
	g := newPeer(t, "pump-house", testbed.ReserveAddr(t), server, `stall_timeout: 1s
    out: [{topics: ["odd/#", "kept/#"]}]
    in: [{topics: ["command/#"], qos: 2}]`)
	g.awaitUplink()
	here := g.watch(t, "command/#")
	want := map[string]string{"odd/end": "end"}
	for _, topic := range oddTopics {
		here.publish(t, "odd/"+topic, topic)
		if becomes, odd := f.topics[topic]; !odd {
			want["odd/"+topic] = topic
		} else if becomes != "" {
			want["odd/"+becomes] = topic
		}
	}
	if err := here.conn.Publish(t.Context(), mqtt.Message{Topic: "kept/a", Payload: []byte("kept"), QoS: mqtt.AtLeastOnce, Retain: true}); err != nil {
		t.Fatal(err)
	}
	here.publish(t, "odd/end", "end")
	there.awaitPayload(t, "odd/end", "end")
	there.look(func() {
		if !maps.Equal(there.last, want) {
			t.Errorf("there arrives %v, want %v", there.last, want)
		}
	})
	f.checkDeadLetters(t, g)
	f.checkRetained(t, server)
	f.checkCommands(t, server, here)
	f.checkClientIDs(t, server)
	f.checkFive(t, server)
}

func (f upstreamFacts) checkDeadLetters(t *testing.T, g *gateway) {
	t.Helper()
	dead := 0
	for _, becomes := range f.topics {
		if becomes == "" {
			dead++
		}
	}
	if n := g.status(t).Bridges[0].DeadLetters; int(n) != dead {
		t.Errorf("%d messages became dead letters, want %d", n, dead)
	}
}

// checkRetained checks who gets a retained message: who names its topic, and
// perhaps who has a wildcard.
func (f upstreamFacts) checkRetained(t *testing.T, server string) {
	t.Helper()
	exact := visitor(t, server)
	exact.subscribe(t, "kept/a")
	exact.awaitPayload(t, "kept/a", "kept")
	wild := visitor(t, server)
	wild.subscribe(t, "kept/#")
	wild.subscribe(t, "mark/#")
	wild.publish(t, "mark/a", "mark")
	wild.awaitPayload(t, "mark/a", "mark") // what was retained came before
	wild.look(func() {
		if _, got := wild.last["kept/a"]; got != f.retained {
			t.Errorf("a wildcard gets what is retained: %t, want %t", got, f.retained)
		}
	})
}

// checkCommands sends a command at QoS 2 from upstream.
func (f upstreamFacts) checkCommands(t *testing.T, server string, here *watcher) {
	t.Helper()
	from := visitor(t, server)
	err := from.conn.Publish(t.Context(), mqtt.Message{Topic: "command/a", Payload: []byte("on"), QoS: mqtt.ExactlyOnce})
	if refused := err != nil && strings.Contains(err.Error(), "PUBACK"); refused != f.twoAsOne || err != nil && !refused {
		t.Errorf("a command at QoS 2: %v", err)
	}
	here.awaitPayload(t, "command/a", "on")
	here.look(func() {
		if n := here.counts["command/a"]; n != 1 {
			t.Errorf("the command comes %d times", n)
		}
	})
}

func (f upstreamFacts) checkClientIDs(t *testing.T, server string) {
	t.Helper()
	for _, id := range oddIDs {
		conn, err := client.Dial(t.Context(), server, client.Options{ClientID: id, CleanSession: true})
		if err == nil {
			conn.Close()
		}
		r := (*client.RefusedError)(nil)
		if refused := errors.As(err, &r) && r.Code == packet.RefusedClientID; refused != slices.Contains(f.clientIDs, id) || err != nil && !refused {
			t.Errorf("the client id %q: %v", id, err)
		}
	}
}

func (f upstreamFacts) checkFive(t *testing.T, server string) {
	t.Helper()
	conn, err := client.Dial(t.Context(), server, client.Options{ClientID: "five", CleanSession: true, Version: packet.V5})
	if (err == nil) != f.five {
		t.Errorf("MQTT 5: %v", err)
	}
	if err == nil {
		conn.Close()
	}
}

// visitor is a client of the server upstream.
func visitor(t testing.TB, server string) *watcher {
	t.Helper()
	w := newWatcher()
	conn, err := client.Dial(t.Context(), server, client.Options{CleanSession: true, Handler: w.take})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	w.conn = conn
	return w
}

// subscribe returns what a subscription at QoS 2 is granted.
func (w *watcher) subscribe(t testing.TB, filter string) mqtt.QoS {
	t.Helper()
	codes, err := w.conn.Subscribe(t.Context(), mqtt.Subscription{Filter: filter, QoS: mqtt.ExactlyOnce})
	if err != nil {
		t.Fatal(err)
	}
	return codes[0]
}
