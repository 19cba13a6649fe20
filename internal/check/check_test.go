package check

import (
	"slices"
	"testing"
)

func TestUnderJoinsPaths(t *testing.T) {
	var inner Problems
	inner.Add("servers[0]", "%q is no address", "x")
	inner.Add("", "is empty")
	inner.Add("[1]", "is missing")
	var outer Problems
	outer.Under("bridges[2]", inner)
	outer.Under("", inner[:1])
	want := Problems{
		{"bridges[2].servers[0]", `"x" is no address`},
		{"bridges[2]", "is empty"},
		{"bridges[2][1]", "is missing"},
		{"servers[0]", `"x" is no address`},
	}
	if !slices.Equal(outer, want) {
		t.Errorf("got %q, want %q", outer, want)
	}
}
