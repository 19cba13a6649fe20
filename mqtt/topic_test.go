package mqtt

import (
	"errors"
	"strings"
	"testing"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a":                          true,
		"/":                          true,
		"sensor/weather/temp":        true,
		"$SYS/broker/uptime":         true,
		"with space/ü":               true,
		strings.Repeat("x", 65535):   true,
		"":                           false,
		"a/+/b":                      false,
		"a/#":                        false,
		"a\x00b":                     false,
		"a\xff":                      false,
		strings.Repeat("x", 65536):   false,
		"surrogate \xed\xa0\x80 off": false,
	} {
		err := ValidName(name)
		if (err == nil) != want {
			t.Errorf("ValidName(%.20q) = %v, want valid %v", name, err, want)
		}
		if err != nil && !errors.Is(err, ErrInvalidTopic) {
			t.Errorf("ValidName(%.20q): %v does not wrap ErrInvalidTopic", name, err)
		}
	}
}

func TestValidFilter(t *testing.T) {
	for filter, want := range map[string]bool{
		"#":        true,
		"+":        true,
		"/":        true,
		"a/+/b":    true,
		"a/#":      true,
		"+/+/#":    true,
		"a/b":      true,
		"":         false,
		"a#":       false,
		"a/#/b":    false,
		"#/":       false,
		"a+/b":     false,
		"a/b+":     false,
		"a\x00":    false,
		"\xc0\xaf": false,
	} {
		if err := ValidFilter(filter); (err == nil) != want {
			t.Errorf("ValidFilter(%q) = %v, want valid %v", filter, err, want)
		}
	}
}

// The cases of MQTT 3.1.1, section 4.7, and their neighbours.
func TestMatch(t *testing.T) {
	cases := []struct {
		filter, name string
		want         bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"#", "sport/tennis", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/uptime", false},
		{"+/uptime", "$SYS/uptime", false},
		{"$SYS/#", "$SYS/uptime", true},
		{"$SYS/+", "$SYS/uptime", true},
		{"a/b", "a/b", true},
		{"a/b", "a/b/c", false},
		{"a/b/c", "a/b", false},
		{"a/+/c", "a//c", true},
		{"a/$x/#", "a/$x/y", true},
		{"a", "A", false},
	}
	for _, c := range cases {
		if got := Match(c.filter, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %v, want %v", c.filter, c.name, got, c.want)
		}
	}
}
