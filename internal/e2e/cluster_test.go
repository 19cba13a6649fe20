//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/testbed"
)

// cluster is servers upstream, mostly three, each behind a tap. What the taps see
// goes into the same ledgers.
type cluster struct {
	t         testing.TB
	nodes     []*node
	published *ledger
	acked     *ledger
	shared    bool // what one node has, the others have
}

// node is one server of a cluster. It keeps its addresses and its data.
type node struct {
	tap     *tap
	address string                    // of MQTT
	launch  func(*node)               // starts the process
	ready   func(*node) (bool, error) // whether it can do its work again
	process *process
}

func newCluster(t testing.TB, nodes int) *cluster {
	t.Helper()
	c := &cluster{t: t, published: newLedger(), acked: newLedger()}
	for range nodes {
		n := &node{tap: newTap(t, c.published, c.acked), address: testbed.ReserveAddr(t)}
		n.tap.setTarget(n.address)
		c.nodes = append(c.nodes, n)
	}
	return c
}

// servers are the addresses for the bridge.
func (c *cluster) servers() (list []string) {
	for _, n := range c.nodes {
		list = append(list, n.tap.address())
	}
	return list
}

// used is over how many connections the bridge has published something.
func (c *cluster) used() (sum int) {
	for _, n := range c.nodes {
		n.tap.look(func() { sum += n.tap.used })
	}
	return sum
}

// awaitUsed returns the node that the bridge publishes to, as soon as there is one.
func (c *cluster) awaitUsed() *node {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for {
		for _, n := range c.nodes {
			used := false
			n.tap.look(func() { used = n.tap.carrying > 0 })
			if used {
				return n
			}
		}
		if ctx.Err() != nil {
			c.t.Fatal("the bridge publishes to no server")
		}
		pause(ctx)
	}
}

// start launches the nodes and returns when each can do its work.
func (c *cluster) start(nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		n.launch(n)
	}
	for _, n := range nodes {
		c.awaitReady(n)
	}
}

func (c *cluster) awaitReady(n *node) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*patience)
	defer cancel()
	for {
		ok, err := n.ready(n)
		switch {
		case ok:
			return
		case ctx.Err() != nil || n.process.hasEnded():
			c.t.Fatalf("a server of the cluster does not get ready: %v", err)
		}
		pause(ctx)
	}
}

// auditor is the client that reads, in the end, what the cluster has.
const auditor = "auditor"

// order lets the cluster keep all that comes for the auditor. A cluster that has
// just come together may need a second try.
func (c *cluster) order() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for c.shared {
		err := leaveSession(ctx, c.nodes[0].address, auditor)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			c.t.Fatal(err)
		}
		pause(ctx)
	}
}

// audit reads what the cluster has for the auditor until there is nothing more of
// what it has acknowledged.
func (c *cluster) audit() *ledger {
	c.t.Helper()
	got := newLedger()
	conn, err := client.Dial(c.t.Context(), c.nodes[1].address, client.Options{
		ClientID: auditor, KeepAlive: 10 * time.Second,
		Handler: func(m client.Message) { got.add(m.Topic, m.Payload) },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	for {
		before, missing := got.count(), len(c.acked.without(got, ""))
		if missing == 0 {
			return got
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), patience)
		err := got.wait(ctx, func() bool { return got.countLocked() > before })
		cancel()
		if err != nil {
			c.t.Errorf("%d messages that the cluster has acknowledged are not there: %s", missing, some(c.acked.without(got, "")))
			return got
		}
	}
}

// Three servers, of which the one that the bridge publishes to is killed, and
// started again, while messages flow through the gateway. All that publishers were told to be safe arrives, in order.
func TestServersThatAreKilledInTurn(t *testing.T) {
	for _, c := range []struct {
		name     string
		make     func(testing.TB, int) *cluster
		protocol int
		full     bool // not in a normal run
	}{
		{"NATS", newNATS, 4, false},
		{"RabbitMQ MQTT 3.1.1", newRabbitMQ, 4, true},
		{"RabbitMQ MQTT 5", newRabbitMQ5, 5, true},
		{"mosquitto MQTT 3.1.1", newMosquittos, 4, true},
		{"mosquitto MQTT 5", newMosquittos, 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.full && !isFull() {
				t.Skip("only with TIDEGATE_E2E=full: it takes minutes")
			}
			leak.Check(t)
			killInTurn(t, c.make(t, 3), c.protocol)
		})
	}
}

func killInTurn(t *testing.T, c *cluster, protocol int) {
	total, kills := scale(5000), 3
	switch {
	case isFull():
		kills = 9
	case c.shared: // an election takes ten seconds
		kills = 1
	}
	c.start(c.nodes...)
	c.order()
	g := newGatewayTo(t, protocol, c.servers(), "")
	g.awaitUplink()
	f := newFleet(t, g)
	began := time.Now()
	for i := range kills {
		at, part := total*(i+1)/(kills+1), total/(kills+1)
		f.allow(at + part)
		c.acked.awaitCount(c.t, at)
		n := c.awaitUsed()
		n.process.end(syscall.SIGKILL)
		killed := time.Now()
		c.acked.awaitCount(c.t, at+part/2)
		t.Logf("message %6d: server %d is killed, %d messages arrive within %v", at, slices.Index(c.nodes, n)+1, part/2, time.Since(killed).Round(time.Millisecond))
		c.start(n)
	}
	f.allow(total)
	f.awaitAcked(t, total)
	c.acked.awaitCount(c.t, total)
	took := time.Since(began)
	duplicates, cuts := c.published.duplicates(), c.used()-1
	t.Logf("%d messages through %d lost connections in %v: %d lost, %d duplicates upstream, max_inflight %d",
		total, cuts, took.Round(time.Millisecond), len(f.done.without(c.acked, prefix)), duplicates, maxInflight)
	if lost := f.done.without(c.acked, prefix); len(lost) > 0 || f.done.count() != total {
		t.Errorf("%d of %d messages that were acknowledged to publishers are not upstream: %s", len(lost), f.done.count(), some(lost))
	}
	if cuts < kills {
		t.Errorf("the bridge has lost %d connections, the kills have missed it", cuts)
	}
	if duplicates > cuts*maxInflight {
		t.Errorf("%d duplicates upstream, at most %d are allowed", duplicates, cuts*maxInflight)
	}
	if n := g.status(t).Bridges[0].DeadLetters; n > 0 {
		t.Errorf("%d messages were put aside as if they were what a server does not take", n)
	}
	c.published.checkOrder(t, "the bridge")
	if c.shared {
		got := c.audit()
		got.checkOrder(t, "the cluster")
		t.Logf("the cluster handed out %d messages, %d of them twice", got.count(), got.duplicates())
	}
}

// newMosquittos are servers that know nothing of each other. What one of
// them has not saved when it is killed is lost, so only their word counts.
func newMosquittos(t testing.TB, nodes int) *cluster {
	t.Helper()
	program := testbed.Find(t, "mosquitto")
	c := newCluster(t, nodes)
	for _, n := range c.nodes {
		conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n", port(n.address))
		file := t.TempDir() + "/mosquitto.conf"
		write(t, file, conf)
		n.launch = func(n *node) { n.process = start(t, program, "-c", file) }
		n.ready = func(n *node) (bool, error) { return len(n.process.with("running")) > 0, nil }
	}
	return c
}

func port(address string) string { return address[slices.Index([]byte(address), ':')+1:] }
