package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/admin"
	"tidegate/bridge"
	"tidegate/internal/balance"
	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// site is a gateway of a test, in this process, with its data in a folder whose
// name is too long for the address of a socket.
type site struct {
	*gateway
	t    *testing.T
	cfg  *Config
	stop func() // may be called again
}

func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	leak.Check(t)
	s := &site{t: t, cfg: cloudConfig(filepath.Join(t.TempDir(), strings.Repeat("long", 30)))}
	if change != nil {
		change(s.cfg)
	}
	s.cfg.SetDefaults()
	s.start()
	return s
}

func (s *site) start() {
	s.t.Helper()
	g, err := newGateway(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := g.listen(); err != nil {
		s.t.Fatal(err)
	}
	r, ready, ended := newRoom(), make(chan struct{}), make(chan error, 1)
	r.run(func(ctx context.Context) { ended <- g.run(ctx, func() { close(ready) }) })
	<-ready
	s.gateway = g
	s.stop = sync.OnceFunc(func() {
		r.stop()
		if err := errors.Join(<-ended, g.close()); err != nil {
			s.t.Error(err)
		}
		balance.Check(s.t, g.broker)
	})
	s.t.Cleanup(s.stop)
}

func (s *site) dir() string { return s.cfg.Gateway.DataDir }

// absent leaves a session with the subscription behind.
func (s *site) absent(id, filter string) {
	s.t.Helper()
	c, err := client.Dial(s.t.Context(), s.mqttAddr().String(), client.Options{ClientID: id, Version: packet.V5, Properties: packet.Properties(nil).AppendUint(packet.PropSessionExpiry, 3600)})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.Subscribe(s.t.Context(), mqtt.Subscription{Filter: filter, QoS: 2}); err != nil {
		s.t.Fatal(err)
	}
	if err := c.Disconnect(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) publish(m mqtt.Message) {
	s.t.Helper()
	if err := s.broker.Publish(s.t.Context(), m); err != nil {
		s.t.Fatal(err)
	}
}

// fill leaves three messages for two absent clients.
func (s *site) fill() {
	s.absent("first", "a/#")
	s.absent("second", "a/b")
	s.publish(mqtt.Message{Topic: "a/b", Payload: []byte("one"), QoS: 1})
	s.publish(mqtt.Message{Topic: "a/c", Payload: []byte{0, 1, 0xff}, QoS: 2})
	p := mqtt.Properties{ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte{9}, User: []mqtt.UserProperty{{Name: "k", Value: "v"}}}
	s.publish(mqtt.Message{Topic: "a/b", Payload: []byte("two\n"), QoS: 1, Properties: &p})
}

// ok runs a command that has to succeed.
func ok(t *testing.T, args ...string) (out string) {
	t.Helper()
	code, out, errOut := call(t, args...)
	if code != exitDone || errOut != "" {
		t.Fatalf("%q ends with %d, prints %q and says %q", args, code, out, errOut)
	}
	return out
}

// messagesOf are the lines of `queue export`.
func messagesOf(t *testing.T, text string) (list []admin.Message) {
	t.Helper()
	for line := range strings.Lines(text) {
		var m admin.Message
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		list = append(list, m)
	}
	return list
}

// The same is shown of a gateway that runs and of one that is stopped.
func TestQueueCommands(t *testing.T) {
	s := newSite(t, nil)
	s.fill()
	check := func(what string) {
		t.Helper()
		list := ok(t, "queue", "list", "--data-dir", s.dir())
		for _, want := range []string{"QUEUE   KIND", "first   client  absent  3", "second  client  absent  2"} {
			if !strings.Contains(list, want) {
				t.Errorf("%s: the list has no %q:\n%s", what, want, list)
			}
		}
		var rows []admin.Queue
		if err := json.Unmarshal([]byte(ok(t, "queue", "list", "-o", "json", "--data-dir", s.dir())), &rows); err != nil || len(rows) != 2 ||
			rows[0].Name != "first" || rows[0].OnDisk != 3 || rows[0].OldestAgeSeconds == nil || *rows[0].OldestAgeSeconds > 600+60 {
			t.Errorf("%s: rows %+v, %v", what, rows, err)
		}
		dump := ok(t, "queue", "dump", "first", "--data-dir", s.dir())
		for _, want := range []string{
			"  qos 1  a/b  one\n", "  qos 2  a/c  0x0001ff\n", "  qos 1  a/b  \"two\\n\"\n",
			"    content type: text/plain, response topic: r, correlation data: 09, k: v\n",
		} {
			if !strings.Contains(dump, want) {
				t.Errorf("%s: the dump has no %q:\n%s", what, want, dump)
			}
		}
		all := messagesOf(t, ok(t, "queue", "export", "first", "--data-dir", s.dir()))
		if len(all) != 3 || all[0].Time.IsZero() || time.Since(all[0].Time) > time.Minute || string(all[1].Bytes()) != "\x00\x01\xff" {
			t.Errorf("%s: exported %+v", what, all)
		}
		first := fmt.Sprint(all[0].Seq)
		page := ok(t, "queue", "dump", "first", "--after", first, "--limit", "1", "--data-dir", s.dir())
		if lines := strings.Split(page, "\n"); len(lines) != 3 || !strings.Contains(lines[0], "a/c") || lines[1] != fmt.Sprintf("-- there may be more: --after %d", all[1].Seq) {
			t.Errorf("%s: a page of one message: %q", what, page)
		}
		if report := ok(t, "queue", "verify", "--data-dir", s.dir()); !strings.HasSuffix(report, "no damage\n") {
			t.Errorf("%s: verify says %q", what, report)
		}
		if code, _, errOut := call(t, "queue", "dump", "nobody", "--data-dir", s.dir()); code != exitFailed || !strings.Contains(errOut, `"nobody": there is no such queue`) {
			t.Errorf("%s: of nobody: %d, %q", what, code, errOut)
		}
	}
	check("running")
	s.stop()
	if _, err := os.Stat(filepath.Join(s.dir(), "control.sock")); err == nil {
		t.Error("the socket is still there")
	}
	before := treeOf(t, s.dir())
	check("stopped")
	if after := treeOf(t, s.dir()); after != before {
		t.Errorf("the commands have changed the directory from\n%s\nto\n%s", before, after)
	}
}

// treeOf has every file of dir with its length and time of change.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What was exported is published again as it was.
func TestExportIsPublishedAgain(t *testing.T) {
	s := newSite(t, nil)
	s.fill()
	text := ok(t, "queue", "export", "first", "--data-dir", s.dir())
	s.absent("copy", "a/#")
	host, port, _ := strings.Cut(s.mqttAddr().String(), ":")
	code, _, errOut := callWith(t.Context(), text, "pub", "-h", host, "-p", port, "-V", "5", "--json-lines")
	if code != exitDone || errOut != "" {
		t.Fatalf("pub ends with %d and says %q", code, errOut)
	}
	copied := messagesOf(t, ok(t, "queue", "export", "copy", "--data-dir", s.dir()))
	for i, m := range messagesOf(t, text) {
		if i >= len(copied) {
			t.Fatalf("only %d came", len(copied))
		}
		c := copied[i]
		c.Seq, c.Time, c.Quality = m.Seq, m.Time, m.Quality
		if got, want := asJSON(t, c), asJSON(t, m); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if code, _, errOut := callWith(t.Context(), "x\n", "pub", "-h", host, "-p", port, "--json-lines"); code != exitFailed || !strings.Contains(errOut, "it is no message as queue export writes them") {
		t.Errorf("of a line that is no JSON: %d, %q", code, errOut)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// verify names the damaged file and ends with 1; list says what to do.
func TestVerifyFindsDamage(t *testing.T) {
	s := newSite(t, nil)
	s.fill()
	s.stop()
	file, err := os.OpenFile(filepath.Join(s.dir(), "state.db"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(make([]byte, 8192), 0); err != nil || file.Close() != nil {
		t.Fatal(err)
	}
	code, out, errOut := call(t, "queue", "verify", "--data-dir", s.dir())
	if code != exitFailed || !strings.Contains(out, "state.db: it cannot be read\n") || !strings.Contains(out, "subscriptions and retained messages start empty") || !strings.Contains(errOut, "damaged files: 1") {
		t.Errorf("verify ends with %d, prints %q and says %q", code, out, errOut)
	}
	var r store.Report
	if _, out, _ := call(t, "queue", "verify", "-o", "json", "--data-dir", s.dir()); json.Unmarshal([]byte(out), &r) != nil || len(r.Damage) != 1 {
		t.Errorf("verify -o json prints %q", out)
	}
	if code, _, errOut := call(t, "queue", "list", "--data-dir", s.dir()); code != exitFailed || !strings.Contains(errOut, "the gateway sets it aside when it starts") {
		t.Errorf("list ends with %d and says %q", code, errOut)
	}
	if code, _, errOut := call(t, "queue", "list", "--data-dir", t.TempDir()); code != exitFailed || !strings.Contains(errOut, "no gateway has its data in") {
		t.Errorf("of an empty folder: %d, %q", code, errOut)
	}
}

// Dead letters are shown with their reason, and go back into the queue.
func TestDeadLettersGoBack(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.Bridges = []bridge.Config{{Name: "up", Servers: []string{"tcp://127.0.0.1:1"}, Out: []bridge.Rule{{Topics: []string{"a/#"}}}}}
	})
	letter := mqtt.Message{Topic: "$bridge/up/dead/a/b", Payload: []byte("x"), QoS: 1}
	letter.Properties = &mqtt.Properties{User: []mqtt.UserProperty{{Name: "tidegate-refused", Value: "topic name invalid"}}}
	s.publish(letter)
	dump := ok(t, "queue", "dump", "bridge/up/dead", "--data-dir", s.dir())
	if !strings.Contains(dump, "a/b  x\n    tidegate-refused: topic name invalid\n") {
		t.Errorf("the dump is\n%s", dump)
	}
	if out := ok(t, "bridge", "requeue", "up", "--data-dir", s.dir()); out != "messages put back: 1\n" {
		t.Errorf("requeue prints %q", out)
	}
	if n, dead := s.broker.Backlog("bridge/up"), s.broker.Backlog("bridge/up/dead"); n != 1 || dead != 0 {
		t.Errorf("%d wait, %d are dead", n, dead)
	}
	if code, _, errOut := call(t, "bridge", "requeue", "no", "--data-dir", s.dir()); code != exitFailed || !strings.Contains(errOut, `there is no bridge "no"`) {
		t.Errorf("of no bridge: %d, %q", code, errOut)
	}
	s.stop()
	if code, _, errOut := call(t, "bridge", "requeue", "up", "--data-dir", s.dir()); code != exitFailed || !strings.Contains(errOut, "no gateway runs on") {
		t.Errorf("of a stopped gateway: %d, %q", code, errOut)
	}
}

// A purge drops what a queue holds, of a gateway that runs or is stopped, once
// somebody has said yes; the ledger has it.
func TestPurge(t *testing.T) {
	s := newSite(t, nil)
	s.fill()
	for _, answer := range []string{"no\n", "", "yes\n"} {
		want := exitFailed
		if answer == "yes\n" {
			want = exitDone
		}
		code, out, errOut := callWith(t.Context(), answer, "queue", "purge", "first", "--data-dir", s.dir())
		if code != want || !strings.Contains(errOut, `drop 3 messages of "first" for good?`) || (out == "messages dropped: 3, left: 0\n") != (want == exitDone) {
			t.Errorf("to %q: %d, prints %q and says %q", answer, code, out, errOut)
		}
	}
	s.stop()
	if out := ok(t, "queue", "purge", "second", "--yes", "--data-dir", s.dir()); out != "messages dropped: 2, left: 0\n" {
		t.Errorf("of a stopped gateway it prints %q", out)
	}
	list := ok(t, "queue", "list", "--data-dir", s.dir())
	for _, want := range []string{"first   client  absent  0", "second  client  absent  0", "first    a/#     purged  3", "second   a/b     purged  2"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list has no %q:\n%s", want, list)
		}
	}
	s.start()
	s.publish(mqtt.Message{Topic: "a/b", QoS: 1})
	if all := messagesOf(t, ok(t, "queue", "export", "second", "--data-dir", s.dir())); len(all) != 1 {
		t.Errorf("afterwards the queue has %+v", all)
	}
	empty := t.TempDir()
	if code, _, _ := call(t, "queue", "purge", "x", "--yes", "--data-dir", empty); code != exitFailed || treeOf(t, empty) != "" {
		t.Errorf("of no gateway it ends with %d and leaves %q", code, treeOf(t, empty))
	}
}
