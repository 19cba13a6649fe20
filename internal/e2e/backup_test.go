//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt"
)

// tidegate runs the program to its end, which has to be a good one.
func tidegate(t *testing.T, args ...string) *process {
	t.Helper()
	p := start(t, program, args...)
	if code := p.exit(t, patience); code != 0 {
		p.show(t)
		t.Fatalf("%v ends with %d", args, code)
	}
	return p
}

// leave makes a durable session with one subscription and goes.
func leave(t *testing.T, g *gateway, id, filter string) {
	t.Helper()
	c, err := g.dial(t.Context(), client.Options{ClientID: id})
	if err == nil {
		_, err = c.Subscribe(t.Context(), mqtt.Subscription{Filter: filter, QoS: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// come takes over a session and notes all that it is sent.
func come(t *testing.T, g *gateway, id string) *ledger {
	t.Helper()
	l := newLedger()
	c, err := g.dial(t.Context(), client.Options{ClientID: id, Handler: func(m client.Message) { l.add(m.Topic, m.Payload) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return l
}

// numbers publishes numbered messages from from on, until ctx is done or there are
// limit, and notes each as it is acknowledged.
func numbers(ctx context.Context, t *testing.T, g *gateway, topic string, limit int, acked *ledger) {
	c, err := g.dial(ctx, client.Options{CleanSession: true, Window: 50})
	if err != nil {
		t.Error(err)
		return
	}
	pad := strings.Repeat("x", 500)
	var under sync.WaitGroup
	for n := 1; n <= limit && ctx.Err() == nil; n++ {
		payload := fmt.Append(nil, n, pad)
		under.Add(1)
		err := c.PublishAsync(context.WithoutCancel(ctx), mqtt.Message{Topic: topic, Payload: payload, QoS: 1}, func(err error) {
			defer under.Done()
			if err != nil {
				t.Errorf("publish %d to %s: %v", n, topic, err)
				return
			}
			acked.add(topic, payload)
		})
		if err != nil {
			t.Error(err)
			return
		}
	}
	under.Wait()
	if err := c.Disconnect(); err != nil {
		t.Error(err)
	}
}

// Backups of the real program are taken while publishers publish, a queue drains and
// files of the journal come and go. Whatever was acknowledged before a backup began is
// in the gateway that starts on it: once, in order, with nothing lost or damaged.
func TestBackupsWhileTrafficFlows(t *testing.T) {
	leak.Check(t)
	g := newGateway(t, "127.0.0.1:1", "store: {segment_size: 64KiB}")
	leave(t, g, "flow", "f/#")
	leave(t, g, "early", "e/#")
	leave(t, g, "late", "l/#")
	numbers(t.Context(), t, g, "f/x", scale(2000), newLedger())
	early := newLedger()
	numbers(t.Context(), t, g, "e/x", 300, early)
	early.awaitCount(t, 300)
	ctx, cancel := context.WithCancel(t.Context())
	acked := newLedger()
	for i := range 2 {
		background(t, func(context.Context) { numbers(ctx, t, g, fmt.Sprintf("l/%d", i), 1<<30, acked) })
	}
	flow := come(t, g, "flow")
	type taken struct {
		file   string
		before *ledger
	}
	var backups []taken
	for i := range 4 {
		acked.awaitCount(t, acked.count()+500)
		b := taken{filepath.Join(t.TempDir(), fmt.Sprint(i)), newLedger()}
		for _, m := range acked.all() {
			b.before.add(m.topic, fmt.Append(nil, m.n))
		}
		tidegate(t, "backup", "--config", g.conf, b.file)
		t.Logf("backup %d: %d messages were acknowledged before, %d after, %d drained", i, b.before.count(), acked.count(), flow.count())
		backups = append(backups, b)
	}
	cancel()
	for _, b := range backups {
		checkBackup(t, g, b.file, early, b.before)
	}
}

// checkBackup restores a backup of g and starts a gateway on it.
func checkBackup(t *testing.T, g *gateway, file string, early, late *ledger) {
	t.Helper()
	dir := t.TempDir()
	copied := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	conf, err := os.ReadFile(g.conf)
	if err != nil {
		t.Fatal(err)
	}
	write(t, copied.conf, strings.ReplaceAll(string(conf), g.data, copied.data))
	tidegate(t, "restore", "--config", copied.conf, file)
	tidegate(t, "queue", "verify", "--config", copied.conf)
	copied.start()
	for id, want := range map[string]*ledger{"early": early, "late": late} {
		got := come(t, copied, id)
		highest := make(map[string]int)
		for _, m := range want.all() {
			highest[m.topic] = m.n
		}
		for topic, n := range highest {
			got.awaitNumber(t, topic, n)
		}
		if lost := want.without(got, ""); len(lost) > 0 {
			t.Errorf("%d messages of %s were acknowledged before the backup and are not in it: %s", len(lost), id, some(lost))
		}
		got.checkOrder(t, id)
		if n := got.duplicates(); n > 0 {
			t.Errorf("%s got %d messages twice", id, n)
		}
	}
	list := tidegate(t, "queue", "list", "--config", copied.conf)
	if lost := list.with("LOST BY"); len(lost) > 0 {
		list.show(t)
		t.Error("the restored gateway has lost something")
	}
	if code, _ := copied.stop(); code != 0 {
		t.Errorf("the restored gateway ends with %d", code)
	}
	tidegate(t, "queue", "verify", "--config", copied.conf)
}
