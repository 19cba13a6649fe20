package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

// webSocketConn is MQTT in WebSocket (MQTT 3.1.1, section 6): the bytes of binary
// messages, one after the other. Each Write is one message.
type webSocketConn struct {
	net.Conn // below: a socket, or TLS; for its deadlines and addresses
	raw      net.Conn
	ws       *websocket.Conn
	message  io.Reader  // that is being read; nil: none is
	writing  sync.Mutex // a WebSocket takes one writer at a time; one that hangs is freed by Close
}

// openWebSocket shakes hands over conn, in which it speaks to e. raw is the socket
// below everything.
func openWebSocket(ctx context.Context, conn, raw net.Conn, e endpoint) (net.Conn, error) {
	d := websocket.Dialer{
		NetDialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		Subprotocols:   []string{"mqtt"}, // [MQTT-6.0.0-3]
	}
	// The library would add TLS of its own for wss, but conn has it already.
	ws, answer, err := d.DialContext(ctx, "ws://"+e.address+e.path, nil)
	if err != nil {
		return nil, webSocketError(e, answer, cmp.Or(context.Cause(ctx), err))
	}
	return &webSocketConn{Conn: conn, raw: raw, ws: ws}, nil
}

// webSocketError says why e did not become a WebSocket, and what to do.
func webSocketError(e endpoint, answer *http.Response, err error) error {
	switch {
	case isAlert(err): // see handshakeError
		return alertError(e.address, err)
	case answer != nil && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s has nothing at %s: write the path of MQTT behind the port in servers, as in %s://%s/mqtt (%w)", e.address, e.path, e.scheme, e.address, err)
	case answer != nil:
		return fmt.Errorf("%s answers %q instead of opening a WebSocket at %s: is this the port and path of MQTT over WebSocket? (%w)", e.address, answer.Status, e.path, err)
	case isTimeout(err):
		return fmt.Errorf("%s takes the connection but does not open a WebSocket within %v: is this a port for ws://, and is the server healthy? (%w)", e.address, connectTimeout, err)
	}
	want := ""
	if e.secure() && isClosed(err) { // perhaps before its alert was read
		want = ", and does the server want a certificate (tls.cert and tls.key)"
	}
	return fmt.Errorf("%s does not open a WebSocket: is this a port for %s://%s? (%w)", e.address, e.scheme, want, err)
}

func (c *webSocketConn) Read(b []byte) (int, error) {
	for {
		if c.message == nil {
			kind, message, err := c.ws.NextReader()
			switch {
			case err != nil:
				return 0, asEnd(err)
			case kind != websocket.BinaryMessage: // [MQTT-6.0.0-1]
				return 0, errors.New("the server sends text in the WebSocket, where MQTT has binary messages")
			}
			c.message = message
		}
		n, err := c.message.Read(b)
		if errors.Is(err, io.EOF) {
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, asEnd(err)
		}
	}
}

func (c *webSocketConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// NetConn returns the socket.
func (c *webSocketConn) NetConn() net.Conn { return c.raw }

// Close does not take leave, see encrypted.
func (c *webSocketConn) Close() error { return c.raw.Close() }

// asEnd makes an orderly end of the WebSocket an end of the stream.
func asEnd(err error) error {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return io.EOF
	}
	return err
}
