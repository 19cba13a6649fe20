package broker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"tidegate/internal/client"
	"tidegate/mqtt/packet"
)

func overWebSocket(d *bed) { d.cfg.Listeners = []Listener{{Address: "ws://127.0.0.1:0"}} }

// upgradeTo is the request of a browserless client.
func upgradeTo(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: x, mqtt\r\n" + strings.Join(append(headers, "\r\n"), "\r\n")
}

func TestPacketsAndFramesAreIndependent(t *testing.T) { // [MQTT-6.0.0-2]
	d := newBed(t, overWebSocket)
	k := clean("x")
	k.Version = packet.V311
	all := k.Append(nil)
	p := packet.Publish{Topic: []byte("a"), Payload: []byte(strings.Repeat("p", 300)), QoS: 1, ID: 5}
	all = p.Append(all)
	all = packet.Pingreq{}.Append(all)
	for _, size := range []int{1, 2, 7, len(all) - 1, len(all)} {
		for _, oneMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes a frame, one message %v", size, oneMessage), func(t *testing.T) {
				c := d.reach(d.b.URLs()[0], nil).(*messages)
				raw := bufio.NewWriter(c.ws.NetConn())
				for rest := all; len(rest) > 0; {
					n := min(size, len(rest))
					frame(raw, oneMessage && len(rest) < len(all), !oneMessage || n == len(rest), rest[:n])
					rest = rest[n:]
				}
				if err := raw.Flush(); err != nil {
					t.Fatal(err)
				}
				w := &wire{t: t, c: c, r: packet.NewReader(c, packet.MaxSize)}
				w.connack(packet.Accepted, false)
				for range 2 { // in either order: the PUBACK may wait for something
					if f := w.next(); f.Type() != packet.TypePuback && f.Type() != packet.TypePingresp {
						t.Fatalf("got %s", f.Type())
					}
				}
			})
		}
	}
}

// frame writes a masked binary frame, or one that continues a message.
func frame(w *bufio.Writer, continued, final bool, data []byte) {
	head := byte(0x2)
	if continued {
		head = 0
	}
	if final {
		head |= 0x80
	}
	if len(data) < 126 {
		_, _ = w.Write([]byte{head, 0x80 | byte(len(data))})
	} else {
		_, _ = w.Write([]byte{head, 0x80 | 126, byte(len(data) >> 8), byte(len(data))})
	}
	_, _ = w.Write([]byte{0, 0, 0, 0})
	_, _ = w.Write(data)
}

func TestTextFrameEndsTheConnection(t *testing.T) { // [MQTT-6.0.0-1]
	d := newBed(t, overWebSocket)
	c := d.reach(d.b.URLs()[0], nil).(*messages)
	w := newWire(t, c, clean("x"))
	w.connack(packet.Accepted, false)
	if err := c.ws.WriteMessage(websocket.TextMessage, packet.Pingreq{}.Append(nil)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := c.ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseUnsupportedData) {
		t.Errorf("got %v, want the close code 1003", err)
	}
}

func TestWebSocketIsClosedPolitely(t *testing.T) {
	d := newBed(t, overWebSocket)
	c := d.reach(d.b.URLs()[0], nil).(*messages)
	w := newWire(t, c, clean("x"))
	w.connack(packet.Accepted, false)
	d.stop()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := c.ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("got %v, want the close code 1000", err)
	}
}

