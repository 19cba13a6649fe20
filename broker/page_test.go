package broker

import (
	"bytes"
	"testing"
	"unsafe"
)

// Bodies share memory, a little of it, and nothing that is done to one shows in another.
func TestBodiesOfAPageShareLittle(t *testing.T) {
	p := newPage(1 << 20)
	var want [][]byte
	for i := range 3000 {
		b := bytes.Repeat([]byte{byte(i)}, 2+i%1500)
		want = append(want, b)
		view := bytes.Clone(b)
		it := item{body: body{buf: view, props: len(view)}}
		if more := p.add(&it, len(b)); more != (p.bytes < 1<<20) {
			t.Fatalf("with %d bytes there is room for more: %v", p.bytes, more)
		}
		clear(view) // the store uses it again
		if cap(p.piece) > pieceSize {
			t.Fatalf("a piece has %d bytes", cap(p.piece))
		}
	}
	for i, it := range p.items {
		if got := it.body.buf; !bytes.Equal(got, want[i]) || cap(got) > len(got) && len(got) <= pieceSize/4 {
			t.Fatalf("body %d has %d bytes, room for %d", i, len(got), cap(got))
		}
	}
	kept := p.items[0].body.buf
	list := p.items[:1:1]
	p.free()
	if list[0].body.buf != nil || !bytes.Equal(kept, want[0]) {
		t.Error("a page that is given back holds a body, or has changed one")
	}
}

// The first body of a page is alone, so that a short page costs no more than it holds.
func TestAShortPageTakesNoPieces(t *testing.T) {
	p := newPage(1 << 10)
	defer p.free()
	taken := 0
	for n := range 8 {
		b := make([]byte, 100)
		before := unsafe.SliceData(p.piece)
		p.add(&item{body: body{buf: b, props: len(b)}}, len(b))
		if unsafe.SliceData(p.piece) != before {
			taken += cap(p.piece)
		}
		if most := 2 * 100 * (n + 1); taken > most {
			t.Errorf("%d bodies of 100 bytes take %d", n+1, taken)
		}
	}
}

// A message that is read takes no allocation of its own.
func TestAPageTakesFewAllocations(t *testing.T) {
	const n, size = 500, 150
	p := &page{items: make([]item, 0, n)}
	view := make([]byte, size)
	got := testing.AllocsPerRun(10, func() {
		*p = page{items: p.items[:0], most: 1 << 20}
		for range n {
			p.add(&item{body: body{buf: view, props: size}}, size)
		}
	})
	if most := float64(n*size/pieceSize + n*size/pieceSize/10 + 8); got > most {
		t.Errorf("%v allocations for %d messages, want at most %v", got, n, most)
	}
}
