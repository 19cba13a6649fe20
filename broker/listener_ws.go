package broker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"tidegate/mqtt/packet"
)

// webSocket is what the connections of a ws:// or wss:// listener have in common
// (MQTT 3.1.1 and MQTT 5, section 6).
type webSocket struct {
	path     string
	timeout  time.Duration
	anyPage  bool // web pages of other hosts may connect
	upgrader websocket.Upgrader
}

// subprotocols are the names of MQTT in WebSocket: the one of the standard
// [MQTT-6.0.0-3] [MQTT-6.0.0-4], and the one that clients of MQTT 3.1 use.
var subprotocols = []string{"mqtt", "mqttv3.1"}

// maxRequest is the largest HTTP request in bytes. Those of browsers have hundreds.
const maxRequest = 8 << 10

// newWebSocket makes what serves path. anyPage says whether pages of other hosts
// than the gateway's may connect, see [Broker.openToWebPages].
func newWebSocket(path string, timeout time.Duration, anyPage bool) *webSocket {
	return &webSocket{path: path, timeout: timeout, anyPage: anyPage, upgrader: websocket.Upgrader{
		Subprotocols:    subprotocols,
		WriteBufferPool: new(sync.Pool), // an idle connection holds none
		CheckOrigin:     func(*http.Request) bool { return true },
	}}
}

// openToWebPages reports whether any web page may connect to the listener. A
// browser lets every page that its user visits try. That is harmless only where
// a client has to prove who it is with something that the page must know: not
// where nobody has to, and not with a certificate, which browsers show by
// themselves.
func (b *Broker) openToWebPages(l Listener) bool {
	anonymous := b.cfg.AllowAnonymous
	return anonymous != nil && !*anonymous && l.ClientCA == ""
}

// upgrade answers the request.
func (w *webSocket) upgrade(to *response, r *http.Request) (*websocket.Conn, error) {
	refuse := func(status int, format string, args ...any) (*websocket.Conn, error) {
		err := fmt.Errorf(format, args...)
		http.Error(to, err.Error(), status)
		return nil, err
	}
	switch {
	case r.URL.Path != w.path:
		return refuse(http.StatusNotFound, "%q is not the path of MQTT here, %q is", r.URL.Path, w.path)
	case !websocket.IsWebSocketUpgrade(r): // refused below
	case !slices.ContainsFunc(websocket.Subprotocols(r), func(s string) bool { return slices.Contains(subprotocols, s) }):
		return refuse(http.StatusBadRequest, "the client has to ask for the subprotocol %q [MQTT-6.0.0-3]; it asks for %q", subprotocols[0], websocket.Subprotocols(r))
	case !w.anyPage && !ownPage(r):
		return refuse(http.StatusForbidden, "a web page of %q may not connect to %q; see docs/listeners.md", r.Header.Get("Origin"), r.Host)
	}
	return w.upgrader.Upgrade(to, r, nil)
}

// ownPage reports whether the request comes from no web page, or from one of this
// machine. Only an address or localhost says that it is of this machine: whoever
// owns another name can make it point here, and so the browser believe that a
// page of his is ours.
func ownPage(r *http.Request) bool {
	if len(r.Header.Values("Origin")) == 0 {
		return true
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	here := &url.URL{Host: r.Host}
	name := strings.ToLower(here.Hostname())
	return err == nil && strings.ToLower(origin.Hostname()) == name && (name == "localhost" || net.ParseIP(name) != nil)
}

// wsConn is the server's side of WebSocket on a connection: the bytes of its
// binary messages, one after the other. Packets may begin and end anywhere in
// them [MQTT-6.0.0-2].
type wsConn struct {
	net.Conn // below: a socket, or TLS
	w        *webSocket

	// Of the reading goroutine.
	in      *bufio.Reader // of Conn; the WebSocket reads from it, too
	message io.Reader     // that is being read; nil: none is

	ws      atomic.Pointer[websocket.Conn] // nil before the handshake
	writing sync.Mutex                     // held during a Write, for which Close does not wait
	part    []byte                         // the beginning of a packet whose rest has not come
}

func (w *webSocket) wrap(nc net.Conn) net.Conn { return &wsConn{Conn: nc, w: w} }

func (c *wsConn) caller() caller { return callerOf(c.Conn) }

// Read reads from the messages. The first one shakes hands before.
func (c *wsConn) Read(b []byte) (int, error) {
	if c.ws.Load() == nil {
		if err := c.shake(); err != nil {
			return 0, fmt.Errorf("WebSocket handshake: %w", err)
		}
	}
	for {
		// A connection may go on after a deadline, a [websocket.Conn] may not. So
		// whatever can be waited for outside of it is.
		if _, err := c.in.Peek(1); err != nil {
			return 0, err
		}
		if err := c.next(); err != nil {
			return 0, asEOF(err)
		}
		n, err := c.message.Read(b)
		if errors.Is(err, io.EOF) {
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, asEOF(err)
		}
	}
}

// next makes sure that there is a message to read from.
func (c *wsConn) next() error {
	if c.message != nil {
		return nil
	}
	kind, message, err := c.ws.Load().NextReader()
	if err != nil {
		return err
	}
	if kind != websocket.BinaryMessage {
		c.sendClose(websocket.CloseUnsupportedData)
		return errors.New("a text frame came; MQTT comes in binary frames [MQTT-6.0.0-1]")
	}
	c.message = message
	return nil
}

// asEOF returns [io.EOF] for the ways in which clients close a WebSocket in
// ordinary life.
func asEOF(err error) error {
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived, websocket.CloseAbnormalClosure) {
		return io.EOF
	}
	return err
}

