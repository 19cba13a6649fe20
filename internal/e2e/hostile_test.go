//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// attack is what hostile clients do to a gateway, each in a row of the table. It
// does it n times, and what it has opened stays open until the measuring is over.
type attack struct {
	name string
	n    int
	do   func(h *horde, i int)
}

var attacks = []attack{
	{"none: clients that connect and behave", 400, func(h *horde, i int) { h.connect(hello(i)) }},
	{"half-open connections", 400, func(h *horde, _ int) { h.dial() }},
	{"one byte at a time", 400, func(h *horde, i int) { k := hello(i); h.trickle(h.dial(), k.Append(nil)) }},
	{"a length of 256 MB", 400, func(h *horde, i int) { h.send(h.connect(hello(i)), []byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, 'a'}) }},
	{"parts of packets of 1 MB", 100, func(h *horde, i int) {
		h.send(h.connect(hello(i)), append([]byte{0x30, 0xc0, 0x84, 0x3d}, make([]byte, 900_000)...))
	}},
	{"subscriptions", 100, func(h *horde, i int) { h.subscribe(i) }},
	{"client ids", 2000, func(h *horde, i int) {
		h.close(h.connect(packet.Connect{Version: packet.V311, ClientID: fmt.Sprint("flood-", i)}))
	}},
	{"reconnects", 2000, func(h *horde, i int) { h.close(h.connect(hello(i % 16))) }},
	{"take-overs", 400, func(h *horde, _ int) { h.connect(hello(0)) }},
	{"wills of 60 KB", 400, func(h *horde, i int) {
		k := hello(i)
		k.Will = &packet.Will{Topic: "will", Payload: make([]byte, 60_000)}
		h.connect(k)
	}},
	{"everything to all, who read nothing", 100, func(h *horde, i int) { h.send(h.connect(hello(i)), everything()); h.flood("flood", 40, 0, false) }},
	{"everything to all, who acknowledge nothing", 100, func(h *horde, i int) { h.send(h.connect(hello(i)), everything()); h.flood("flood", 20, 1, false) }},
	{"retained messages of 8 KB", 100, func(h *horde, i int) { h.flood(fmt.Sprint("retained/", i), 100, 0, true) }},
	{"topics", 100, func(h *horde, i int) { h.flood(fmt.Sprint("topic/", i), 100, 0, false) }},
}

// TestHostileClients attacks the real binary and watches from outside how much
// memory it takes and how long the messages of two clients take that behave well.
func TestHostileClients(t *testing.T) {
	leak.Check(t)
	t.Log("| attack | times | refused | peak RSS MiB | anonymous | median ms | p99 ms | longest ms |")
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { a.run(t, scale(a.n)) })
	}
}

func (a *attack) run(t *testing.T, n int) {
	dir := t.TempDir()
	g := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	write(t, g.conf, fmt.Sprintf(`
gateway: {name: e2e, data_dir: %q, memory_limit: %d, log: {level: error}}
admin: {listen: "127.0.0.1:0"}
broker:
  listeners: [{address: "tcp://127.0.0.1:0"}]
  limits: {max_connections: 8000, max_sessions: 100000, max_subscriptions: 1000000, max_retained: 1000000}
`, g.data, memoryLimit))
	g.start()
	good := newPair(t, g)
	peak := g.measure()
	h := &horde{address: g.address}
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < n; i += 8 {
				a.do(h, i)
			}
		})
	}
	all.Wait()
	took := good.stop()
	used := peak()
	h.end()
	t.Logf("| %s | %d | %s | %.1f | %.1f | %.1f | %.1f | %.1f |", a.name, n, g.refused(t), mib(used.rss), mib(used.anon),
		ms(took[len(took)/2]), ms(took[len(took)*99/100]), ms(took[len(took)-1]))
	if used.anon > memoryLimit {
		t.Errorf("%v, memory_limit is %d MiB", used, memoryLimit>>20)
	}
}

func mib(bytes int) float64         { return float64(bytes) / (1 << 20) }
func ms(took time.Duration) float64 { return float64(took) / float64(time.Millisecond) }

// refused returns what the gateway says it has refused.
func (g *gateway) refused(t testing.TB) string {
	t.Helper()
	st := g.status(t)
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(st.Broker.Refused)) {
		if n := st.Broker.Refused[reason]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return strings.Join(list, ", ")
}

