package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// forBridge reports whether an option is one of bridges. All others are of listeners, or
// of the broker, also below a connection.
func forBridge(key string) bool {
	for _, head := range []string{"bridge_", "remote_", "local_", "notification"} {
		if strings.HasPrefix(key, head) {
			return true
		}
	}
	return slices.Contains([]string{
		"address", "addresses", "cleansession", "clientid", "idle_timeout", "keepalive_interval", "password",
		"restart_timeout", "round_robin", "start_type", "threshold", "topic", "try_private", "username",
	}, key)
}

// bridgeYAML writes the bridge of a connection.
func bridgeYAML(b *strings.Builder, o *options) {
	name := strings.NewReplacer("/", "-", "+", "-", "#", "-").Replace(o.name)
	fmt.Fprintf(b, "  - name: %s\n", quote(name))
	scheme := "tcp"
	if slices.ContainsFunc([]string{"bridge_cafile", "bridge_capath", "bridge_certfile", "bridge_psk"}, o.has) {
		scheme = "tls" // also for what cannot be said here, so that nothing travels in the clear that did not
	}
	serversYAML(b, scheme, o.all("address", "addresses"))
	line(b, "    ", "client_id", quoted(o.get("remote_clientid", "clientid")))
	line(b, "    ", "username", quoted(o.get("remote_username", "username")))
	if o.get("remote_password", "password") != "" {
		b.WriteString("    # The password stays out of this file: put it into one of its own.\n")
		line(b, "    ", "password_file", quote("/etc/tidegate/"+name+".pass"))
	}
	if o.take("bridge_protocol_version", "mqttv50") {
		b.WriteString("    protocol: 5\n")
	}
	o.take("bridge_protocol_version", "mqttv311")
	line(b, "    ", "keepalive", unit(o.get("keepalive_interval"), "s"))
	tlsYAML(b, o)
	backoffYAML(b, o.get("restart_timeout"))
	if o.get("round_robin") == "true" {
		line(b, "    ", "prefer_first", "0s")
	}
	if o.get("notifications_local_only") == "true" || o.says("notifications", "false") {
		b.WriteString("    will: false # what upstream would keep about the connection\n")
	}
	rulesYAML(b, o.topics(), o.get("bridge_outgoing_retain") == "false")
	o.rest(b, "    ")
}

// serversYAML writes lines such as "address HOST[:PORT] ...". The port is 1883 with TLS, too.
func serversYAML(b *strings.Builder, scheme string, addresses []option) {
	var servers []string
	for _, l := range addresses {
		for _, a := range strings.Fields(l.value) {
			host, port := a, "1883"
			if i := strings.LastIndexByte(a, ':'); i >= 0 && !strings.HasSuffix(a, "]") {
				host, port = a[:i], a[i+1:]
			}
			servers = append(servers, quote(scheme+"://"+net.JoinHostPort(strings.Trim(host, "[]"), port)))
		}
	}
	line(b, "    ", "servers", "["+strings.Join(servers, ", ")+"]")
}

func tlsYAML(b *strings.Builder, o *options) {
	var parts []string
	for _, k := range []struct{ here, there string }{{"ca", "bridge_cafile"}, {"cert", "bridge_certfile"}, {"key", "bridge_keyfile"}} {
		if v := o.get(k.there); v != "" {
			parts = append(parts, k.here+": "+quote(v))
		}
	}
	o.take("bridge_capath", "/etc/ssl/certs") // the system's, which are trusted anyway
	if len(parts) > 0 {
		fmt.Fprintf(b, "    tls: {%s}\n", strings.Join(parts, ", "))
	}
}

// topics returns the lines of rules, and leaves those over that mosquitto would not take.
func (o *options) topics() (list []option) {
	for _, l := range o.lines {
		f := strings.Fields(l.value)
		if l.key != "topic" || len(f) == 0 || len(f) > 1 && !slices.Contains([]string{"out", "in", "both"}, f[1]) {
			continue
		}
		o.used[l.line] = true
		list = append(list, l)
	}
	return list
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
