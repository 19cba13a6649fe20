package conformance

import (
	"testing"
	"testing/synctest"
)

// TestConformance holds the scripts against the broker, and the document against
// what they have shown.
func TestConformance(t *testing.T) {
	all, ledger := known(t), newLedger(t)
	for _, s := range scripts(t) {
		for _, v := range s.runs {
			t.Run(s.name+" in "+string(v), func(t *testing.T) {
				defer func() { ledger.note(s, v, !t.Failed()) }()
				synctest.Test(t, func(t *testing.T) { play(t, s, v, all) })
			})
		}
	}
	ledger.compare(t)
}
