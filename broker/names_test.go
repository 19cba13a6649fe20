package broker

import (
	"fmt"
	"strings"
	"testing"
)

func TestNamesAreMadeOnce(t *testing.T) {
	n := newNames()
	topic := []byte("site/a/sensor/1")
	if got := testing.AllocsPerRun(100, func() { n.of(topic) }); got > 0 {
		t.Errorf("%v allocations for a topic that came before", got)
	}
	for i := range 10 * len(n.kept) { // more than it keeps
		for _, want := range []string{fmt.Sprint("a/", i), fmt.Sprint(i, strings.Repeat("x", longestName))} {
			if got := n.of([]byte(want)); got != want {
				t.Fatalf("%q is given out as %q", want, got)
			}
		}
	}
	for _, kept := range n.kept {
		if len(kept) > longestName {
			t.Errorf("a topic of %d bytes is kept", len(kept))
		}
	}
}
