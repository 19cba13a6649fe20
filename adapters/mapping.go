package adapters

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"tidegate/internal/clock"
	"tidegate/mqtt"
)

// The reasons for which a reading becomes no message; Status counts them.
const (
	ReasonNotFinite  = "not_finite"  // NaN or infinite, which JSON cannot say
	ReasonNotNumeric = "not_numeric" // a text where the field has a scale or limits
	ReasonType       = "type"        // neither number, text nor bool
	ReasonTopic      = "topic"       // the topic is not lawful, or too long
	ReasonTooLarge   = "too_large"   // the broker's limit
)

// RejectError says why a reading becomes no message.
type RejectError struct {
	Reason string // one of the Reason words
	Text   string
}

func (e *RejectError) Error() string { return e.Text }

// Mapping makes messages of the readings of one adapter.
type Mapping struct {
	status  string   // the topic of the adapter's status
	topic   []string // the template, cut at each {field}
	payload string
	fields  map[string]scaled
	clock   *clock.Clock // nil: the system's time is taken as it is
}

// scaled is a Field whose scale is ready for use.
type scaled struct {
	Field
	decimals int // of the scale
}

// NewMapping makes the mapping of c, which must have passed its Check.
func NewMapping(c *Config) *Mapping {
	m := &Mapping{
		status:  "sensor/" + c.Name + "/status",
		topic:   strings.Split(c.Topic, "{field}"),
		payload: c.Payload,
		fields:  make(map[string]scaled, len(c.Fields)),
	}
	for i, part := range m.topic {
		m.topic[i] = strings.ReplaceAll(part, "{adapter}", c.Name)
	}
	for name, f := range c.Fields {
		s := scaled{Field: f}
		if f.Scale != nil {
			s.decimals = decimals(*f.Scale)
		}
		m.fields[name] = s
	}
	return m
}

// Message makes the message of r, QoS 1, not retained. Its error is a
// [*RejectError].
func (m *Mapping) Message(r Reading) (mqtt.Message, error) {
	f := m.fields[r.Name]
	if err := f.apply(&r); err != nil {
		return mqtt.Message{}, err
	}
	payload, err := m.encode(r)
	if err != nil {
		return mqtt.Message{}, &RejectError{ReasonType, fmt.Sprintf("field %q: %v", r.Name, err)}
	}
	msg := mqtt.Message{Topic: m.topicOf(r.Name), Payload: payload, QoS: mqtt.AtLeastOnce}
	if err := msg.Validate(); err != nil {
		return mqtt.Message{}, &RejectError{ReasonTopic, fmt.Sprintf("field %q: %v", r.Name, err)}
	}
	return msg, nil
}

// Status makes the retained message that says whether the device is there.
func (m *Mapping) Status(s State) mqtt.Message {
	return mqtt.Message{
		Topic:   m.status,
		Payload: []byte(s),
		QoS:     mqtt.AtLeastOnce,
		Retain:  true,
	}
}

// topicOf fills the template. A field that is called as the adapter's status is
// moves aside, or its readings would look like the device coming and going.
func (m *Mapping) topicOf(field string) string {
	topic := strings.Join(m.topic, level(field))
	if topic == m.status {
		topic += "_"
	}
	return topic
}

// level makes s fit to be one level of a topic name: each character that is not
// lawful there becomes _. So does a $ in front, since a topic that starts with
// one is the broker's.
func level(s string) string {
	if s == "" {
		return "_"
	}
	clean := strings.Map(func(r rune) rune {
		if r == '/' || r == '+' || r == '#' || r == unicode.ReplacementChar || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, s)
	if clean[0] == '$' {
		clean = "_" + clean[1:]
	}
	return clean
}

// apply scales and judges the value of r and gives it the field's unit.
func (f *scaled) apply(r *Reading) error {
	if r.At.IsZero() {
		r.At = time.Now()
	}
	if f.Unit != "" {
		r.Unit = f.Unit
	}
	number, ok := toFloat(r.Value)
	if !ok {
		return f.applyOther(r)
	}
	if f.Scale != nil {
		number = scale(number, *f.Scale, f.decimals)
		r.Value = number
	}
	if math.IsNaN(number) || math.IsInf(number, 0) {
		return &RejectError{ReasonNotFinite, fmt.Sprintf("field %q: %v is no finite number", r.Name, number)}
	}
	if f.outside(number) && r.Quality == QualityGood {
		r.Quality = QualityRange
	}
	return nil
}

// applyOther lets a text or a bool pass where no number is expected.
func (f *scaled) applyOther(r *Reading) error {
	switch r.Value.(type) {
	case string, bool:
	default:
		return &RejectError{ReasonType, fmt.Sprintf("field %q: a %T is neither number, text nor bool", r.Name, r.Value)}
	}
	if f.Scale != nil || f.Min != nil || f.Max != nil {
		return &RejectError{ReasonNotNumeric, fmt.Sprintf("field %q has a scale or limits, but its value is no number", r.Name)}
	}
	return nil
}

func (f *scaled) outside(v float64) bool {
	return f.Min != nil && v < *f.Min || f.Max != nil && v > *f.Max
}
