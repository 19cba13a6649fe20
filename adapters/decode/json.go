package decode

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
)

// object reads a JSON object: {"a":{"b":1},"c":[2,3]} is a.b=1, c.0=2, c.1=3.
// A null is a value that is missing, as are empty objects and arrays.
type object struct{}

// maxName bounds a dotted name in bytes. Names repeat what is around them, so
// that without a bound they could outgrow the frame a thousand times.
const maxName = 256

func (object) Decode(frame []byte) ([]Field, error) {
	if _, err := printable(frame); err != nil {
		return nil, err
	}
	var members map[string]any
	d := json.NewDecoder(bytes.NewReader(frame))
	d.UseNumber()
	if err := d.Decode(&members); err != nil {
		return nil, refuse(ReasonJSON, "the frame is no JSON object: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, refuse(ReasonJSON, "the frame has something behind its JSON object")
	}
	f := flattener{}
	if !f.add("", members) {
		return nil, refuse(ReasonJSON, "a name in the frame is longer than %d bytes", maxName)
	}
	return some(f.fields)
}

// flattener collects the values in nested objects and arrays.
type flattener struct{ fields []Field }

// add collects the values that value holds under name. It reports false, and
// stops, at a name that is too long.
func (f *flattener) add(name string, value any) bool {
	if len(name) > maxName {
		return false
	}
	switch v := value.(type) {
	case nil:
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if !f.add(dotted(name, key), v[key]) {
				return false
			}
		}
	case []any:
		for i, element := range v {
			if !f.add(dotted(name, strconv.Itoa(i)), element) {
				return false
			}
		}
	case json.Number:
		f.fields = append(f.fields, Field{name, number(v.String())})
	default: // string or bool
		f.fields = append(f.fields, Field{name, v})
	}
	return true
}

func dotted(name, key string) string {
	if name == "" {
		return key
	}
	return name + "." + key
}
