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
	return s
}

// sharePrefix begins the filter of a shared subscription (MQTT 5.0, section
// 4.8.2). Whether the rest has the right form is for the server to say, which can
// refuse one filter of several.
const sharePrefix = "$share/"

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
