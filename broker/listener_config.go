package broker

import (
	"net"
	"net/url"
	"path/filepath"
	"strconv"

	"tidegate/internal/check"
)

// identityCN makes the common name of a client's certificate its user name.
const identityCN = "cn"

// maxSocketPath is the longest path of a socket file in bytes (unix(7)).
const maxSocketPath = 107

// defaultPath is where MQTT is in the HTTP server of a WebSocket listener.
const defaultPath = "/mqtt"

// place is an address taken apart.
type place struct {
	scheme  string
	network string // for [net.Listen]: tcp or unix
	addr    string // host:port, or the path of the socket file
	path    string // where MQTT is in the HTTP server; empty: it is no WebSocket
	tls     bool
}

// check reports what is wrong with l. It does not look at the files.
func (l Listener) check() check.Problems {
	var p check.Problems
	at, problem := l.place()
	if problem != "" {
		p.Add("address", "%q %s", l.Address, problem)
		return p
	}
	for _, file := range []struct{ key, name string }{{"cert", l.Cert}, {"key", l.Key}, {"client_ca", l.ClientCA}} {
		switch {
		case file.name != "" && !at.tls:
			p.Add(file.key, "%s:// has no certificates; use tls:// or wss://, or leave %s out", at.scheme, file.key)
		case file.name == "" && at.tls && file.key != "client_ca":
			p.Add(file.key, "is missing: %s:// needs the files cert and key, as in /etc/tidegate/certs/server.crt and server.key", at.scheme)
		case file.name != "" && !filepath.IsAbs(file.name):
			p.Add(file.key, "%q is no full path; begin with /, as in /etc/tidegate/certs/%s", file.name, filepath.Base(file.name))
		}
	}
	switch {
	case l.Identity != "" && l.Identity != identityCN:
		p.Add("identity", "%q is unknown; write %s for the common name in the client's certificate, or leave it out", l.Identity, identityCN)
	case l.Identity != "" && l.ClientCA == "":
		p.Add("identity", "needs client_ca: without it clients show no certificate")
	}
	return p
}

// place takes the address apart, or says in words why it is none.
func (l Listener) place() (p place, problem string) {
	u, err := url.Parse(l.Address)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return place{}, "is no address; write tcp://127.0.0.1:1883"
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return place{}, "has a part that a listener does not take; write scheme, host and port only"
	}
	switch u.Scheme {
	case "tcp", "tls", "ws", "wss":
		return tcpPlace(u)
	case "unix":
		return unixPlace(u)
	}
	return place{}, "has the scheme " + strconv.Quote(u.Scheme) + "; it takes tcp, tls, ws, wss or unix"
}

func unixPlace(u *url.URL) (p place, problem string) {
	switch {
	case u.Host != "" || !filepath.IsAbs(u.Path):
		return place{}, "is no path of a socket; write unix:///run/tidegate/mqtt.sock, with three slashes"
	case len(u.Path) > maxSocketPath:
		return place{}, "is too long; the path of a socket takes " + strconv.Itoa(maxSocketPath) + " bytes"
	}
	return place{scheme: u.Scheme, network: "unix", addr: u.Path}, ""
}

// usualPort is shown to whoever left the port out.
func usualPort(scheme string) string {
	switch scheme {
	case "tls":
		return "8883"
	case "ws":
		return "8083"
	case "wss":
		return "8084"
	}
	return "1883"
}

func tcpPlace(u *url.URL) (p place, problem string) {
	p = place{scheme: u.Scheme, network: "tcp", tls: u.Scheme == "tls" || u.Scheme == "wss"}
	switch {
	case u.Host == "":
		return place{}, "is no address; write " + u.Scheme + "://127.0.0.1:" + usualPort(u.Scheme)
	case u.Scheme == "ws" || u.Scheme == "wss":
		if p.path = u.Path; p.path == "" {
			p.path = defaultPath
		}
	case u.Path != "" && u.Path != "/":
		return place{}, "has a path, which " + u.Scheme + ":// does not take"
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || port == "" {
		return place{}, "has no port; write " + u.Scheme + "://" + net.JoinHostPort(u.Hostname(), usualPort(u.Scheme))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return place{}, "has the port " + strconv.Quote(port) + "; it takes 0 to 65535"
	}
	p.addr = net.JoinHostPort(host, port)
	return p, ""
}

// Loopback reports whether only this machine can reach the listener.
func (l Listener) Loopback() bool {
	p, _ := l.place()
	if p.network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(p.addr)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
