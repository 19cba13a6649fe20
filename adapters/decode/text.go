package decode

import (
	"regexp"
	"strings"
)

// text takes the whole frame for one value.
type text struct{ field string }

func (t text) Decode(frame []byte) ([]Field, error) {
	s, err := printable(frame)
	if err != nil {
		return nil, err
	}
	return []Field{{t.field, number(s)}}, nil
}

// csv splits at a separator. There is no quoting: sensors do not quote, and half
// of a quote that noise has eaten would swallow the rest of the line.
type csv struct {
	fields    []string
	separator string
}

func (c csv) Decode(frame []byte) ([]Field, error) {
	s, err := printable(frame)
	if err != nil {
		return nil, err
	}
	columns := c.split(s)
	if len(columns) != len(c.fields) {
		return nil, refuse(ReasonColumns, "the frame has %d columns, the configuration %d", len(columns), len(c.fields))
	}
	fields := make([]Field, 0, len(columns))
	for i, column := range columns {
		if column = strings.TrimSpace(column); column != "" && c.fields[i] != Skip {
			fields = append(fields, Field{c.fields[i], number(column)})
		}
	}
	return some(fields)
}

// split takes any run of blanks for one if the separator is blank.
func (c csv) split(s string) []string {
	if strings.TrimSpace(c.separator) == "" {
		return strings.Fields(s)
	}
	return strings.Split(s, c.separator)
}

// keyValue reads pairs in any order.
type keyValue struct{ separator, assign string }

func (k keyValue) Decode(frame []byte) ([]Field, error) {
	s, err := printable(frame)
	if err != nil {
		return nil, err
	}
	pairs := k.pairs(s)
	fields := make([]Field, 0, len(pairs))
	for i, pair := range pairs {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, ok := k.cut(pair)
		if !ok || name == "" || value == "" {
			return nil, refuse(ReasonPair, "pair %d of the frame has no name or no value", i+1)
		}
		fields = append(fields, Field{name, number(value)})
	}
	return some(fields)
}

func (k keyValue) pairs(s string) []string {
	if k.separator == "" {
		return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t,;", r) })
	}
	return strings.Split(s, k.separator)
}

func (k keyValue) cut(pair string) (name, value string, ok bool) {
	if k.assign != "" {
		name, value, ok = strings.Cut(pair, k.assign)
	} else if i := strings.IndexAny(pair, "=:"); i >= 0 {
		name, value, ok = pair[:i], pair[i+1:], true
	}
	return strings.TrimSpace(name), strings.TrimSpace(value), ok
}

// pattern takes the named groups of the first match. A group that took no part
// in the match yields nothing, so that alternatives may share a name.
type pattern struct{ re *regexp.Regexp }

func (p pattern) Decode(frame []byte) ([]Field, error) {
	s, err := printable(frame)
	if err != nil {
		return nil, err
	}
	match := p.re.FindStringSubmatch(s)
	if match == nil {
		return nil, refuse(ReasonNoMatch, "the pattern is not in the frame")
	}
	var fields []Field
	for i, name := range p.re.SubexpNames() {
		if name != "" && match[i] != "" {
			fields = append(fields, Field{name, number(match[i])})
		}
	}
	return some(fields)
}

// some refuses a frame in which every value is left out.
func some(fields []Field) ([]Field, error) {
	if len(fields) == 0 {
		return nil, refuse(ReasonEmpty, "the frame has no value")
	}
	return fields, nil
}
