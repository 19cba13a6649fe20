package adapters

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"tidegate/mqtt"
)

var noon = time.Date(2026, 1, 2, 3, 4, 5, 678_912_345, time.FixedZone("far", 5*3600))

func mapping(t testing.TB, c Config) *Mapping {
	t.Helper()
	if c.Name == "" {
		c.Name = "weather"
	}
	c.SetDefaults()
	if p := c.Check(); len(p) > 0 {
		t.Fatalf("%+v: %v", c, p)
	}
	return NewMapping(&c)
}

func TestPayloads(t *testing.T) {
	fields := map[string]Field{
		"t":     {Unit: "°C", Scale: new(0.1), Min: new(-40.0), Max: new(85.0)},
		"open":  {},
		"exact": {Scale: new(1e-3)},
	}
	for name, c := range map[string]struct {
		reading     Reading
		json, value string
	}{
		"scaled without binary noise":        {Reading{Name: "t", Value: int64(214)}, `{"value":21.4,"unit":"°C","time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `21.4`},
		"the field's unit wins":              {Reading{Name: "t", Value: 3.0, Unit: "F"}, `{"value":0.3,"unit":"°C","time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `0.3`},
		"over the maximum":                   {Reading{Name: "t", Value: int64(851)}, `{"value":85.1,"unit":"°C","time":"2026-01-01T22:04:05.678Z","quality":"range"}`, `85.1`},
		"under the minimum":                  {Reading{Name: "t", Value: int64(-401)}, `{"value":-40.1,"unit":"°C","time":"2026-01-01T22:04:05.678Z","quality":"range"}`, `-40.1`},
		"at the limit":                       {Reading{Name: "t", Value: int64(850)}, `{"value":85,"unit":"°C","time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `85`},
		"the adapter's own judgement stays":  {Reading{Name: "t", Value: int64(900), Quality: QualityStale}, `{"value":90,"unit":"°C","time":"2026-01-01T22:04:05.678Z","quality":"stale"}`, `90`},
		"a bool, no unit":                    {Reading{Name: "open", Value: true}, `{"value":true,"time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `true`},
		"a text, no escapes for HTML":        {Reading{Name: "open", Value: `<a & "b">`}, `{"value":"<a & \"b\">","time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `<a & "b">`},
		"whole numbers keep all digits":      {Reading{Name: "other", Value: int64(9007199254740993)}, `{"value":9007199254740993,"time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `9007199254740993`},
		"floats in their shortest form":      {Reading{Name: "other", Value: 0.30000000000000004}, `{"value":0.30000000000000004,"time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `0.30000000000000004`},
		"large floats":                       {Reading{Name: "other", Value: 1e21}, `{"value":1e+21,"time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `1e+21`},
		"float32 is as short":                {Reading{Name: "other", Value: float32(21.4)}, `{"value":21.4,"time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `21.4`},
		"float32 is scaled as what it shows": {Reading{Name: "exact", Value: float32(21.4)}, `{"value":0.0214,"time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `0.0214`},
		"any integer type is scaled":         {Reading{Name: "exact", Value: uint16(65535)}, `{"value":65.535,"time":"2026-01-01T22:04:05.678Z","quality":"good"}`, `65.535`},
		"the adapter's unit, timed out":      {Reading{Name: "p", Value: 1013.25, Unit: "hPa", Quality: QualityTimeout}, `{"value":1013.25,"unit":"hPa","time":"2026-01-01T22:04:05.678Z","quality":"timeout"}`, `1013.25`},
		"checksum":                           {Reading{Name: "p", Value: int8(-1), Quality: QualityChecksum}, `{"value":-1,"time":"2026-01-01T22:04:05.678Z","quality":"checksum"}`, `-1`},
		"init":                               {Reading{Name: "p", Value: "", Quality: QualityInit}, `{"value":"","time":"2026-01-01T22:04:05.678Z","quality":"init"}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			c.reading.At = noon
			for format, want := range map[string]string{PayloadJSON: c.json, PayloadValue: c.value} {
				m, err := mapping(t, Config{Payload: format, Fields: fields}).Message(c.reading)
				if err != nil || string(m.Payload) != want {
					t.Errorf("%s: got %s, %v\nwant %s", format, m.Payload, err, want)
				}
				if m.QoS != mqtt.AtLeastOnce || m.Retain {
					t.Errorf("%s: %+v", format, m)
				}
			}
		})
	}
}

func TestAReadingWithoutTimeIsFromNow(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	m, err := mapping(t, Config{}).Message(Reading{Name: "t", Value: 1})
	var p struct{ Time time.Time }
	if err := errors.Join(err, json.Unmarshal(m.Payload, &p)); err != nil {
		t.Fatal(err)
	}
	if p.Time.Before(before) || p.Time.After(time.Now()) {
		t.Errorf("the time is %v, want between %v and now", p.Time, before)
	}
}

func TestRejected(t *testing.T) {
	fields := map[string]Field{"t": {Scale: new(2.0)}, "limited": {Max: new(1.0)}}
	for name, c := range map[string]struct {
		reading Reading
		reason  string
	}{
		"NaN":                          {Reading{Name: "x", Value: math.NaN()}, ReasonNotFinite},
		"infinite":                     {Reading{Name: "x", Value: math.Inf(-1)}, ReasonNotFinite},
		"infinite float32":             {Reading{Name: "x", Value: float32(math.Inf(1))}, ReasonNotFinite},
		"infinite by scaling":          {Reading{Name: "t", Value: math.MaxFloat64}, ReasonNotFinite},
		"a text that should be scaled": {Reading{Name: "t", Value: "ERR"}, ReasonNotNumeric},
		"a text that has a limit":      {Reading{Name: "limited", Value: "ERR"}, ReasonNotNumeric},
		"a bool that should be scaled": {Reading{Name: "t", Value: true}, ReasonNotNumeric},
		"nothing":                      {Reading{Name: "x"}, ReasonType},
		"something else":               {Reading{Name: "x", Value: []byte("x")}, ReasonType},
		"a name beyond any topic":      {Reading{Name: strings.Repeat("x", 70000), Value: 1}, ReasonTopic},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := mapping(t, Config{Fields: fields}).Message(c.reading)
			reject, ok := errors.AsType[*RejectError](err)
			if !ok || reject.Reason != c.reason || m.Topic != "" {
				t.Errorf("got %+v, %v; want reason %q", m, err, c.reason)
			}
		})
	}
}

func TestTopics(t *testing.T) {
	for _, c := range []struct{ template, field, want string }{
		{"", "temperature", "sensor/weather/temperature"},
		{"", "bme.raw t", "sensor/weather/bme.raw t"},
		{"", "a/b+c#d", "sensor/weather/a_b_c_d"},
		{"", "", "sensor/weather/_"},
		{"", "\x00\n\xff°", "sensor/weather/___°"},
		{"", "$price", "sensor/weather/_price"},
		{"", "{adapter}", "sensor/weather/{adapter}"},
		{"", "status", "sensor/weather/status_"},
		{"site/{adapter}/a/{field}/raw", "t", "site/weather/a/t/raw"},
		{"{field}/{field}", "t", "t/t"},
		{"{field}", "$SYS", "_SYS"},
		{"one/topic/for/all", "t", "one/topic/for/all"},
		{"other/{field}", "status", "other/status"},
	} {
		m, err := mapping(t, Config{Topic: c.template}).Message(Reading{Name: c.field, Value: 1})
		if err != nil || m.Topic != c.want {
			t.Errorf("%q with %q: got %q, %v; want %q", c.template, c.field, m.Topic, err, c.want)
		}
	}
}

// Whatever a device calls its fields, the topic is lawful and stays below the
// levels that the template fixes.
func FuzzTopic(f *testing.F) {
	for _, seed := range []string{"temperature", "", "a/../+#", "$SYS", "\xff\x00", "status", "\u2028"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		m, err := mapping(t, Config{}).Message(Reading{Name: field, Value: 1, At: noon})
		if err != nil {
			if len(field) < 60_000 {
				t.Errorf("%q: %v", field, err)
			}
			return
		}
		if strings.Count(m.Topic, "/") != 2 || !strings.HasPrefix(m.Topic, "sensor/weather/") || m.Topic == "sensor/weather/status" {
			t.Errorf("%q became %q", field, m.Topic)
		}
		if !json.Valid(m.Payload) {
			t.Errorf("%q is no JSON", m.Payload)
		}
	})
}

func TestScale(t *testing.T) {
	for _, c := range []struct{ v, by, want float64 }{
		{214, 0.1, 21.4},
		{3, 0.1, 0.3},
		{1.1, 1.1, 1.21},
		{4095, 0.000805, 3.296475},
		{-17, 0.01, -0.17},
		{21.4, 10, 214},
		{1e6, 1e-6, 1},
		{12345678.9, 0.001, 12345.6789},
		{1e300, 1e10, math.Inf(1)}, // overflows; refused later
		{0, 0.1, 0},
		{5e-324, 0.1, 0},
	} {
		if got := scale(c.v, c.by, decimals(c.by)); got != c.want {
			t.Errorf("%v × %v = %v, want %v", c.v, c.by, got, c.want)
		}
	}
}

// All values of a 12-bit converter come out as the decimals on paper.
func TestScaleOverAWholeConverter(t *testing.T) {
	for raw := range 4096 {
		want := fmt.Sprintf("%d.%02d", raw/100, raw%100)
		if got := scale(float64(raw), 0.01, 2); fmt.Sprintf("%.2f", got) != want || len(fmt.Sprint(got)) > len(want) {
			t.Fatalf("%d × 0.01 = %v, want %s", raw, got, want)
		}
	}
}

func TestDecimals(t *testing.T) {
	for v, want := range map[float64]int{0.25: 2, 1e6: 0, 0: 0, 123.456: 3, 1e-7: 7, 1.5e-7: 8, -0.5: 1, 1e21: 0, math.Inf(1): 0} {
		if got := decimals(v); got != want {
			t.Errorf("decimals(%v) = %d, want %d", v, got, want)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	m := mapping(b, Config{Fields: map[string]Field{"t": {Unit: "°C", Scale: new(0.1), Max: new(85.0)}}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Message(Reading{Name: "t", Value: int64(214), At: noon}); err != nil {
			b.Fatal(err)
		}
	}
}
