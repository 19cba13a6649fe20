//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/proxy"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
)

// upstream is everything behind the uplink, in this order: the network, the tap,
// mosquitto, and the collector, which is connected to mosquitto directly.
//
// Mosquitto acknowledges a message before it saves it, and keeps nothing here
// anyway. What it had acknowledged and not yet passed on when it was killed is
// lost, and that is its loss, not the bridge's: the tap has seen the PUBACK.
// Such messages are excused from reaching the collector, exactly those and no
// others; everything else that was acknowledged has to be there. So that no
// other message is acknowledged and lost, the tap lets nobody through to a
// mosquitto to which the collector has not subscribed.
type upstream struct {
	t         testing.TB
	network   *proxy.Proxy
	tap       *tap
	conf      string
	server    *process
	collector *collector
	excused   map[message]bool
}

// newUpstream starts all of it, or skips the test where there is no mosquitto.
func newUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{
		t:         t,
		tap:       newTap(t, newLedger(), newLedger()),
		conf:      filepath.Join(t.TempDir(), "mosquitto.conf"),
		collector: &collector{got: newLedger()},
		excused:   make(map[message]bool),
	}
	testbed.Find(t, "mosquitto")
	network, err := proxy.Listen(u.tap.address())
	if err != nil {
		t.Fatal(err)
	}
	u.network = network
	background(t, func(ctx context.Context) {
		if err := network.Run(ctx); err != nil {
			t.Errorf("the proxy ends: %v", err)
		}
	})
	background(t, u.collector.run)
	u.start()
	return u
}

// address is what the bridge connects to.
func (u *upstream) address() string { return u.network.Addr() }

// start returns when mosquitto runs, on a new port, and the collector has
// subscribed. Only then the uplink is open.
func (u *upstream) start() {
	u.t.Helper()
	address := u.startServer()
	u.collector.update(func() { u.collector.server = address })
	u.collector.await(u.t, "the collector's subscription", func() bool { return u.collector.subscribed })
	u.tap.setTarget(address)
}

// startServer starts mosquitto on a new port and returns its address.
func (u *upstream) startServer() (address string) {
	u.t.Helper()
	address = testbed.ReserveAddr(u.t)
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n", port(address))
	if os.Geteuid() == 0 {
		conf += "user root\n" // else it cannot read its configuration
	}
	write(u.t, u.conf, conf)
	u.server = start(u.t, testbed.Find(u.t, "mosquitto"), "-c", u.conf)
	u.server.awaitLine(u.t, "running")
	return address
}

// kill takes mosquitto away in mid-flow and notes what it takes with it.
func (u *upstream) kill() {
	u.t.Helper()
	u.tap.setTarget("")
	u.collector.update(func() { u.collector.server = "" })
	u.server.end(syscall.SIGKILL)
	u.tap.await(u.t, "the end of the uplink", func() bool { return u.tap.active == 0 })
	u.collector.await(u.t, "the end of the collector's connection", func() bool { return !u.collector.subscribed })
	for _, m := range u.tap.acked.without(u.collector.got, "") {
		u.excused[m] = true
	}
}

// cuts is how many connections the bridge has lost over which it had published. On a
// busy machine they are more than a test has cut: a server that gets no processor for
// stall_timeout looks like one that hangs.
func (u *upstream) cuts() (n int) {
	u.tap.look(func() { n = max(0, u.tap.used-1) })
	return n
}

// check fails the test unless the collector has all that mosquitto has
// acknowledged, apart from what mosquitto itself has lost, in order.
func (u *upstream) check() {
	u.t.Helper()
	u.collector.got.await(u.t, "the collector to catch up", func() bool {
		for topic, e := range u.tap.acked.topics { // nothing is under way any more
			if u.collector.got.of(topic).highest < e.highest {
				return false
			}
		}
		return true
	})
	for _, m := range u.tap.acked.without(u.collector.got, "") {
		if !u.excused[m] {
			u.t.Errorf("message %d of %s was acknowledged upstream, but the collector has not got it", m.n, m.topic)
			return
		}
	}
	u.tap.published.checkOrder(u.t, "the bridge")
	u.tap.acked.checkOrder(u.t, "mosquitto")
	u.collector.got.checkOrder(u.t, "the collector")
}

// collector subscribes to everything upstream, again after each restart.
type collector struct {
	watched
	server     string // empty: down
	subscribed bool
	got        *ledger
}

func (c *collector) run(ctx context.Context) {
	for ctx.Err() == nil {
		var server string
		if c.wait(ctx, func() bool { server = c.server; return server != "" }) != nil {
			return
		}
		if conn, err := c.connect(ctx, server); err == nil {
			c.update(func() { c.subscribed = true })
			select {
			case <-conn.Done():
			case <-ctx.Done():
			}
			conn.Close()
			c.update(func() { c.subscribed = false })
		}
		pause(ctx)
	}
}

func (c *collector) connect(ctx context.Context, server string) (*client.Conn, error) {
	conn, err := client.Dial(ctx, server, client.Options{
		CleanSession: true,
		Handler:      func(m client.Message) { c.got.add(m.Topic, m.Payload) },
	})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Subscribe(ctx, mqtt.Subscription{Filter: prefix + "#", QoS: mqtt.AtLeastOnce}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
