package bridge

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"tidegate/mqtt"
)

func qos(q mqtt.QoS) *mqtt.QoS { return &q }

func TestMap(t *testing.T) {
	cfg := Config{Out: []Rule{
		{Topics: []string{"alarm/#"}, QoS: qos(0)},
		{Topics: []string{"sensor/+/temperature", "sensor/outside/#"}, Strip: "sensor/", Prefix: "t/"},
		{Topics: []string{"sensor/#"}, Prefix: "site/pump-house/"},
		{Topics: []string{"command/pump-house/#"}, Strip: "command/pump-house/", Prefix: "actuator/"},
		{Topics: []string{"$SYS/broker/uptime"}, Strip: "$SYS/", Prefix: "gw/"},
		{Topics: []string{"+"}},
	}}
	for topic, want := range map[string]string{
		"alarm/fire":                 "alarm/fire 0",
		"alarm":                      "alarm 0",
		"sensor/weather/temperature": "t/weather/temperature 1",
		"sensor/outside/a/b":         "t/outside/a/b 1",
		"sensor/weather/humidity":    "site/pump-house/sensor/weather/humidity 1",
		"sensor":                     "site/pump-house/sensor 1",
		"command/pump-house/relay/p": "actuator/relay/p 1",
		"command/pump-house":         "actuator/command/pump-house 1", // # matches the parent, which has nothing to strip
		"command/other/relay":        "no rule",
		"$SYS/broker/uptime":         "gw/broker/uptime 1",
		"$SYS":                       "no rule",
		"single":                     "single 1",
		"single/":                    "no rule",
	} {
		got := "no rule"
		if mapped, q, ok := cfg.Map(topic); ok {
			got = fmt.Sprintf("%s %d", mapped, q)
		}
		if got != want {
			t.Errorf("Map(%q) = %s, want %s", topic, got, want)
		}
	}
}

func TestSubscriptionsHaveEachFilterOnceWithItsHighestQoS(t *testing.T) {
	cfg := Config{Out: []Rule{
		{Topics: []string{"a/#", "b"}, QoS: qos(0)},
		{Topics: []string{"c", "a/#", "c"}},
	}}
	want := []mqtt.Subscription{{Filter: "a/#", QoS: 1}, {Filter: "b", QoS: 0}, {Filter: "c", QoS: 1}}
	for i := range want {
		want[i].NoLocal, want[i].RetainAsPublished = true, true
	}
	if got := subscriptions(cfg.Out); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Servers send a message once for each subscription that it matches.
func TestWhatAnotherFilterBringsIsNotAskedFor(t *testing.T) {
	cfg := Config{In: []Rule{
		{Topics: []string{"c/pump/#", "d"}, QoS: qos(2)},
		{Topics: []string{"c/#", "+/q"}},
		{Topics: []string{"c/#", "#"}, QoS: qos(0)},
	}}
	for _, c := range []struct {
		rules []Rule
		want  string
	}{{cfg.In[:2], "[d 2 c/# 2 +/q 1]"}, {cfg.In, "[# 2]"}} {
		var got []string
		for _, s := range (&Config{In: c.rules}).wanted() {
			got = append(got, fmt.Sprintf("%s %d", s.Filter, s.QoS))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("got %v, want %s", got, c.want)
		}
	}
}

// A flag that says "retained" must not hide "new" from a rule that wants to know.
func TestRetainComesDownAsPublishedUnlessAgeMatters(t *testing.T) {
	cfg := Config{In: []Rule{{Topics: []string{"a/#"}}, {Topics: []string{"b/#", "+/x"}, ValidFor: 1}, {Topics: []string{"c"}}}}
	for i, want := range []bool{false, false, false, true} { // some of a/# is of +/x, too
		if got := cfg.wanted()[i]; got.RetainAsPublished != want {
			t.Errorf("%+v", got)
		}
	}
}

func TestStripLaysNoTopicOfTheServersOwnBare(t *testing.T) {
	cfg := Config{Out: []Rule{{Topics: []string{"#"}, Strip: "a/"}}}
	if way := cfg.route("a/$SYS/b"); !errors.Is(way.err, errReserved) {
		t.Errorf("a topic of the server's own is refused with %v", way.err)
	}
	if w := cfg.Explain("a/$SYS/b")[0]; w.To != "" || w.Problem != errReserved.Error() {
		t.Errorf("it is explained as %+v", w)
	}
}
