package adapters

import (
	"math"
	"slices"
	"testing"
)

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		paths  []string
	}{
		"the least":                     {Config{Name: "a"}, nil},
		"no name":                       {Config{}, []string{"name"}},
		"a name of two levels":          {Config{Name: "a/b"}, []string{"name"}},
		"a name with a wildcard":        {Config{Name: "a+"}, []string{"name"}},
		"a name with a dollar in front": {Config{Name: "$SYS"}, []string{"name"}},
		"a topic with a wildcard":       {Config{Name: "a", Topic: "sensor/#"}, []string{"topic"}},
		"an unknown placeholder":        {Config{Name: "a", Topic: "{gateway}/{field}"}, []string{"topic"}},
		"a broken placeholder":          {Config{Name: "a", Topic: "x/{field"}, []string{"topic"}},
		"the broker's topics":           {Config{Name: "a", Topic: "$SYS/{field}"}, []string{"topic"}},
		"senml comes later":             {Config{Name: "a", Payload: "senml"}, []string{"payload"}},
		"limits exchanged":              {Config{Name: "a", Fields: map[string]Field{"t": {Min: new(2.0), Max: new(1.0)}}}, []string{"fields.t.min"}},
		"numbers that are none":         {Config{Name: "a", Fields: map[string]Field{"t": {Scale: new(math.NaN()), Max: new(math.Inf(1))}}}, []string{"fields.t.scale", "fields.t.max"}},
		"scale 0, in order of the names": {
			Config{Name: "a", Fields: map[string]Field{"z": {Scale: new(0.0)}, "b": {Scale: new(0.0)}}},
			[]string{"fields.b.scale", "fields.z.scale"},
		},
		"everything at once": {Config{Topic: "+", Payload: "xml"}, []string{"name", "topic", "payload"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.SetDefaults()
			var paths []string
			for _, p := range c.config.Check() {
				paths = append(paths, p.Path)
			}
			if !slices.Equal(paths, c.paths) {
				t.Errorf("problems %q, want at %q", c.config.Check(), c.paths)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	var c Config
	c.SetDefaults()
	if c.Topic != "sensor/{adapter}/{field}" || c.Payload != "json" {
		t.Errorf("%+v", c)
	}
	c = Config{Topic: "t", Payload: "value"}
	c.SetDefaults()
	if c.Topic != "t" || c.Payload != "value" {
		t.Errorf("what was there is changed: %+v", c)
	}
}
