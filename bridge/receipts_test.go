package bridge

import (
	"slices"
	"testing"
)

// told keeps what an owner learns.
type told struct {
	list  []error
	rests int
}

func (o *told) acknowledged(err error) { o.list = append(o.list, err) }
func (o *told) rest()                  { o.rests++ }

// Identifiers come around, pass over those in use, and leave the lowest to the client.
func TestIdentifiersOfReceipts(t *testing.T) {
	rs, kept := newReceipts(), &told{}
	if id := rs.add(kept); id != firstID {
		t.Fatalf("the first identifier is %d, want %d", id, firstID)
	}
	seen, o := make(map[uint16]bool), &told{}
	for range 3 * 65536 {
		id := rs.add(o)
		if id <= firstID {
			t.Fatalf("%d is given out", id)
		}
		seen[id] = true
		rs.accepted(id)
	}
	if want := 65535 - firstID; len(seen) != want || len(o.list) != 3*65536 {
		t.Errorf("%d identifiers are in use and %d messages acknowledged, want %d and %d", len(seen), len(o.list), want, 3*65536)
	}
	rs.accepted(7) // nothing was published with it
	if len(kept.list) > 0 {
		t.Error("a message is acknowledged that is not")
	}
}

// An owner learns once what became of its message, and one of several that there is no
// more at hand.
func TestReceiptsTellOnce(t *testing.T) {
	rs, a, b, refused := newReceipts(), &told{}, &told{}, &refusal{said: "no"}
	first, second := rs.add(a), rs.add(b)
	rs.rest()
	rs.answered(second, refused)
	rs.accepted(first)
	rs.accepted(first)
	rs.rest()
	rs.rest()
	if !slices.Equal(a.list, []error{nil}) || !slices.Equal(b.list, []error{refused}) || a.rests+b.rests != 1 {
		t.Errorf("the owners learn %+v and %+v", a, b)
	}
}
