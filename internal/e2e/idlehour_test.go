//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/adapters"
	"tidegate/bridge"
	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt"
)

// An hour in which nothing happens, after one in which what was left to do is done,
// writes nothing: no commit, no byte, no file. There are sessions with and without
// their clients, queues, retained messages, a bridge, an adapter, and somebody who
// reads $SYS all the time.
func TestAnIdleHourOfTheGatewayWritesNothing(t *testing.T) {
	leak.Check(t)
	for name, open := range map[string]bool{"the uplink is down": false, "the uplink is up": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { idleHour(t, open) })
		})
	}
}

func idleHour(t *testing.T, open bool) {
	b := &board{t: t, dir: t.TempDir(), uplink: &shore{t: t, open: open}}
	cfg := bridge.Config{
		Name: "cloud", Servers: []string{"tcp://shore:1883"}, Protocol: 5, Envelope: "properties", Will: new(false),
		Out: []bridge.Rule{{Topics: []string{"sensor/#"}}},
	}
	b.boot(cfg, burst(20))
	defer b.stop()
	b.setClock(time.Now(), true)
	b.connect("absent", nil, "#").Close()
	var heard atomic.Int64
	here := b.connect("present", &heard, "#", "$SYS/#")
	defer here.Close()
	time.Sleep(time.Second)
	for n := range 20 {
		b.must(b.broker.Publish(t.Context(), mqtt.Message{Topic: fmt.Sprint("retained/", n), Payload: []byte("x"), QoS: mqtt.AtLeastOnce, Retain: true}))
	}
	time.Sleep(time.Hour)
	before, files, news := b.store.Stats(), b.files(), heard.Load()
	time.Sleep(time.Hour)
	after := b.store.Stats()
	if n, bytes := after.Commits-before.Commits, b.store.Written(); n != 0 || files != b.files() {
		t.Errorf("%d commits in an idle hour, %d bytes in all; the files were\n%s, and are\n%s", n, bytes, files, b.files())
	}
	if queued := b.broker.Backlog("bridge/cloud"); (queued == 0) != open || b.queued("absent") < 20 || news == heard.Load() {
		t.Errorf("the uplink has %d messages queued, the absent client %d, and %d messages on $SYS came", queued, b.queued("absent"), heard.Load()-news)
	}
	t.Logf("%d dials, %d messages on $SYS; %d commits before", len(b.uplink.dials), heard.Load()-news, before.Commits)
}

// connect opens a durable session with subscriptions; heard, if not nil, counts what
// comes.
func (b *board) connect(id string, heard *atomic.Int64, filters ...string) *client.Conn {
	b.t.Helper()
	ours, theirs := net.Pipe()
	go b.broker.ServeConn(theirs)
	o := client.Options{ClientID: id, KeepAlive: 30 * time.Second}
	if heard != nil {
		o.Handler = func(client.Message) { heard.Add(1) }
	}
	c, err := client.Connect(b.t.Context(), ours, o)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range filters {
		if _, err := c.Subscribe(b.t.Context(), mqtt.Subscription{Filter: f, QoS: mqtt.AtLeastOnce}); err != nil {
			b.t.Fatal(err)
		}
	}
	return c
}

// queued is how many messages wait for a client.
func (b *board) queued(id string) (n int64) {
	for _, q := range b.broker.Queues() {
		if q.Name == id {
			n = q.Messages
		}
	}
	return n
}

// files lists all that the gateway has on the disk, with what changes when it is
// written.
func (b *board) files() string {
	b.t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&list, path, info.Size(), info.ModTime())
		return nil
	})
	b.must(err)
	return list.String()
}

// burst is a sensor that measures so many times after the start, and no more.
type burst int

func (n burst) Run(ctx context.Context, out adapters.Sink) error {
	for i := range n {
		if err := out.Emit(ctx, adapters.Reading{Name: "n", Value: int(i)}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}
