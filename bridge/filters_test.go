package bridge

import (
	"slices"
	"strings"
	"testing"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// names and filters of up to three levels over a small alphabet: enough for
// every relation that filters can have.
func combinations(alphabet ...string) (list []string) {
	level := []string{""}
	for range 3 {
		var next []string
		for _, head := range level {
			for _, a := range alphabet {
				next = append(next, strings.TrimPrefix(head+"/"+a, "/"))
			}
		}
		list, level = append(list, next...), next
	}
	return list
}

// What covers and overlap say about two filters is what Match says about all
// topics.
func TestFilterRelations(t *testing.T) {
	topics := combinations("a", "b", "$c", "other")
	topics = append(topics, "a/a/a/a", "other/other/other/other")
	var filters []string
	for _, f := range combinations("a", "$c", "+", "#") {
		if mqtt.ValidFilter(f) == nil {
			filters = append(filters, f)
		}
	}
	for _, f := range filters {
		for _, g := range filters {
			all, some := true, false
			for _, topic := range topics {
				if mqtt.Match(g, topic) {
					both := mqtt.Match(f, topic)
					all, some = all && both, some || both
				}
			}
			if covers(f, g) != all && f != "+/#" {
				t.Errorf("covers(%q, %q) = %v", f, g, !all)
			}
			if overlap(f, g) != some {
				t.Errorf("overlap(%q, %q) = %v", f, g, !some)
			}
		}
	}
}

// Whatever a rule makes of a topic matches one of its images.
func TestImages(t *testing.T) {
	topics := combinations("a", "b", "ab")
	for _, r := range []Rule{
		{},
		{Prefix: "x/"},
		{Prefix: "x"},
		{Strip: "a/"},
		{Strip: "a/b/", Prefix: "y/z/"},
		{Strip: "a"},
	} {
		for _, f := range []string{"#", "+", "+/b", "a/#", "a/+", "+/+/b", "a/b/+", "a/b/ab", "ab/#"} {
			images := r.images(f)
			for _, image := range images {
				if err := mqtt.ValidFilter(image); err != nil {
					t.Errorf("%+v makes %q of %q: %v", r, image, f, err)
				}
			}
			for _, topic := range topics {
				if renamed := r.rename(topic); mqtt.Match(f, topic) && renamed != "" &&
					!slices.ContainsFunc(images, func(image string) bool { return mqtt.Match(image, renamed) }) {
					t.Errorf("%+v makes %q of %q, which no image of %q has: %q", r, renamed, topic, f, images)
				}
			}
		}
	}
}

func TestWarnings(t *testing.T) {
	rule := func(topic, strip, prefix string) Rule {
		return Rule{Topics: []string{topic}, Strip: strip, Prefix: prefix}
	}
	bridge := func(name, server string, out, in []Rule) Config {
		return Config{Name: name, Servers: []string{server}, Out: out, In: in}
	}
	const cloud, other = "tcp://cloud.example.com", "tcp://other.example.com:1884"
	for name, c := range map[string]struct {
		bridges []Config
		want    []string // path: what the text has
	}{
		"nothing to say": {[]Config{
			bridge("a", cloud, []Rule{rule("sensor/#", "", "site/1/")}, []Rule{rule("command/1/#", "command/1/", "actuator/")}),
			bridge("b", other, []Rule{rule("sensor/#", "", "")}, nil),
		}, nil},
		"a wide filter first": {
			[]Config{bridge("a", cloud, []Rule{rule("sensor/#", "", ""), rule("sensor/+/t", "", "t/")}, nil)},
			[]string{`[0].out[1].topics[0]: "sensor/+/t" never matches`},
		},
		"the same filter twice": {
			[]Config{bridge("a", cloud, nil, []Rule{{Topics: []string{"c/1", "c/1"}}})},
			[]string{`[0].in[0].topics[1]: "c/1" never matches`},
		},
		"both ways": {
			[]Config{bridge("a", cloud, []Rule{rule("x/#", "", "")}, []Rule{rule("x/#", "", "")})},
			[]string{"[0].in[0].topics[0]: \"x/#\" upstream includes what out[0].topics[0] sends"},
		},
		"back through a prefix": {
			[]Config{bridge("a", cloud, []Rule{rule("x/#", "x/", "y/")}, []Rule{rule("y/+", "", "")})},
			[]string{"[0].in[0].topics[0]: \"y/+\" upstream"},
		},
		"two bridges to one server": {[]Config{
			bridge("a", cloud, nil, []Rule{rule("c/#", "c/", "l/")}),
			bridge("b", cloud+":1883", []Rule{rule("l/#", "l/", "c/")}, nil),
		}, []string{"[0].in[0].topics[0]: \"c/#\" goes in a circle: out[0].topics[0] of the bridge \"b\""}},
		"two bridges to two servers": {[]Config{
			bridge("a", cloud, nil, []Rule{rule("c/#", "c/", "l/")}),
			bridge("b", other, []Rule{rule("l/#", "l/", "c/")}, nil),
		}, nil},
		"filters that share topics": {
			[]Config{bridge("a", cloud, nil, []Rule{rule("c/#", "", ""), rule("+/x", "", "l/"), rule("c/y", "", "")})},
			[]string{
				`[0].in[2].topics[0]: "c/y" never matches`,
				`[0].in[1].topics[0]: "+/x" and "c/#" above have topics in common`,
			},
		},
		"one client id at one server": {[]Config{
			{Name: "a", Servers: []string{cloud}, ClientID: "x"},
			{Name: "b", Servers: []string{other, cloud}, ClientID: "x"},
			{Name: "c", Servers: []string{other + "1"}, ClientID: "x"},
			{Name: "d", Servers: []string{cloud}},
			{Name: "e", Servers: []string{cloud}},
		}, []string{`[1].client_id: "x" is that of the bridge "a"`}},
		"no place beside the backlog": {[]Config{
			{Name: "a", CatchUp: CatchUp{Order: liveFirst, Rate: units.Rate{Messages: 1}}, MaxInflight: 1},
			{Name: "b", CatchUp: CatchUp{Order: liveFirst, Rate: units.Rate{Messages: 1}}, MaxInflight: 2},
			{Name: "c", CatchUp: CatchUp{Order: inOrder, Rate: units.Rate{Messages: 1}}, MaxInflight: 1},
			{Name: "d", CatchUp: CatchUp{Order: liveFirst}, MaxInflight: 1},
		}, []string{"[0].max_inflight: 1 is so few that live messages wait"}},
		"to itself": {
			[]Config{bridge("a", "tcp://localhost:1885", []Rule{rule("x", "", "")}, nil)},
			[]string{"[0].servers[0]: tcp://localhost:1885 is this gateway itself"},
		},
	} {
		got := Warnings(c.bridges, []string{"0.0.0.0:1885", "127.0.0.1:8883"})
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
			continue
		}
		for i, p := range got {
			if !strings.HasPrefix(p.Path+": "+p.Text, c.want[i]) {
				t.Errorf("%s: %q, want %q", name, p, c.want[i])
			}
		}
	}
}
