package adapters

import (
	"bytes"
	"encoding/json"
	"time"

	"tidegate/internal/clock"
)

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// payload is the JSON form of a reading; the order of the keys is part of the
// contract.
type payload struct {
	Value any    `json:"value"`
	Unit  string `json:"unit,omitempty"`
	Time  string `json:"time"`

	// TimeQuality is "unsynced" while nobody has said that the clock is right.
	// Time is then one of the clock's line, which bridges correct if they can.
	TimeQuality clock.Quality `json:"time_quality,omitempty"`

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
	at, quality := m.stamp(r.At)
	return marshal(payload{r.Value, r.Unit, at.UTC().Format(timeFormat), quality, r.Quality.String()})
}

// stamp returns the time of a reading as it is shown: as far as the clock is known
// to be right, the real one.
func (m *Mapping) stamp(at time.Time) (time.Time, clock.Quality) {
	if m.clock == nil {
		return at, ""
	}
	line := m.clock.Now().Add(-time.Since(at))
	if real, quality, _ := m.clock.Real(line); quality != clock.Unsynced {
		return real, ""
	}
	return line, clock.Unsynced
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
