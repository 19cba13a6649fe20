package adapters

import (
	"maps"
	"math"
	"slices"
	"strings"

	"tidegate/internal/check"
	"tidegate/mqtt"
)

// DefaultTopic is where readings go when the configuration does not say.
const DefaultTopic = "sensor/{adapter}/{field}"

// The payload formats.
const (
	PayloadJSON  = "json"  // {"value":21.4,"unit":"°C","time":"…","quality":"good"}
	PayloadValue = "value" // 21.4
)

// Config is the configuration that all kinds of adapters have in common.
type Config struct {
	Name    string           `yaml:"name"`              // one topic level; names the adapter in topics and logs
	Kind    string           `yaml:"kind"`              // such as "serial"
	Topic   string           `yaml:"topic,omitempty"`   // template with {adapter} and {field}; default [DefaultTopic]
	Payload string           `yaml:"payload,omitempty"` // [PayloadJSON] (default) or [PayloadValue]
	Fields  map[string]Field `yaml:"fields,omitempty"`  // by the name of the reading; others pass unchanged
}

// Field says how the readings of one name become values.
type Field struct {
	Unit  string   `yaml:"unit,omitempty"`  // replaces the adapter's own
	Scale *float64 `yaml:"scale,omitempty"` // the value is multiplied by this
	Min   *float64 `yaml:"min,omitempty"`   // below, after scaling: quality "range"
	Max   *float64 `yaml:"max,omitempty"`   // above, after scaling: quality "range"
}

// Common returns c itself, which makes it the common part of every kind that
// embeds a Config.
func (c *Config) Common() *Config { return c }

// SetDefaults fills in topic and payload.
func (c *Config) SetDefaults() {
	if c.Topic == "" {
		c.Topic = DefaultTopic
	}
	if c.Payload == "" {
		c.Payload = PayloadJSON
	}
}

// Check returns every mistake in the common part.
func (c *Config) Check() check.Problems {
	var p check.Problems
	c.checkName(&p)
	c.checkTopic(&p)
	if c.Payload != PayloadJSON && c.Payload != PayloadValue {
		p.Add("payload", "%q is no payload format; use json or value", c.Payload)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		c.checkField(&p, name)
	}
	return p
}

func (c *Config) checkName(p *check.Problems) {
	switch {
	case c.Name == "":
		p.Add("name", "the adapter has no name; give it one, such as weather")
	case level(c.Name) != c.Name:
		p.Add("name", "%q cannot be one level of a topic; leave out / + # $ and control characters, as in %s", c.Name, level(c.Name))
	}
}

func (c *Config) checkTopic(p *check.Problems) {
	bare := placeholders.Replace(c.Topic)
	switch {
	case strings.ContainsAny(bare, "{}"):
		p.Add("topic", "%q has braces around something else than {adapter} or {field}; use those, as in %s", c.Topic, DefaultTopic)
	case strings.HasPrefix(bare, "$"):
		p.Add("topic", "%q starts with $, which is kept for the broker's own topics; use another name, as in %s", c.Topic, DefaultTopic)
	default:
		if err := mqtt.ValidName(bare); err != nil {
			p.Add("topic", "%v; use one like %s", err, DefaultTopic)
		}
	}
}

// placeholders replaces the placeholders of a template by a lawful level.
var placeholders = strings.NewReplacer("{adapter}", "x", "{field}", "x")

func (c *Config) checkField(p *check.Problems, name string) {
	f, path := c.Fields[name], "fields."+name
	for _, number := range []struct {
		key   string
		value *float64
	}{{"scale", f.Scale}, {"min", f.Min}, {"max", f.Max}} {
		if v := number.value; v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
			p.Add(path+"."+number.key, "%v is no finite number; leave the line out for none", *v)
		}
	}
	if f.Scale != nil && *f.Scale == 0 {
		p.Add(path+".scale", "0 makes every value 0; leave the line out for no scaling")
	}
	if f.Min != nil && f.Max != nil && *f.Min > *f.Max {
		p.Add(path+".min", "%v is more than max, %v; exchange them", *f.Min, *f.Max)
	}
}
