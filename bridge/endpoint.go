package bridge

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// endpoint is where a server listens, and how it is spoken to.
type endpoint struct {
	scheme  string
	host    string
	address string // host:port
	path    string // of WebSocket
}

// The usual port of each scheme. Those of WebSocket are the web's.
var ports = map[string]string{"tcp": "1883", "tls": "8883", "ws": "80", "wss": "443"}

// webSocketPath is where brokers usually serve WebSocket.
const webSocketPath = "/mqtt"

// secure reports whether the connection is encrypted.
func (e endpoint) secure() bool { return e.scheme == "tls" || e.scheme == "wss" }

// web reports whether MQTT travels in WebSocket.
func (e endpoint) web() bool { return e.scheme == "ws" || e.scheme == "wss" }

// parseServer takes a server's URL apart. Its errors say what would be right.
func parseServer(server string) (endpoint, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return endpoint{}, fmt.Errorf("%q is no server: write tcp://host:port", server)
	}
	e := endpoint{scheme: u.Scheme, host: u.Hostname()}
	usual, known := ports[u.Scheme]
	switch {
	case !known:
		return endpoint{}, fmt.Errorf("%q has the scheme %q; it takes tcp, tls, ws or wss%s", server, u.Scheme, meant(u.Scheme))
	case u.User != nil:
		return endpoint{}, fmt.Errorf("the server %s carries a login: write it as username and password_file", u.Redacted())
	case u.RawQuery != "" && !e.web(), u.Fragment != "", strings.Trim(u.Path, "/") != "" && !e.web():
		return endpoint{}, fmt.Errorf("%q has something behind the port: write %s://host:port", server, u.Scheme)
	}
	port := u.Port()
	if port == "" {
		port = usual
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return endpoint{}, fmt.Errorf("%q has the port %s, which is not in 1 to 65535", server, port)
	}
	if e.web() {
		e.path = (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String()
		if strings.Trim(u.Path, "/") == "" {
			e.path = webSocketPath
		}
	}
	e.address = net.JoinHostPort(e.host, port)
	return e, nil
}

// meant says what other programs' schemes are called here.
func meant(scheme string) string {
	switch {
	case scheme == "mqtt":
		return ": write tcp://"
	case slices.Contains([]string{"mqtts", "ssl", "tcps"}, scheme):
		return ": write tls://"
	case scheme == "http", scheme == "https":
		return ": for WebSocket write " + map[string]string{"http": "ws://", "https": "wss://"}[scheme]
	}
	return ""
}

// serverAddress returns the "host:port" of a server's URL.
func serverAddress(server string) (string, error) {
	e, err := parseServer(server)
	return e.address, err
}
