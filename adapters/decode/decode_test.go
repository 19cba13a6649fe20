package decode

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func decoder(t testing.TB, c Config) Decoder {
	t.Helper()
	c.SetDefaults()
	if p := c.Check(); len(p) > 0 {
		t.Fatalf("%+v: %v", c, p)
	}
	d, err := c.New()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var (
	anyText   = Config{}
	twoFields = Config{Kind: KindCSV, Fields: []string{"t", "h"}}
	blankCSV  = Config{Kind: KindCSV, Fields: []string{"t", "h"}, Separator: " "}
	anyPairs  = Config{Kind: KindKeyValue}
	strict    = Config{Kind: KindKeyValue, Separator: ",", Assign: " is "}
	anyObject = Config{Kind: KindJSON}
	tempRegex = Config{Kind: KindRegex, Pattern: `T=(?P<t>[-.\d]+)C(?: H=(?P<h>\d+))?`}
)

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		frame  string
		want   []Field
	}{
		"text: a decimal":                    {anyText, " 21.4\t", []Field{{"value", 21.4}}},
		"text: a whole number":               {Config{Field: "count"}, "42", []Field{{"count", int64(42)}}},
		"text: a sign":                       {anyText, "+007", []Field{{"value", int64(7)}}},
		"text: an exponent":                  {anyText, "-1.5e3", []Field{{"value", -1500.0}}},
		"text: words":                        {anyText, "door open", []Field{{"value", "door open"}}},
		"text: a unit makes it a text":       {anyText, "21.4 °C", []Field{{"value", "21.4 °C"}}},
		"text: hexadecimal is a text":        {anyText, "0x1p4", []Field{{"value", "0x1p4"}}},
		"text: beyond int64":                 {anyText, "18446744073709551616", []Field{{"value", 18446744073709551616.0}}},
		"text: beyond float64 is infinite":   {anyText, "1e999", []Field{{"value", math.Inf(1)}}},
		"text: a failing sensor's infinity":  {anyText, "-inf", []Field{{"value", math.Inf(-1)}}},
		"csv: numbers":                       {twoFields, "21.4,40", []Field{{"t", 21.4}, {"h", int64(40)}}},
		"csv: blanks around":                 {twoFields, " 21.4 , 40 ", []Field{{"t", 21.4}, {"h", int64(40)}}},
		"csv: an empty column is missing":    {twoFields, ",40", []Field{{"h", int64(40)}}},
		"csv: a text":                        {twoFields, "ERR,40", []Field{{"t", "ERR"}, {"h", int64(40)}}},
		"csv: quotes are characters":         {twoFields, `"a",1`, []Field{{"t", `"a"`}, {"h", int64(1)}}},
		"csv: a column left out":             {Config{Kind: KindCSV, Fields: []string{"-", "h"}, Separator: ";"}, "$WX;40", []Field{{"h", int64(40)}}},
		"csv: runs of blanks":                {blankCSV, "21.4 \t 40", []Field{{"t", 21.4}, {"h", int64(40)}}},
		"keyvalue: equals and blanks":        {anyPairs, "t=21.4 h=40", []Field{{"t", 21.4}, {"h", int64(40)}}},
		"keyvalue: colons and commas":        {anyPairs, "t:21,h:40,", []Field{{"t", int64(21)}, {"h", int64(40)}}},
		"keyvalue: semicolons and blanks":    {anyPairs, "t=21; h=40;", []Field{{"t", int64(21)}, {"h", int64(40)}}},
		"keyvalue: the first one cuts":       {anyPairs, "at=12:30", []Field{{"at", "12:30"}}},
		"keyvalue: configured separators":    {strict, "t is 21.4, wind speed is 3", []Field{{"t", 21.4}, {"wind speed", int64(3)}}},
		"json: flat, in order of the names":  {anyObject, `{"t":21.4,"h":40,"ok":true,"s":"x"}`, []Field{{"h", int64(40)}, {"ok", true}, {"s", "x"}, {"t", 21.4}}},
		"json: nested":                       {anyObject, `{"bme":{"t":1,"raw":{"x":2}},"a":[3,{"b":4}]}`, []Field{{"a.0", int64(3)}, {"a.1.b", int64(4)}, {"bme.raw.x", int64(2)}, {"bme.t", int64(1)}}},
		"json: null is missing":              {anyObject, `{"t":null,"h":40,"e":{}}`, []Field{{"h", int64(40)}}},
		"json: a number in quotes is a text": {anyObject, `{"t":"21.4"}`, []Field{{"t", "21.4"}}},
		"json: digits are kept":              {anyObject, `{"id":9007199254740993}`, []Field{{"id", int64(9007199254740993)}}},
		"regex: all groups":                  {tempRegex, "## T=-3.5C H=80 ##", []Field{{"t", -3.5}, {"h", int64(80)}}},
		"regex: a name in both alternatives": {Config{Kind: KindRegex, Pattern: `T=(?P<t>\d+)|(?P<t>\d+)C`}, "21C", []Field{{"t", int64(21)}}},
		"regex: a group that did not match":  {tempRegex, "T=21C", []Field{{"t", int64(21)}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decoder(t, c.config).Decode([]byte(c.frame))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q: got %#v, %v; want %#v", c.frame, got, err, c.want)
			}
		})
	}
}

