package broker

import (
	"crypto/sha256"
	"fmt"
	"hash"
)

// diary is all that happens in a game of the shadow model: what is done and what
// comes of it. The same seed does the same; what comes of it is the same as well, and
// with it the sum that is printed, as far as TestShadowRepeats says.
type diary struct {
	hash.Hash
	last []string // lines, the newest last
}

// linesShown is how many lines of the diary a failure shows.
const linesShown = 60

func newDiary() *diary { return &diary{Hash: sha256.New()} }

func (d *diary) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintln(d, line)
	if d.last = append(d.last, line); len(d.last) > 2*linesShown {
		d.last = append(d.last[:0], d.last[linesShown:]...)
	}
}

func (d *diary) sum() string { return fmt.Sprintf("%.8x", d.Sum(nil)) }
