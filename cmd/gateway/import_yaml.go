package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// yaml returns the configuration as text.
func (m *mosquittoConf) yaml() string {
	var b strings.Builder
	b.WriteString("# Made of a mosquitto.conf. Read it before you use it, and try it: tidegate check --config FILE\n\n")
	m.broker(&b)
	if len(m.bridges) > 0 {
		b.WriteString("\nbridges:\n")
	}
	for _, o := range m.bridges {
		bridgeYAML(&b, o)
	}
	b.WriteString("\n")
	m.global.rest(&b, "")
	return b.String()
}

// quote writes s so that YAML reads it as this text.
func quote(s string) string { return strconv.Quote(s) }

// line writes a key and its value, if there is one.
func line(b *strings.Builder, indent, key, value string) {
	if value != "" {
		fmt.Fprintf(b, "%s%s: %s\n", indent, key, value)
	}
}

func quoted(value string) string {
	if value == "" {
		return ""
	}
	return quote(value)
}

func (m *mosquittoConf) broker(b *strings.Builder) {
	limits, queue := m.limitsYAML(), m.queueYAML() // before listeners write what is left of them
	b.WriteString("broker:\n  listeners:\n")
	g := &m.global
	if port, host := g.get("port"), g.get("bind_address"); port+host != "" {
		listenerYAML(b, &options{name: or(port, "1883") + " " + host, lines: g.lines, used: g.used})
	} else if len(m.listeners) == 0 { // then mosquitto listens for this machine only
		listenerYAML(b, &options{name: "1883 127.0.0.1", lines: g.lines, used: g.used})
	}
	for _, o := range m.listeners {
		listenerYAML(b, o)
		o.rest(b, "      ")
	}
	line(b, "  ", "allow_anonymous", g.get("allow_anonymous"))
	line(b, "  ", "password_file", quoted(g.get("password_file")))
	line(b, "  ", "acl_file", quoted(g.get("acl_file")))
	b.WriteString(limits + queue)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// listenerYAML writes the listener whose name is "PORT [ADDRESS]".
func listenerYAML(b *strings.Builder, o *options) {
	port, host, _ := strings.Cut(o.name, " ")
	address := net.JoinHostPort(or(strings.TrimSpace(host), "0.0.0.0"), port)
	cert, key := o.get("certfile"), o.get("keyfile")
	scheme, secure := "tcp", cert != "" || o.has("psk_hint")
	switch web := o.get("protocol") == "websockets"; {
	case port == "0" && host != "":
		scheme, address = "unix", strings.TrimSpace(host)
	case web && secure:
		scheme, address = "wss", address+"/mqtt"
	case web:
		scheme, address = "ws", address+"/mqtt"
	case secure:
		scheme = "tls"
	}
	fmt.Fprintf(b, "    - address: %s\n", quote(scheme+"://"+address))
	line(b, "      ", "cert", quoted(cert))
	line(b, "      ", "key", quoted(key))
	ca := o.get("cafile")
	if o.get("require_certificate") == "true" {
		line(b, "      ", "client_ca", quote(or(ca, "/etc/tidegate/certs/clients.crt")))
	}
	if o.get("use_identity_as_username") == "true" {
		line(b, "      ", "identity", "cn")
	}
}