func TestWebSocketRequests(t *testing.T) {
	d := newBed(t, overWebSocket)
	origin := func(host, origin string) string {
		return strings.Replace(upgradeTo("/mqtt", "Origin: "+origin), "Host: 127.0.0.1", "Host: "+host, 1)
	}
	for name, c := range map[string]struct {
		request string
		want    int // 0: no answer
	}{
		"as it should be":              {upgradeTo("/mqtt"), 101},
		"another path":                 {upgradeTo("/"), 404},
		"no subprotocol":               {strings.Replace(upgradeTo("/mqtt"), "x, mqtt", "chat", 1), 400}, // [MQTT-6.0.0-3]
		"a browser's address bar":      {"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"another method":               {strings.Replace(upgradeTo("/mqtt"), "GET", "POST", 1), 405},
		"data before the answer":       {upgradeTo("/mqtt") + "\x82", 0},
		"headers without end":          {upgradeTo("/mqtt", "X: "+strings.Repeat("x", maxRequest)), 0},
		"MQTT":                         {"\x10\x0c\x00\x04MQTT\x04\x02\r\n\r\n", 0},
		"a page of this machine":       {origin("127.0.0.1:8083", "http://127.0.0.1:8080"), 101},
		"a page of localhost":          {origin("localhost:8083", "http://LOCALHOST:8080"), 101},
		"a page of this machine, IPv6": {origin("[::1]:8083", "http://[::1]:8080"), 101},
		"a page of somebody else":      {origin("127.0.0.1:8083", "https://evil.example"), 403},
		"a page of a name made to fit": {origin("evil.example:8083", "http://evil.example:8083"), 403},
		"a page that hides its origin": {origin("127.0.0.1:8083", "null"), 403},
		"a page with an empty origin":  {origin("127.0.0.1:8083", ""), 403},
		"a page with a senseless one":  {origin("127.0.0.1:8083", "http://[::1"), 403},
	} {
		t.Run(name, func(t *testing.T) {
			if got := d.request(c.request); got != c.want {
				t.Errorf("got status %d, want %d", got, c.want)
			}
		})
	}
}

// request sends an HTTP request and returns the status of the answer.
func (d *bed) request(text string) int {
	d.t.Helper()
	c, err := net.Dial("tcp", d.b.Addrs()[0].String())
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, text)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	if p := r.Header.Get("Sec-Websocket-Protocol"); r.StatusCode == 101 && p != "mqtt" {
		d.t.Errorf("subprotocol %q [MQTT-6.0.0-4]", p)
	}
	return r.StatusCode
}

func TestWebPagesMayConnectWhereTheyMustKnowAPassword(t *testing.T) {
	no, yes := false, true
	for _, c := range []struct {
		anonymous *bool
		clientCA  string
		want      bool
	}{{nil, "", false}, {&yes, "", false}, {&no, "", true}, {&no, "/ca", false}} {
		b := &Broker{cfg: Config{AllowAnonymous: c.anonymous}}
		if got := b.openToWebPages(Listener{ClientCA: c.clientCA}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	w := newWebSocket("/mqtt", patience, true)
	ours, theirs := net.Pipe()
	go func() { _, _ = w.wrap(theirs).Read(make([]byte, 1)) }()
	_, _ = io.WriteString(ours, upgradeTo("/mqtt", "Origin: https://shop.example"))
	if r, err := http.ReadResponse(bufio.NewReader(ours), nil); err != nil || r.StatusCode != 101 {
		t.Errorf("got %+v, %v", r, err)
	}
	ours.Close()
}

// The deadline that keep-alive sets is extended only now and then, so it passes
// while the client is well.
func TestWebSocketOutlivesADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		ours, theirs := net.Pipe()
		go d.b.ServeConn(newWebSocket("/mqtt", time.Second, false).wrap(theirs))
		go func() { _, _ = io.WriteString(ours, upgradeTo("/mqtt")) }()
		br := bufio.NewReader(ours)
		if r, err := http.ReadResponse(br, nil); err != nil || r.StatusCode != 101 {
			t.Fatalf("got %+v, %v", r, err)
		}
		send := func(b []byte) {
			t.Helper()
			w := bufio.NewWriter(ours)
			frame(w, false, true, b)
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		answer := func(want packet.Type) {
			t.Helper()
			head := make([]byte, 2)
			if _, err := io.ReadFull(br, head); err != nil || head[0] != 0x82 {
				t.Fatalf("got %x, %v", head, err)
			}
			body := make([]byte, head[1])
			if _, err := io.ReadFull(br, body); err != nil || packet.Type(body[0]>>4) != want {
				t.Fatalf("got %x, %v", body, err)
			}
		}
		k := clean("x")
		k.Version, k.KeepAlive = packet.V311, 8 // 12 s may pass
		send(k.Append(nil))
		answer(packet.TypeConnack)
		for _, pause := range []time.Duration{time.Second, 11900 * time.Millisecond, 11900 * time.Millisecond} {
			time.Sleep(pause)
			send(packet.Pingreq{}.Append(nil))
			answer(packet.TypePingresp)
		}
		start := time.Now()
		_, _ = br.ReadByte()
		if took := time.Since(start); took != 12*time.Second {
			t.Errorf("silence was allowed for %v, want 12 s", took)
		}
		ours.Close()
	})
}

func TestWebSocketPing(t *testing.T) {
	d := newBed(t, overWebSocket)
	c := d.reach(d.b.URLs()[0], nil).(*messages)
	ponged := false
	c.ws.SetPongHandler(func(string) error { ponged = true; return nil })
	if err := c.ws.WriteMessage(websocket.PingMessage, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Connect(d.ctx(), c, client.Options{ClientID: "x", CleanSession: true}); err != nil {
		t.Fatal(err)
	}
	if !ponged {
		t.Error("a WebSocket ping got no pong (RFC 6455, section 5.5.2)")
	}
}
