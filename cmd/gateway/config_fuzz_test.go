package main

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// decodeText is [Load] of one file without reading any other.
func decodeText(text []byte) (*Config, Errors) {
	c, l := new(Config), newLoader()
	l.decode("c.yaml", text, reflect.ValueOf(c).Elem())
	if !l.broken {
		l.complete(c)
	}
	return c, l.errs.sorted(l.files)
}

// Whatever the bytes are, the loader neither panics nor says anything that is
// not one line with a place; and what it accepts, it writes so that it reads
// back as the same.
func FuzzLoader(f *testing.F) {
	for _, m := range mistakes {
		f.Add([]byte(m.yaml))
	}
	for _, name := range configFilesInRepo(f) {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, errs := decodeText(text)
		for _, e := range errs {
			if e.Line < 1 || e.Col < 1 || e.Text == "" || strings.Contains(e.Error(), "\n") {
				t.Errorf("%q is no line with a place", e.Error())
			}
		}
		if errs != nil || strings.Contains(string(text), "password") {
			return // secrets do not read back
		}
		written, err := yaml.MarshalWithOptions(effective(c), yaml.IndentSequence(true))
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", c, err)
		}
		again, errs := decodeText(written)
		if errs != nil {
			t.Fatalf("%v in what was written:\n%s", errs, written)
		}
		if !reflect.DeepEqual(c, again) {
			t.Errorf("read back as\n%+v\nnot\n%+v\nfrom\n%s", again, c, written)
		}
	})
}
