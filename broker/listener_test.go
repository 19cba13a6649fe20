package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"tidegate/internal/client"
	"tidegate/internal/testbed"
)

// everyListener listens at every kind of address.
func everyListener(p *pki) []Listener {
	return []Listener{
		{Address: "tcp://127.0.0.1:0"},
		{Address: "tls://127.0.0.1:0", Cert: p.file("server.crt"), Key: p.file("server.key")},
		{Address: "ws://127.0.0.1:0"},
		{Address: "wss://127.0.0.1:0/deep/mqtt", Cert: p.file("server.crt"), Key: p.file("server.key"), ClientCA: p.file("ca.crt"), Identity: "cn"},
		{Address: "unix://" + p.file("mqtt.sock")},
	}
}

// reach connects to a listener by its URL.
func (d *bed) reach(url string, cfg *tls.Config) net.Conn {
	d.t.Helper()
	var c net.Conn
	var err error
	scheme, addr, _ := strings.Cut(url, "://")
	switch scheme {
	case "tcp", "unix":
		c, err = net.Dial(scheme, addr)
	case "tls":
		c, err = tls.Dial("tcp", addr, cfg)
	default:
		dialer := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: cfg}
		ws, _, dialErr := dialer.DialContext(d.ctx(), url, nil)
		if err = dialErr; err == nil {
			c = &messages{Conn: ws.NetConn(), ws: ws}
		}
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// messages is the client's side of a WebSocket as a [net.Conn].
type messages struct {
	net.Conn
	ws   *websocket.Conn
	rest []byte
}

func (m *messages) Read(b []byte) (int, error) {
	for len(m.rest) == 0 {
		kind, data, err := m.ws.ReadMessage()
		if err != nil {
			return 0, asEOF(err)
		}
		if kind != websocket.BinaryMessage {
			return 0, fmt.Errorf("got a frame of type %d [MQTT-6.0.0-1]", kind)
		}
		m.rest = data
	}
	n := copy(b, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

func (m *messages) Write(b []byte) (int, error) {
	return len(b), m.ws.WriteMessage(websocket.BinaryMessage, b)
}

func TestEveryKindOfListener(t *testing.T) {
	p := newPKI(t)
	d := newBed(t, func(d *bed) { d.cfg.Listeners = everyListener(p) })
	sub := d.dial("sub", nil)
	sub.subscribe("from/#", 1)
	for i, url := range d.b.URLs() {
		scheme, _, _ := strings.Cut(url, "://")
		t.Run(scheme, func(t *testing.T) {
			got := make(chan client.Message, 10)
			c, err := client.Connect(d.ctx(), d.reach(url, p.client("pump")), client.Options{
				ClientID: scheme, CleanSession: true, Handler: func(m client.Message) { got <- m },
			})
			if err != nil {
				t.Fatal(err)
			}
			large := strings.Repeat(scheme, 50_000) // many frames, many records
			me := &peer{Conn: c, t: t, got: got}
			me.subscribe("to/"+scheme, 1)
			me.publish("from/"+scheme, large, 1)
			sub.want("from/"+scheme, large, 1)
			sub.publish("to/"+scheme, large, 1)
			me.want("to/"+scheme, large, 1)
			if n := d.b.Status().Connections; n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
			c.Disconnect()
			if want := strings.TrimSuffix(d.cfg.Listeners[i].Address, "0"); scheme == "tcp" && !strings.HasPrefix(url, want) {
				t.Errorf("listens on %s", url)
			}
			d.waitFor("the connection's end", func() bool { return d.b.Status().Connections == 1 })
		})
	}
	if urls := d.b.URLs(); !strings.HasSuffix(urls[2], "/mqtt") || !strings.HasSuffix(urls[3], "/deep/mqtt") || urls[4] != "unix://"+p.file("mqtt.sock") {
		t.Errorf("listens on %q", urls)
	}
}

// waitFor polls until done.
func (d *bed) waitFor(what string, done func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(patience); !done(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("no %s in %v", what, patience)
		}
	}
}

func TestMosquittoOverTLSAndUnix(t *testing.T) {
	pub := testbed.Find(t, "mosquitto_pub")
	p := newPKI(t)
	p.issue("pump", nil)
	d := newBed(t, func(d *bed) {
		d.cfg.Listeners = append(everyListener(p), Listener{
			Address: "tls://127.0.0.1:0", Cert: p.file("server.crt"), Key: p.file("server.key"), ClientCA: p.file("ca.crt"),
		})
	})
	sub := d.dial("sub", nil)
	sub.subscribe("m", 1)
	port := func(i int) string { _, port, _ := net.SplitHostPort(d.b.Addrs()[i].String()); return port }
	certified := []string{"--cert", p.file("pump.crt"), "--key", p.file("pump.key")}
	for name, c := range map[string]struct {
		args []string
		ok   bool
	}{
		"TLS":                       {[]string{"-h", "127.0.0.1", "-p", port(1), "--cafile", p.file("ca.crt")}, true},
		"TLS 1.2":                   {[]string{"-h", "127.0.0.1", "-p", port(1), "--cafile", p.file("ca.crt"), "--tls-version", "tlsv1.2"}, true},
		"no TLS where it is spoken": {[]string{"-h", "127.0.0.1", "-p", port(1)}, false},
		"mTLS":                      {append([]string{"-h", "127.0.0.1", "-p", port(5), "--cafile", p.file("ca.crt")}, certified...), true},
		"mTLS without certificate":  {[]string{"-h", "127.0.0.1", "-p", port(5), "--cafile", p.file("ca.crt")}, false},
		"Unix socket":               {[]string{"--unix", p.file("mqtt.sock")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(d.ctx(), pub, append(c.args, "-t", "m", "-m", name, "-q", "1")...).CombinedOutput()
			if (err == nil) != c.ok {
				t.Fatalf("%v: %s", err, out)
			}
			if c.ok {
				sub.want("m", name, 1)
			}
		})
	}
}

func TestListenersOpenAllOrNone(t *testing.T) {
	p := newPKI(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := p.file("free.sock")
	b, err := New(Config{Listeners: []Listener{{Address: "unix://" + free}, {Address: "tcp://" + taken.Addr().String()}}}, Options{Store: openStore(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err == nil || !strings.Contains(err.Error(), "is another broker or gateway running here?") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(free); !errors.Is(err, os.ErrNotExist) || len(b.Addrs()) != 0 {
		t.Errorf("the first listener is still open: %v, %v", err, b.Addrs())
	}
}

func TestUnixSocketFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	open := func() net.Listener {
		t.Helper()
		ln, err := listenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	ln := open()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "somebody listens") {
		t.Errorf("beside a living one: %v", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // as after a crash
	ln.Close()
	ln = open()
	ln.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("in place of a file: %v", err)
	}
}

// failing accepts nothing until it is closed.
type failing struct {
	net.Listener
	tries  int
	closed atomic.Bool
}

func (f *failing) Accept() (net.Conn, error) {
	if f.closed.Load() {
		return nil, net.ErrClosed
	}
	f.tries++
	return nil, errors.New("too many open files")
}

func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines countLines
		b := &Broker{log: slog.New(&lines)}
		f := new(failing)
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.accept(t.Context(), &listener{Listener: f, url: "tcp://here"})
		}()
		time.Sleep(time.Minute)
		f.closed.Store(true)
		<-done
		if f.tries < 60 || f.tries > 400 || lines.n != 1 {
			t.Errorf("%d tries and %d lines in a minute", f.tries, lines.n)
		}
	})
}

// countLines counts log lines and forgets them.
type countLines struct {
	slog.Handler
	n    int
	last string
}

func (c *countLines) Enabled(context.Context, slog.Level) bool { return true }
func (c *countLines) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *countLines) Handle(_ context.Context, r slog.Record) error {
	c.n++
	c.last = r.Message
	return nil
}

func TestConnectionsOfAllListenersCount(t *testing.T) {
	p := newPKI(t)
	d := newBed(t, func(d *bed) { d.cfg.Listeners = everyListener(p); d.cfg.Limits.MaxConnections = 4 })
	for _, a := range d.b.Addrs()[:4] { // none of them shakes hands
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		d.waitFor("connection", func() bool { return d.b.Status().Connections > 0 })
	}
	d.waitFor("four connections", func() bool { return d.b.Status().Connections == 4 })
	c, err := net.Dial("unix", p.file("mqtt.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a fifth connection: %v, want its end", err)
	}
	if n := d.b.Status().Connections; n != 4 {
		t.Errorf("%d connections", n)
	}
}

func TestHalfOpenHandshakesEndAtConnectTimeout(t *testing.T) {
	p := newPKI(t)
	for _, l := range everyListener(p)[1:4] {
		for name, first := range map[string]string{"silence": "", "a beginning": "\x16\x03", "the beginning of HTTP": "GET /mqtt HTTP/1.1\r\n"} {
			if strings.HasPrefix(l.Address, "ws:") == strings.HasPrefix(first, "\x16") && first != "" {
				continue // refused at once
			}
			if !strings.HasPrefix(l.Address, "ws:") && strings.HasPrefix(first, "GET") {
				continue // likewise
			}
			t.Run(l.Address+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
					wrap := d.wrapper(l)
					ours, theirs := net.Pipe()
					go d.b.ServeConn(wrap(theirs))
					start := time.Now()
					if _, err := ours.Write([]byte(first)); err != nil && first != "" {
						t.Fatal(err)
					}
					if _, err := ours.Read(make([]byte, 1)); err == nil {
						t.Fatal("got a byte")
					}
					if took := time.Since(start); took != 10*time.Second {
						t.Errorf("ended after %v, connect_timeout is 10 s", took)
					}
				})
			})
		}
	}
}

