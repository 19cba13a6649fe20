package mqtt

import (
	"strings"
	"testing"
)

// naive matches as MQTT 5.0, section 4.7, says it, level by level.
func naive(filter, name []string) bool {
	switch {
	case len(filter) == 0:
		return len(name) == 0
	case filter[0] == "#": // also what is above it
		return true
	case len(name) == 0:
		return false
	}
	return (filter[0] == "+" || filter[0] == name[0]) && naive(filter[1:], name[1:])
}

// Match agrees with a matcher that is too plain to be wrong. The broker's trie is
// held to Match by a fuzz target of its own.
func FuzzMatch(f *testing.F) {
	for _, c := range [][2]string{
		{"a/b", "a/b"}, {"a/+/c", "a//c"}, {"#", "a"}, {"a/#", "a"}, {"+", "/"}, {"/+", "/"}, {"$SYS/#", "$SYS/a"}, {"+/a", "$SYS/a"}, {"a/+/#", "a"},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, filter, name string) {
		if ValidFilter(filter) != nil || ValidName(name) != nil {
			return
		}
		levels := strings.Split(filter, "/")
		hidden := name[0] == '$' && (levels[0] == "+" || levels[0] == "#") // [MQTT-4.7.2-1]
		if got, want := Match(filter, name), !hidden && naive(levels, strings.Split(name, "/")); got != want {
			t.Errorf("%q matches %q: %v, want %v", filter, name, got, want)
		}
	})
}
