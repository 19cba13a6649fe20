//go:build linux

package interop

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
)

// limit is how long a cell may take. Most take less than a second, and the programs
// of some a second to start, of processor time.
const limit = time.Minute

// payloads are what is sent in each cell: short ones, one that needs more than
// one read, and the last one, which tells a driver to end.
var payloads = slices.Concat(numbered(20), []string{"21.4 °C", strings.Repeat("tide ", 6000), "end"})

func numbered(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint("reading ", i))
	}
	return list
}

// feature is a column of the table.
type feature struct {
	name   string
	scheme string // of the listener
	test   func(*cell)
}

// features returns all columns.
func features() []feature {
	list := []feature{
		{"QoS 0 from", "tcp", func(c *cell) { c.sends(0) }},
		{"QoS 1 from", "tcp", func(c *cell) { c.sends(1) }},
		{"QoS 2 from", "tcp", func(c *cell) { c.sends(2) }},
		{"QoS 0 to", "tcp", func(c *cell) { c.receives(0) }},
		{"QoS 1 to", "tcp", func(c *cell) { c.receives(1) }},
		{"QoS 2 to", "tcp", func(c *cell) { c.receives(2) }},
		{"retained", "tcp", (*cell).retains},
		{"will", "tcp", (*cell).dies},
		{"queue QoS 1", "tcp", func(c *cell) { c.returns(1) }},
		{"queue QoS 2", "tcp", func(c *cell) { c.returns(2) }},
	}
	for scheme, name := range map[string]string{"tls": "TLS", "ws": "WebSocket", "wss": "WebSocket, TLS"} {
		list = append(list, feature{name, scheme, (*cell).all})
	}
	slices.SortStableFunc(list[10:], func(a, b feature) int { return strings.Compare(a.scheme, b.scheme) })
	return list
}

// cell is a feature with a driver and a version of the protocol.
type cell struct {
	*testing.T
	ctx     context.Context
	gateway *gateway
	driver  *driver
	version int
	scheme  string
	topic   string // of its own
}

func TestClients(t *testing.T) {
	g, found := startGateway(t), newTable()
	t.Run("driver", func(t *testing.T) {
		for _, d := range drivers(t.TempDir()) {
			installed := d.install(t)
			for _, version := range d.versions {
				t.Run(fmt.Sprintf("%s/MQTT %s", d.name, protocols[version]), func(t *testing.T) {
					if !installed {
						t.Skipf("%s is not installed: scripts/test installs it where it may", d.name)
					}
					t.Parallel()
					testRow(t, g, d, version, found)
				})
			}
		}
	})
	found.compare(t)
}

// protocols are the names of the protocol levels.
var protocols = map[int]string{3: "3.1", 4: "3.1.1", 5: "5.0"}

