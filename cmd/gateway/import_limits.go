package main

import (
	"maps"
	"strconv"
	"strings"
)

// positive is get for a number above 0. What else stands there is left over, because
// it says that there is no limit.
func (o *options) positive(key string) string {
	before := maps.Clone(o.used)
	value := o.get(key)
	if n, err := strconv.Atoi(value); err == nil && n > 0 {
		return value
	}
	o.used = before
	return ""
}

// onlyListener returns where the options of the listener stand, or nil if there are
// several: what they say of each cannot be said of all.
func (m *mosquittoConf) onlyListener() *options {
	switch {
	case len(m.listeners) == 0:
		return &m.global
	case len(m.listeners) == 1 && m.global.get("port") == "":
		return m.listeners[0]
	}
	return nil
}

// limitsYAML returns the section "limits", or nothing.
func (m *mosquittoConf) limitsYAML() string {
	var b strings.Builder
	g := &m.global
	if size := g.get("max_packet_size", "message_size_limit"); size != "0" {
		line(&b, "    ", "max_packet_size", size)
	}
	line(&b, "    ", "max_inflight", g.get("max_inflight_messages"))
	line(&b, "    ", "max_keepalive", unit(g.positive("max_keepalive"), "s"))
	line(&b, "    ", "session_expiry", expiration(g.get("persistent_client_expiration")))
	if l := m.onlyListener(); l != nil {
		line(&b, "    ", "max_connections", l.positive("max_connections"))
		line(&b, "    ", "max_topic_alias", l.positive("max_topic_alias"))
	}
	return section("limits", &b)
}

// queueYAML returns the section "queue", or nothing.
func (m *mosquittoConf) queueYAML() string {
	var b strings.Builder
	line(&b, "    ", "max_messages", m.global.positive("max_queued_messages"))
	line(&b, "    ", "max_disk", m.global.positive("max_queued_bytes"))
	if b.Len() > 0 {
		b.WriteString("    overflow: drop_newest # as mosquitto does\n")
	}
	return section("queue", &b)
}

func section(name string, b *strings.Builder) string {
	if b.Len() == 0 {
		return ""
	}
	return "  " + name + ":\n" + b.String()
}

func unit(value, unit string) string {
	if value == "" {
		return ""
	}
	return value + unit
}

// expiration turns a time such as 2w, or 2m for two months, into one that is written
// as here.
func expiration(value string) string {
	days := map[string]int{"d": 1, "w": 7, "m": 30, "y": 365}
	for letter, each := range days {
		head, ok := strings.CutSuffix(value, letter)
		if n, err := strconv.Atoi(head); ok && err == nil {
			return strconv.Itoa(n*each) + "d"
		}
	}
	return value
}