// pair is two clients that behave well: one publishes every few milliseconds at
// QoS 1, the other notes how long that took to arrive.
type pair struct {
	t    testing.TB
	done chan struct{}
	took chan []time.Duration
}

func newPair(t testing.TB, g *gateway) *pair {
	t.Helper()
	p := &pair{t: t, done: make(chan struct{}), took: make(chan []time.Duration, 1)}
	got := make(chan time.Duration, 1)
	dial := func(id string, handler func(client.Message)) *client.Conn {
		c, err := client.Dial(t.Context(), g.address, client.Options{ClientID: id, CleanSession: true, Handler: handler})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	pub := dial("good publisher", nil)
	sub := dial("good subscriber", func(m client.Message) {
		got <- time.Duration(time.Now().UnixNano() - int64(binary.BigEndian.Uint64(m.Payload)))
	})
	if _, err := sub.Subscribe(t.Context(), mqtt.Subscription{Filter: "good", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	go func() { p.took <- p.run(pub, got) }()
	return p
}

// run publishes until done is closed, and returns the times in ascending order.
func (p *pair) run(pub *client.Conn, got <-chan time.Duration) (took []time.Duration) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		payload := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
		if err := pub.Publish(p.t.Context(), mqtt.Message{Topic: "good", Payload: payload, QoS: 1}); err != nil {
			p.t.Errorf("a client that behaves well: %v", err)
			return append(took, patience)
		}
		select {
		case d := <-got:
			took = append(took, d)
		case <-time.After(patience):
			p.t.Error("a client that behaves well does not get its messages")
			return append(took, patience)
		}
		select {
		case <-tick.C:
		case <-p.done:
			slices.Sort(took)
			return took
		}
	}
}

func (p *pair) stop() []time.Duration {
	close(p.done)
	return <-p.took
}

// horde is hostile clients. What it cannot do because the gateway refuses is not
// its failure.
type horde struct {
	address string
	mu      sync.Mutex
	open    []net.Conn
}

// hello is a CONNECT of the i-th client.
func hello(i int) packet.Connect {
	return packet.Connect{Version: packet.V311, ClientID: fmt.Sprint("hostile-", i), CleanSession: true}
}

func everything() []byte {
	s := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "#", QoS: 1}}}
	return s.Append(nil)
}

// dial returns a connection, or nil.
func (h *horde) dial() net.Conn {
	c, err := net.Dial("tcp", h.address)
	if err != nil {
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = append(h.open, c)
	return c
}

// connect returns a connection whose CONNECT was answered, or nil.
func (h *horde) connect(k packet.Connect) net.Conn {
	c := h.dial()
	h.send(c, k.Append(nil))
	if c != nil {
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			return nil
		}
	}
	return c
}

func (h *horde) send(c net.Conn, b []byte) {
	if c != nil {
		_, _ = c.Write(b)
	}
}

func (h *horde) trickle(c net.Conn, b []byte) {
	for i := range b {
		h.send(c, b[i:i+1])
	}
}

func (h *horde) close(c net.Conn) {
	if c != nil {
		c.Close()
	}
}

// subscribe asks for a thousand filters, and waits for the answer.
func (h *horde) subscribe(i int) {
	c := h.connect(hello(i))
	if c == nil {
		return
	}
	s := packet.Subscribe{ID: 1}
	for j := range 1000 {
		s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: fmt.Sprintf("filter/%d/%d", i, j)})
	}
	h.send(c, s.Append(nil))
	_, _ = io.ReadFull(c, make([]byte, 1000))
}

// flood publishes n messages of 8 KB, each to a topic of its own below topic, and
// waits until the gateway has taken them.
func (h *horde) flood(topic string, n int, q mqtt.QoS, retain bool) {
	k := packet.Connect{Version: packet.V311, ClientID: "publisher of " + topic + fmt.Sprintf("%p", &n), CleanSession: true}
	c := h.connect(k)
	if c == nil {
		return
	}
	for i := range n {
		p := packet.Publish{Topic: fmt.Appendf(nil, "%s/%d", topic, i), Payload: make([]byte, 8000), QoS: q, ID: uint16(i + 1), Retain: retain}
		h.send(c, p.Append(nil))
	}
	h.send(c, packet.Pingreq{}.Append(nil))
	_, _ = io.ReadFull(c, make([]byte, 2+4*int(q)*n))
	h.close(c)
}

func (h *horde) end() {
	for _, c := range h.open {
		c.Close()
	}
}