// testRow tests all features of a driver, each for itself.
func testRow(t *testing.T, g *gateway, d *driver, version int, found *table) {
	for i, f := range features() {
		t.Run(f.name, func(t *testing.T) {
			defer func() { found.set(d, version, f.name, t) }()
			if !slices.Contains(d.schemes, f.scheme) {
				t.Skipf("the client has no %s://", f.scheme)
			}
			if g.url[f.scheme] == "" {
				t.Skipf("the gateway has no listener %s://", f.scheme)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			topic := fmt.Sprintf("interop/%s/%d/%d", strings.NewReplacer(" ", "-", ",", "").Replace(d.name), version, i)
			f.test(&cell{t, ctx, g, d, version, f.scheme, topic})
		})
	}
}

// start makes the driver do something. Every cell has a session of its own: what
// one left unacknowledged, as paho for Python does when it disconnects while it
// handles a message, would come again in the next.
func (c *cell) start(mode string, qos int, lines ...string) *process {
	c.Helper()
	j := job{mode: mode, url: c.gateway.url[c.scheme], version: c.version, qos: qos, topic: c.topic}
	does := mode
	if mode == leave || mode == back {
		does = c.scheme // the session that both are about
	}
	j.client = fmt.Sprintf("%.6s-%d-%.4s-%d", strings.ReplaceAll(c.driver.name, "paho for ", ""), c.version, does, qos)
	if c.scheme == "tls" || c.scheme == "wss" {
		j.ca = c.gateway.ca
	}
	input := ""
	for _, line := range lines {
		input += line + "\n"
	}
	words := c.driver.command(j)
	return start(c.T, c.ctx, input, words[0], words[1:]...)
}

// await waits until the driver says that it is ready.
func (c *cell) await(p *process, mode string) {
	c.Helper()
	ready := c.driver.ready[mode]
	if ready == "" {
		ready = "ready"
	}
	p.await(c.T, ready)
}

// peer connects the client that the driver exchanges messages with, which is
// ours. What it receives goes to the channel.
func (c *cell) peer() (*client.Conn, <-chan client.Message) {
	c.Helper()
	got := make(chan client.Message, 10*len(payloads))
	conn, err := client.Dial(c.ctx, strings.TrimPrefix(c.gateway.url["tcp"], "tcp://"), client.Options{
		CleanSession: true, Handler: func(m client.Message) { got <- m },
	})
	if err != nil {
		c.Fatalf("connect the other client: %v", err)
	}
	c.Cleanup(conn.Close)
	return conn, got
}

// listen is a peer that subscribes to the cell's topic.
func (c *cell) listen(qos int) <-chan client.Message {
	c.Helper()
	conn, got := c.peer()
	granted, err := conn.Subscribe(c.ctx, mqtt.Subscription{Filter: c.topic, QoS: mqtt.QoS(qos)})
	if err != nil || granted[0] != mqtt.QoS(qos) {
		c.Fatalf("subscribe: granted %v, %v", granted, err)
	}
	return got
}

// next is the next message that a peer receives.
func (c *cell) next(got <-chan client.Message) client.Message {
	c.Helper()
	select {
	case m := <-got:
		return m
	case <-c.ctx.Done():
		c.Fatal("a message is missing")
		return client.Message{}
	}
}

// send publishes all payloads by a peer.
func (c *cell) send(qos int) {
	c.Helper()
	conn, _ := c.peer()
	for _, p := range payloads {
		m := mqtt.Message{Topic: c.topic, Payload: []byte(p), QoS: mqtt.QoS(qos)}
		if err := conn.Publish(c.ctx, m); err != nil {
			c.Fatalf("publish: %v", err)
		}
	}
	if err := conn.Disconnect(); err != nil {
		c.Fatal(err)
	}
}

// sends lets the driver publish: each payload arrives once, in order.
func (c *cell) sends(qos int) {
	got := c.listen(qos)
	c.start(publish, qos, payloads...).finish(c.T)
	for i, want := range payloads {
		m := c.next(got)
		if string(m.Payload) != want || m.QoS != mqtt.QoS(qos) || m.Retain {
			c.Fatalf("message %d is %.60q at QoS %d (retain %t), want %.60q at QoS %d", i, m.Payload, m.QoS, m.Retain, want, qos)
		}
	}
	// Whatever came twice would stand before what is published now.
	conn, _ := c.peer()
	if err := conn.Publish(c.ctx, mqtt.Message{Topic: c.topic, Payload: []byte("after"), QoS: 1}); err != nil {
		c.Fatal(err)
	}
	if m := c.next(got); string(m.Payload) != "after" {
		c.Errorf("a message too many: %.60q", m.Payload)
	}
}

// receives lets the driver subscribe: each payload arrives once, in order.
func (c *cell) receives(qos int) {
	p := c.start(receive, qos)
	c.await(p, receive)
	c.send(qos)
	c.same(p.messages(c.T), qos)
}

// same compares what a driver has printed with the payloads.
func (c *cell) same(got []string, qos int) {
	c.Helper()
	for i, p := range payloads {
		want := printed(0, qos, p)
		if i >= len(got) || got[i] != want {
			c.Fatalf("%d messages, number %d is %.60q, want %d, and there %.60q", len(got), i, append(got, "missing")[min(i, len(got))], len(payloads), want)
		}
	}
	if len(got) > len(payloads) {
		c.Errorf("messages too many: %.200q", got[len(payloads):])
	}
}

// printed is a message as a driver prints it.
func printed(retained, qos int, payload string) string {
	return fmt.Sprintf("%d %d %s", retained, qos, hex.EncodeToString([]byte(payload)))
}

// retains lets the driver publish a retained message, and subscribe later: the
// message comes with its flag, and before what is published then.
func (c *cell) retains() {
	c.start(retain, 1, "before", "kept").finish(c.T)
	p := c.start(receive, 1)
	c.await(p, receive)
	c.send(1)
	got := p.messages(c.T)
	if len(got) == 0 || got[0] != printed(1, 1, "kept") {
		c.Fatalf("%.200q does not begin with the retained message %q", got, printed(1, 1, "kept"))
	}
	for i, m := range got[1:] {
		if m != printed(0, 1, payloads[i]) {
			c.Fatalf("message %d after the retained one is %.60q", i, m)
		}
	}
}

// all is a little of everything over another transport. What is published with
// nobody there is acknowledged in bursts, and a queue comes as one.
func (c *cell) all() {
	c.start(publish, 1, payloads...).finish(c.T)
	c.sends(1)
	c.receives(2)
	c.returns(1)
}

// dies ends the driver's process without a word: its will is published.
func (c *cell) dies() {
	got := c.listen(1)
	p := c.start(will, 1)
	c.await(p, will)
	if err := p.cmd.Process.Kill(); err != nil {
		c.Fatal(err)
	}
	if m := c.next(got); string(m.Payload) != "gone" || m.QoS != 1 || m.Retain {
		c.Errorf("the will is %.60q at QoS %d (retain %t)", m.Payload, m.QoS, m.Retain)
	}
}

// returns lets the driver subscribe and go away: what is published meanwhile is
// there when it comes back to its session, each payload once.
func (c *cell) returns(qos int) {
	c.start(leave, qos).finish(c.T)
	c.send(qos)
	p := c.start(back, qos)
	c.same(p.messages(c.T), qos)
	if c.version > 3 && slices.Contains(p.said, "session 0") { // MQTT 3.1 does not tell
		c.Error("the client was told that it had no session")
	}
}
