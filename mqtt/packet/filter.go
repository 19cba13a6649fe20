package packet

import (
	"strings"

	"tidegate/mqtt"
)

// filter reads a topic filter [MQTT-3.8.3-1] [MQTT-3.10.3-1].
func (r *fields) filter() string {
	s := string(r.text("topic filter"))
	if r.err != nil {
		return ""
	}
	if err := mqtt.ValidFilter(s); err != nil {
		r.violation(filterStatement(s), "%s with an %s", r.packet, err)
	}
	if r.version == V5 {
		r.checkShare(s)
	}
	return s
}

// sharePrefix begins the filter of a shared subscription, which MQTT 5 has.
const sharePrefix = "$share/"

// checkShare checks the form of a shared subscription: $share, its name, and a
// filter (MQTT 5.0, section 4.8.2).
func (r *fields) checkShare(s string) {
	rest, shared := strings.CutPrefix(s, sharePrefix)
	if !shared {
		return
	}
	name, filter, _ := strings.Cut(rest, "/")
	switch {
	case name == "":
		r.fail(malformed("MQTT-4.8.2-1", "%s with the shared subscription %q, whose share has no name", r.packet, s))
	case strings.ContainsAny(name, "+#") || filter == "":
		r.fail(malformed("MQTT-4.8.2-2", "%s with the shared subscription %q, it must be $share/NAME/FILTER without a wildcard in the name", r.packet, s))
	}
}

// filterStatement is the statement that the unlawful filter s breaks.
func filterStatement(s string) string {
	switch {
	case s == "":
		return "MQTT-4.7.3-1"
	case mqtt.ValidFilter(strings.ReplaceAll(s, "#", "x")) == nil:
		return "MQTT-4.7.1-2" // misplaced #
	default:
		return "MQTT-4.7.1-3" // misplaced +
	}
}
