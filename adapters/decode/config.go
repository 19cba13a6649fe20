package decode

import (
	"fmt"
	"regexp"
	"slices"

	"tidegate/internal/check"
)

// The kinds of decoding.
const (
	KindText     = "text"     // the whole frame is one value
	KindCSV      = "csv"      // values at fixed places: 21.4,40
	KindKeyValue = "keyvalue" // values with their names: t=21.4 h=40
	KindJSON     = "json"     // an object; what is nested gets dotted names
	KindRegex    = "regex"    // named groups of a pattern
)

// Skip is the name of a column that is not wanted.
const Skip = "-"

// Config says how a device writes its values. Each kind has its own keys; those
// of another kind are a mistake.
type Config struct {
	Kind      string   `yaml:"kind"`
	Field     string   `yaml:"field,omitempty"`     // text: the name of the value; default "value"
	Fields    []string `yaml:"fields,omitempty"`    // csv: the columns in order; [Skip] leaves one out
	Separator string   `yaml:"separator,omitempty"` // csv: between columns, default ","; keyvalue: between pairs, default space , ;
	Assign    string   `yaml:"assign,omitempty"`    // keyvalue: between name and value; default = or :
	Pattern   string   `yaml:"pattern,omitempty"`   // regex: RE2 syntax with groups like (?P<temperature>[-.\d]+)
}

// SetDefaults fills in kind and the keys of the kind.
func (c *Config) SetDefaults() {
	if c.Kind == "" {
		c.Kind = KindText
	}
	if c.Kind == KindText && c.Field == "" {
		c.Field = "value"
	}
	if c.Kind == KindCSV && c.Separator == "" {
		c.Separator = ","
	}
}

// Check returns every mistake.
func (c *Config) Check() check.Problems {
	var p check.Problems
	switch c.Kind {
	case KindText, KindKeyValue, KindJSON:
	case KindCSV:
		c.checkColumns(&p)
	case KindRegex:
		c.checkPattern(&p)
	default:
		p.Add("kind", "%q is no decoding; use text, csv, keyvalue, json or regex", c.Kind)
		return p
	}
	c.checkForeign(&p)
	return p
}

// checkForeign finds keys that the kind does not have.
func (c *Config) checkForeign(p *check.Problems) {
	for _, key := range []struct {
		name  string
		set   bool
		kinds []string
	}{
		{"field", c.Field != "", []string{KindText}},
		{"fields", len(c.Fields) > 0, []string{KindCSV}},
		{"separator", c.Separator != "", []string{KindCSV, KindKeyValue}},
		{"assign", c.Assign != "", []string{KindKeyValue}},
		{"pattern", c.Pattern != "", []string{KindRegex}},
	} {
		if key.set && !slices.Contains(key.kinds, c.Kind) {
			p.Add(key.name, "decoding %s has no %s, only %s has; leave it out or change the kind", c.Kind, key.name, key.kinds[0])
		}
	}
}

func (c *Config) checkColumns(p *check.Problems) {
	if len(c.Fields) == 0 {
		p.Add("fields", "decoding csv needs the names of the columns, as in [temperature, humidity]")
	}
	seen := make(map[string]bool)
	for i, name := range c.Fields {
		at := fmt.Sprintf("fields[%d]", i)
		switch {
		case name == Skip:
		case name == "":
			p.Add(at, "the column has no name; write - for one that is not wanted")
		case seen[name]:
			p.Add(at, "two columns are called %q; rename one, or write - for one that is not wanted", name)
		}
		seen[name] = true
	}
	if len(seen) == 1 && seen[Skip] {
		p.Add("fields", "every column is left out; name at least one")
	}
}

func (c *Config) checkPattern(p *check.Problems) {
	const example = `as in T=(?P<temperature>[-.\d]+)`
	re, err := regexp.Compile(c.Pattern)
	if err != nil {
		p.Add("pattern", "%v; the syntax is RE2, %s", err, example)
		return
	}
	named := func(name string) bool { return name != "" }
	if !slices.ContainsFunc(re.SubexpNames(), named) {
		p.Add("pattern", "%q has no named group, so it yields nothing; name one, %s", c.Pattern, example)
	}
}

// New makes the decoder. The configuration must have passed its Check.
func (c *Config) New() (Decoder, error) {
	switch c.Kind {
	case KindText:
		return text{c.Field}, nil
	case KindCSV:
		return csv{c.Fields, c.Separator}, nil
	case KindKeyValue:
		return keyValue{c.Separator, c.Assign}, nil
	case KindJSON:
		return object{}, nil
	case KindRegex:
		re, err := regexp.Compile(c.Pattern)
		if err != nil {
			return nil, fmt.Errorf("compile pattern: %w", err)
		}
		return pattern{re}, nil
	}
	return nil, fmt.Errorf("no decoding is called %q", c.Kind)
}
