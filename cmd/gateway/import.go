package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// ImportCmd turns a mosquitto.conf into a configuration.
type ImportCmd struct {
	File string
}

func (c *ImportCmd) define(p *params) {
	p.arg(&c.File, "FILE", "mosquitto.conf to read; - is standard input.")
}

// Help is shown by --help.
func (ImportCmd) Help() string {
	return `Prints a configuration with the listeners, users, rights, limits and bridges of a
mosquitto.conf. What has no equivalent stands as a comment with its line number, so
read the result before you use it. It reads that one file, and none that it includes.

Example:

    tidegate import /etc/mosquitto/mosquitto.conf > tidegate.yaml`
}

// Run prints the configuration.
func (c *ImportCmd) Run(_ context.Context, std stdio) error {
	in := std.In
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("read the configuration of mosquitto: %w", err)
		}
		defer f.Close()
		in = f
	}
	m, err := parseMosquitto(in)
	if err != nil {
		return fmt.Errorf("read the configuration of mosquitto: %w", err)
	}
	_, err = io.WriteString(std.Out, m.yaml())
	return err
}

// mosquittoConf is what a mosquitto.conf says.
type mosquittoConf struct {
	global    options
	listeners []*options
	bridges   []*options
}

// options are lines of one part of the file, in their order.
type options struct {
	name  string // of the bridge; port and address of the listener
	line  int
	lines []option
	used  map[int]bool // lines that have an equivalent
}

type option struct {
	line       int
	key, value string
}

func parseMosquitto(r io.Reader) (*mosquittoConf, error) {
	m := &mosquittoConf{}
	m.global.used = map[int]bool{}
	listener, bridge := &m.global, &m.global // that the lines are about
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		value = strings.TrimSpace(value)
		if key == "" || key[0] == '#' {
			continue
		}
		switch key {
		case "listener":
			listener = &options{name: value, line: n, used: map[int]bool{}}
			m.listeners = append(m.listeners, listener)
		case "connection":
			bridge = &options{name: value, line: n, used: map[int]bool{}}
			m.bridges = append(m.bridges, bridge)
		default:
			here := m.part(listener, key)
			if forBridge(key) {
				here = bridge
			}
			here.lines = append(here.lines, option{n, key, value})
		}
	}
	return m, lines.Err()
}

// part returns where an option belongs: some are for the whole broker wherever
// they stand.
func (m *mosquittoConf) part(here *options, key string) *options {
	switch key {
	case "port", "bind_address", "password_file", "acl_file", "allow_anonymous", "persistence", "persistence_location", "max_inflight_messages",
		"max_queued_messages", "max_queued_bytes", "max_packet_size", "message_size_limit", "max_keepalive", "memory_limit",
		"persistent_client_expiration", "per_listener_settings", "user", "log_dest", "log_type":
		return &m.global
	}
	return here
}

// get returns the last value of one of the keys, and notes that it was used.
func (o *options) get(keys ...string) (value string) {
	for _, l := range o.lines {
		for _, key := range keys {
			if l.key == key {
				value = l.value
				o.used[l.line] = true
			}
		}
	}
	return value
}

// says reports whether a line has the key and value, which may need words as well.
func (o *options) says(key, value string) bool {
	return slices.ContainsFunc(o.lines, func(l option) bool { return l.key == key && l.value == value })
}

// take reports whether a line has the key and value, and notes that it was used.
func (o *options) take(key, value string) (found bool) {
	for _, l := range o.lines {
		if l.key == key && l.value == value {
			o.used[l.line], found = true, true
		}
	}
	return found
}

// has reports whether a line has the key, which may need words as well.
func (o *options) has(key string) bool {
	return slices.ContainsFunc(o.lines, func(l option) bool { return l.key == key })
}

// all returns every line with the key, and notes that it was used.
func (o *options) all(keys ...string) (list []option) {
	for _, l := range o.lines {
		for _, key := range keys {
			if l.key == key {
				o.used[l.line] = true
				list = append(list, l)
			}
		}
	}
	return list
}

