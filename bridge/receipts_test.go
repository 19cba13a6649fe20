package bridge

import "testing"

// Identifiers come around, pass over those in use, and leave the lowest to paho.
func TestIdentifiersOfReceipts(t *testing.T) {
	rs := newReceipts(firstID)
	kept := newPromise()
	if id := rs.add(kept); id != firstID {
		t.Fatalf("the first identifier is %d, want %d", id, firstID)
	}
	seen := make(map[uint16]bool)
	for range 3 * 65536 {
		r := newPromise()
		id := rs.add(r)
		if id <= firstID {
			t.Fatalf("%d is given out", id)
		}
		seen[id] = true
		rs.finish(id)
		<-r.Done()
	}
	if want := 65535 - firstID; len(seen) != want {
		t.Errorf("%d identifiers are in use, want %d", len(seen), want)
	}
	rs.finish(7) // of nothing that was published
	rs.finish(firstID)
	<-kept.Done()
}