// wrapper returns what adds to a connection what l asks for.
func (d *bed) wrapper(l Listener) func(net.Conn) net.Conn {
	d.t.Helper()
	opened, err := d.b.listen(l)
	if err != nil {
		d.t.Fatal(err)
	}
	opened.Close()
	return opened.wrap
}

func TestListenerMistakes(t *testing.T) {
	for address, want := range map[string]string{
		"":                                    "is no address",
		"127.0.0.1:1883":                      "is no address",
		"tcp:127.0.0.1:1883":                  "is no address",
		"tcp://":                              "is no address",
		"mqtt://127.0.0.1:1883":               `has the scheme "mqtt"; it takes tcp, tls, ws, wss or unix`,
		"tcp://127.0.0.1":                     "has no port; write tcp://127.0.0.1:1883",
		"tcp://[::1]":                         "has no port; write tcp://[::1]:1883",
		"ws://127.0.0.1/mqtt":                 "has no port; write ws://127.0.0.1:8083",
		"tcp://127.0.0.1:70000":               "has the port",
		"tcp://127.0.0.1:1883/x":              "has a path",
		"ws://127.0.0.1:1/m?x":                "has a part that",
		"tcp://me@127.0.0.1:1":                "has a part that",
		"unix://run/s":                        "is no path of a socket",
		"unix:///" + strings.Repeat("x", 107): "is too long",
	} {
		l := Listener{Address: address}
		p := l.check()
		if len(p) != 1 || p[0].Path != "address" || !strings.Contains(p[0].Text, want) {
			t.Errorf("%q: %v, want %q", address, p, want)
		}
	}
	for _, c := range []struct {
		l    Listener
		want string
	}{
		{Listener{Address: "tls://:1", Key: "/k"}, "[{cert is missing"},
		{Listener{Address: "wss://:1", Cert: "/c"}, "[{key is missing"},
		{Listener{Address: "tls://:1", Cert: "c", Key: "/k"}, `[{cert "c" is no full path`},
		{Listener{Address: "ws://:1", Cert: "/c"}, "[{cert ws:// has no certificates"},
		{Listener{Address: "unix:///s", ClientCA: "/c"}, "[{client_ca unix:// has no certificates"},
		{Listener{Address: "tls://:1", Cert: "/c", Key: "/k", Identity: "cn"}, "[{identity needs client_ca"},
		{Listener{Address: "tls://:1", Cert: "/c", Key: "/k", ClientCA: "/a", Identity: "san"}, `[{identity "san" is unknown`},
		{Listener{Address: "tls://:1", Cert: "/c", Key: "/k", ClientCA: "/a", Identity: "cn"}, "[]"},
		{Listener{Address: "ws://[::1]:1/"}, "[]"},
	} {
		if got := fmt.Sprint(c.l.check()); !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %s, want %s", c.l, got, c.want)
		}
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"tcp://127.0.0.1:1": true, "wss://[::1]:1/x": true, "tls://localhost:1": true, "unix:///s": true,
		"tcp://:1": false, "ws://0.0.0.0:1": false, "tls://10.0.0.1:1": false, "tcp://pump-house:1": false,
	} {
		l := Listener{Address: address}
		if got := l.Loopback(); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
