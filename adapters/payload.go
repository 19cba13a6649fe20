package adapters

import (
	"bytes"
	"encoding/json"
)

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// payload is the JSON form of a reading; the order of the keys is part of the
// contract.
type payload struct {
	Value   any    `json:"value"`
	Unit    string `json:"unit,omitempty"`
	Time    string `json:"time"`
	Quality string `json:"quality"`
}

// encode writes the payload of r.
func (m *Mapping) encode(r Reading) ([]byte, error) {
	if m.payload == PayloadValue {
		if text, ok := r.Value.(string); ok {
			return []byte(text), nil
		}
		return marshal(r.Value)
	}
	return marshal(payload{r.Value, r.Unit, r.At.UTC().Format(timeFormat), r.Quality.String()})
}

// marshal is json.Marshal without the escapes for HTML. Floats come out in the
// shortest form that reads back as the same number.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
