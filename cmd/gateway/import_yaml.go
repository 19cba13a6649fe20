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
	if port := g.get("port"); port != "" {
		listenerYAML(b, &options{name: port + " " + g.get("bind_address"), lines: g.lines, used: g.used})
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
	scheme := "tcp"
	switch web := o.get("protocol") == "websockets"; {
	case port == "0" && host != "":
		scheme, address = "unix", strings.TrimSpace(host)
	case web && cert != "":
		scheme, address = "wss", address+"/mqtt"
	case web:
		scheme, address = "ws", address+"/mqtt"
	case cert != "":
		scheme = "tls"
	}
	fmt.Fprintf(b, "    - address: %s\n", quote(scheme+"://"+address))
	line(b, "      ", "cert", quoted(cert))
	line(b, "      ", "key", quoted(key))
	ca := o.get("cafile")
	if o.get("require_certificate") == "true" {
		line(b, "      ", "client_ca", quoted(ca))
	}
	if o.get("use_identity_as_username") == "true" {
		line(b, "      ", "identity", "cn")
	}
}

// bridgeYAML writes the bridge of a connection.
func bridgeYAML(b *strings.Builder, o *options) {
	fmt.Fprintf(b, "  - name: %s\n", quote(strings.NewReplacer("/", "-", "+", "-", "#", "-").Replace(o.name)))
	ca, cert, key := o.get("bridge_cafile"), o.get("bridge_certfile"), o.get("bridge_keyfile")
	scheme, port := "tcp", "1883"
	if ca+cert != "" {
		scheme, port = "tls", "8883"
	}
	var servers []string
	for _, l := range o.all("address", "addresses") {
		for _, a := range strings.Fields(l.value) {
			if _, _, err := net.SplitHostPort(a); err != nil {
				a = net.JoinHostPort(strings.Trim(a, "[]"), port)
			}
			servers = append(servers, quote(scheme+"://"+a))
		}
	}
	line(b, "    ", "servers", "["+strings.Join(servers, ", ")+"]")
	line(b, "    ", "client_id", quoted(o.get("remote_clientid", "clientid")))
	line(b, "    ", "username", quoted(o.get("remote_username", "username")))
	if o.get("remote_password", "password") != "" {
		b.WriteString("    # The password stays out of this file: put it into one of its own.\n    password_file: /etc/tidegate/bridge.pass\n")
	}
	if v := o.get("bridge_protocol_version"); v == "mqttv50" {
		b.WriteString("    protocol: 5\n")
	}
	line(b, "    ", "keepalive", unit(o.get("keepalive_interval"), "s"))
	if ca+cert != "" {
		fmt.Fprintf(b, "    tls: {ca: %s, cert: %s, key: %s}\n", quote(ca), quote(cert), quote(key))
	}
	backoffYAML(b, o.get("restart_timeout"))
	if o.get("round_robin") == "true" {
		line(b, "    ", "prefer_first", "0s")
	}
	if o.get("notifications_local_only") == "true" || o.says("notifications", "false") {
		b.WriteString("    will: false # what upstream would keep about the connection\n")
	}
	rulesYAML(b, o.all("topic"), o.get("bridge_outgoing_retain") == "false")
	o.rest(b, "    ")
}

// backoffYAML writes "MIN MAX" in seconds; one number is both.
func backoffYAML(b *strings.Builder, timeout string) {
	if f := strings.Fields(timeout); len(f) > 0 {
		fmt.Fprintf(b, "    backoff: {min: %ss, max: %ss}\n", f[0], f[len(f)-1])
	}
}

// rulesYAML writes the rules of lines such as "topic PATTERN [DIRECTION [QOS
// [LOCAL-PREFIX [REMOTE-PREFIX]]]]".
func rulesYAML(b *strings.Builder, topics []option, unretained bool) {
	for _, way := range []string{"out", "in"} {
		begun := false
		for _, l := range topics {
			f := strings.Fields(l.value)
			if len(f) == 0 {
				continue
			}
			for i, standard := range []string{"", "out", "0", `""`, `""`} {
				if i >= len(f) {
					f = append(f, standard)
				}
				if f[i] == `""` {
					f[i] = ""
				}
			}
			if f[1] != way && f[1] != "both" {
				continue
			}
			if !begun {
				fmt.Fprintf(b, "    %s:\n", way)
				begun = true
			}
			ruleYAML(b, l.line, way, f)
			if unretained && way == "out" {
				b.WriteString("        retain: false\n")
			}
		}
	}
}

// ruleYAML writes one rule of pattern, direction, QoS, local and remote prefix.
func ruleYAML(b *strings.Builder, number int, way string, f []string) {
	from, to := f[3], f[4]
	if way == "in" {
		from, to = to, from
	}
	fmt.Fprintf(b, "      - topics: [%s] # line %d\n", quote(from+f[0]), number)
	line(b, "        ", "strip", quoted(from))
	line(b, "        ", "prefix", quoted(to))
	if way == "out" && f[2] == "2" {
		b.WriteString("        qos: 1 # was 2: upstream goes at least once; envelope: json lets receivers tell what came twice\n")
		return
	}
	line(b, "        ", "qos", f[2])
}