// shake reads the HTTP request and answers it. The connection has set the
// deadline for what is read.
func (c *wsConn) shake() error {
	c.in = bufio.NewReader(io.LimitReader(c.Conn, maxRequest))
	r, err := http.ReadRequest(c.in)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the client sent no whole HTTP request of at most %d bytes: %w", maxRequest, err)
	}
	if err != nil {
		return err
	}
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.w.timeout)); err != nil {
		return err
	}
	ws, err := c.w.upgrade(&response{conn: c.Conn, in: c.in, header: make(http.Header)}, r)
	if err != nil {
		return err
	}
	c.ws.Store(ws)
	return c.Conn.SetWriteDeadline(time.Time{})
}

// Write sends each packet of b as a binary message of its own, in one frame
// [MQTT-6.0.0-1]. They could share a message, or one could take several frames, but
// there are clients that cannot read that. b may begin and end inside a packet.
// Nothing is written before the handshake.
func (c *wsConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	rest := b
	if len(c.part) > 0 {
		c.part = append(c.part, b...)
		rest = c.part
	}
	for len(rest) > 0 {
		_, n, _, err := packet.Split(rest, packet.MaxSize)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		if err := c.ws.Load().WriteMessage(websocket.BinaryMessage, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	c.part = append([]byte(nil), rest...)
	return len(b), nil
}

// Close tells the client that nothing follows, if that can be written at once,
// and ends the connection. It may be called with locks held.
func (c *wsConn) Close() error {
	if c.ws.Load() != nil && c.writing.TryLock() {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(parting))
		c.sendClose(websocket.CloseNormalClosure)
		c.writing.Unlock()
	}
	return c.Conn.Close()
}

// sendClose sends a Close frame, unless one was sent before.
func (c *wsConn) sendClose(code int) {
	_ = c.ws.Load().WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(parting))
}

// response is the [http.ResponseWriter] for the one request on a connection.
type response struct {
	conn   net.Conn
	in     *bufio.Reader
	header http.Header
	status int
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) { r.status = status }

// Write answers with body, and that no other request is taken.
func (r *response) Write(body []byte) (int, error) {
	answer := http.Response{
		StatusCode: r.status, ProtoMajor: 1, ProtoMinor: 1, Header: r.header,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Close: true,
	}
	if err := answer.Write(r.conn); err != nil {
		return 0, err
	}
	return len(body), nil
}

// Hijack hands the connection over to the WebSocket, which from there on reads
// through the same buffer, without the limit of the request.
func (r *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return fixedDeadlines{r.conn}, bufio.NewReadWriter(r.in, bufio.NewWriter(r.conn)), nil
}

// fixedDeadlines keeps the WebSocket, which sets deadlines of its own with every
// frame, from lifting those of the connection.
type fixedDeadlines struct{ net.Conn }

func (fixedDeadlines) SetDeadline(time.Time) error      { return nil }
func (fixedDeadlines) SetWriteDeadline(time.Time) error { return nil }