func TestNaNIsANumber(t *testing.T) {
	got, err := decoder(t, anyText).Decode([]byte("nan"))
	if f, ok := got[0].Value.(float64); err != nil || !ok || !math.IsNaN(f) {
		t.Errorf("got %#v, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		config        Config
		frame, reason string
	}{
		"text: blank":                       {anyText, " \t", ReasonEmpty},
		"text: not UTF-8":                   {anyText, "21\xb0C", ReasonNotText},
		"text: a control character":         {anyText, "21\x00", ReasonNotText},
		"text: delete":                      {anyText, "21\x7f", ReasonNotText},
		"csv: too few":                      {twoFields, "21.4", ReasonColumns},
		"csv: too many":                     {twoFields, "21.4,40,1", ReasonColumns},
		"csv: all empty":                    {twoFields, ",", ReasonEmpty},
		"csv: noise":                        {twoFields, "\xff\xfe,\x01", ReasonNotText},
		"keyvalue: no name":                 {anyPairs, "=1", ReasonPair},
		"keyvalue: no value":                {anyPairs, "t= h=40", ReasonPair},
		"keyvalue: no pair":                 {anyPairs, "hello", ReasonPair},
		"keyvalue: only separators":         {anyPairs, ",;,", ReasonEmpty},
		"json: cut off":                     {anyObject, `{"t":21`, ReasonJSON},
		"json: a lone number":               {anyObject, `21.4`, ReasonJSON},
		"json: an array":                    {anyObject, `[1]`, ReasonJSON},
		"json: two objects":                 {anyObject, `{"t":1}{"t":2}`, ReasonJSON},
		"json: a bracket behind":            {anyObject, `{"t":1}]`, ReasonJSON},
		"json: nothing in it":               {anyObject, `{}`, ReasonEmpty},
		"json: null":                        {anyObject, `null`, ReasonEmpty},
		"json: deep beyond reason":          {anyObject, `{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, ReasonJSON},
		"json: deeper than the parser goes": {anyObject, `{"a":` + strings.Repeat("[", 20000), ReasonJSON},
		"json: a long name":                 {anyObject, `{"` + strings.Repeat("n", 300) + `":1}`, ReasonJSON},
		"regex: no match":                   {tempRegex, "U=1", ReasonNoMatch},
		"regex: only empty groups":          {Config{Kind: KindRegex, Pattern: `(?P<a>x?)`}, "y", ReasonEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			fields, err := decoder(t, c.config).Decode([]byte(c.frame))
			var refused *Error
			if !errors.As(err, &refused) || refused.Reason != c.reason || fields != nil {
				t.Errorf("got %v, %v; want reason %q", fields, err, c.reason)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		paths  []string
	}{
		"unknown kind":                {Config{Kind: "xml", Fields: []string{"a"}}, []string{"kind"}},
		"csv without columns":         {Config{Kind: KindCSV}, []string{"fields"}},
		"csv with twins":              {Config{Kind: KindCSV, Fields: []string{"a", "-", "a", "-", ""}}, []string{"fields[2]", "fields[4]"}},
		"csv without a wanted column": {Config{Kind: KindCSV, Fields: []string{"-", "-"}}, []string{"fields"}},
		"a broken pattern":            {Config{Kind: KindRegex, Pattern: "("}, []string{"pattern"}},
		"a pattern without groups":    {Config{Kind: KindRegex, Pattern: `(\d+)`}, []string{"pattern"}},
		"no pattern":                  {Config{Kind: KindRegex}, []string{"pattern"}},
		"keys of other kinds":         {Config{Kind: KindJSON, Field: "a", Fields: []string{"b"}, Separator: ",", Assign: "=", Pattern: "x"}, []string{"field", "fields", "separator", "assign", "pattern"}},
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

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"21.4,40", "t=21.4 h=40", "t:21,h:40", `{"a":{"b":[1,null,"x",true]}}`, "T=-3.5C H=80", "nan", "1e999", "\xff\x00", " , ", "=", `{"":{"":1}}`,
	} {
		f.Add([]byte(seed))
	}
	var all []Decoder
	for _, c := range []Config{anyText, twoFields, blankCSV, anyPairs, strict, anyObject, tempRegex} {
		all = append(all, decoder(f, c))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := string(frame)
		for _, d := range all {
			fields, err := d.Decode(frame)
			var refused *Error
			switch {
			case err != nil && (!errors.As(err, &refused) || refused.Reason == "" || fields != nil):
				t.Errorf("%T: %v, %#v", d, fields, err)
			case err == nil && len(fields) == 0:
				t.Errorf("%T: neither fields nor error", d)
			}
			for _, field := range fields {
				switch field.Value.(type) {
				case float64, int64, string, bool:
				default:
					t.Errorf("%T: field %q is a %T", d, field.Name, field.Value)
				}
			}
		}
		if string(frame) != before {
			t.Error("the frame was written to")
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for name, c := range map[string]struct {
		config Config
		frame  string
	}{
		"csv":      {twoFields, "21.4,40"},
		"keyvalue": {anyPairs, "t=21.4 h=40"},
		"json":     {anyObject, `{"t":21.4,"h":40}`},
		"regex":    {tempRegex, "T=21.4C H=40"},
	} {
		b.Run(name, func(b *testing.B) {
			d, frame := decoder(b, c.config), []byte(c.frame)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Decode(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