// why says what to do about an option that has no equivalent.
var why = map[string]string{
	"persistence":                "what is owed is always kept",
	"persistence_location":       "see gateway.data_dir",
	"autosave_interval":          "see store.commit_interval",
	"user":                       "the service manager chooses the user",
	"pid_file":                   "the service manager knows it",
	"log_dest":                   "the log goes to standard error; see gateway.log",
	"log_type":                   "see gateway.log.level",
	"max_connections":            "see broker.limits.max_connections, which counts those of all listeners",
	"max_topic_alias":            "see broker.limits.max_topic_alias, which is for all listeners, and 1 or more",
	"max_keepalive":              "see broker.limits.max_keepalive",
	"memory_limit":               "see gateway.memory_limit, which bounds queues and buffers and refuses in the protocol's words",
	"per_listener_settings":      "users and rights are those of the whole broker",
	"cleansession":               "a bridge with rules for in always keeps a session",
	"start_type":                 "a bridge is always up",
	"try_private":                "what a bridge sent itself is dropped anyway",
	"notifications":              "the state is always in $SYS/broker/connection/NAME/state",
	"bridge_insecure":            "a server's certificate is always checked; see tls.server_name",
	"bridge_capath":              "write its certificates into one file, and that at tls.ca; without it those are trusted that the system trusts",
	"bridge_psk":                 "there are no shared keys: the server needs a certificate",
	"bridge_identity":            "there are no shared keys; see username, and tls.cert",
	"bridge_alpn":                "no equivalent: give MQTT a port of its own, or use wss://",
	"bridge_tls_version":         "1.2 or 1.3, as the server wants",
	"bridge_require_ocsp":        "no equivalent: it is not asked whether a certificate was revoked",
	"bridge_bind_address":        "no equivalent: the routes of the system choose",
	"bridge_max_packet_size":     "with protocol: 5 the server says it; see max_packet_size for what comes down",
	"bridge_protocol_version":    "MQTT 3.1.1, which every server understands; see protocol",
	"bridge_attempt_unsubscribe": "nothing is unsubscribed",
	"local_cleansession":         "what is owed to a bridge is always kept",
	"local_clientid":             "a bridge is no client here",
	"local_username":             "a bridge is no client here, and may read and write everything",
	"local_password":             "a bridge is no client here, and may read and write everything",
	"idle_timeout":               "a bridge is always up",
	"threshold":                  "a bridge is always up",
	"notification_topic":         "the state is always in $SYS/broker/connection/NAME/state, and upstream in gateway/NAME/status",
	"topic":                      "a direction is out, in or both",
	"psk_hint":                   "there are no shared keys: the listener needs cert and key",
	"psk_file":                   "there are no shared keys",
	"capath":                     "write its certificates into one file, and that at client_ca",
	"use_subject_as_username":    "see identity: cn, which takes the common name",
	"max_queued_messages":        "see broker.queue, which bounds what a queue takes on the disk, too",
	"max_queued_bytes":           "see broker.queue.max_disk, which is always bounded",
	"include_dir":                "import its files one by one, and put them into conf.d",
	"plugin":                     "there are none; a program that embeds the broker has hooks",
	"auth_plugin":                "there are none; a program that embeds the broker has hooks",
}

// rest writes what was not used as comments.
func (o *options) rest(b *strings.Builder, indent string) {
	for _, l := range o.lines {
		if o.used[l.line] {
			continue
		}
		reason := why[l.key]
		if reason == "" {
			reason = "no equivalent"
		}
		value := l.value
		if l.key != "psk_file" && slices.ContainsFunc([]string{"pass", "psk", "secret", "token"}, func(s string) bool { return strings.Contains(l.key, s) }) {
			value = mask
		}
		fmt.Fprintf(b, "%s# line %d: %s %s: %s\n", indent, l.line, l.key, value, reason)
	}
}
