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
	here := &m.global
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		value = strings.TrimSpace(value)
		if key == "" || key[0] == '#' {
			continue
		}
		switch key {
		case "listener":
			here = &options{name: value, line: n, used: map[int]bool{}}
			m.listeners = append(m.listeners, here)
		case "connection":
			here = &options{name: value, line: n, used: map[int]bool{}}
			m.bridges = append(m.bridges, here)
		default:
			m.part(here, key).lines = append(m.part(here, key).lines, option{n, key, value})
		}
	}
	return m, lines.Err()
}

// part returns where an option belongs: some are for the whole broker wherever
// they stand.
func (m *mosquittoConf) part(here *options, key string) *options {
	switch key {
	case "password_file", "acl_file", "allow_anonymous", "persistence", "persistence_location", "max_inflight_messages",
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
	"persistence":           "what is owed is always kept",
	"persistence_location":  "see gateway.data_dir",
	"autosave_interval":     "see store.commit_interval",
	"user":                  "the service manager chooses the user",
	"pid_file":              "the service manager knows it",
	"log_dest":              "the log goes to standard error; see gateway.log",
	"log_type":              "see gateway.log.level",
	"max_connections":       "see broker.limits.max_connections, which counts those of all listeners",
	"max_topic_alias":       "see broker.limits.max_topic_alias, which is for all listeners, and 1 or more",
	"max_keepalive":         "see broker.limits.max_keepalive",
	"memory_limit":          "see gateway.memory_limit, which bounds queues and buffers and refuses in the protocol's words",
	"per_listener_settings": "users and rights are those of the whole broker",
	"cleansession":          "a bridge with rules for in always keeps a session",
	"start_type":            "a bridge is always up",
	"try_private":           "what a bridge sent itself is dropped anyway",
	"notifications":         "the state is always in $SYS/broker/connection/NAME/state",
	"bridge_insecure":       "a server's certificate is always checked; see tls.server_name",
	"max_queued_messages":   "see broker.queue, which bounds what a queue takes on the disk, too",
	"max_queued_bytes":      "see broker.queue.max_disk, which is always bounded",
	"include_dir":           "import its files one by one, and put them into conf.d",
	"plugin":                "there are none; a program that embeds the broker has hooks",
	"auth_plugin":           "there are none; a program that embeds the broker has hooks",
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
		if strings.Contains(l.key, "password") {
			value = mask
		}
		fmt.Fprintf(b, "%s# line %d: %s %s: %s\n", indent, l.line, l.key, value, reason)
	}
}
