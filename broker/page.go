package broker

import (
	"bytes"
	"sync"
)

// page is what is read from the journal at a time for one session. The list is used
// again for the next one; bodies lie in pieces of memory that some of them share.
type page struct {
	items []item
	bytes int    // of them, as they count in memory
	data  int    // of them, as the store has them
	most  int    // bytes it has
	piece []byte // has room for the next body, perhaps
}

// pieceSize bounds what a message can hold in memory beside itself: who keeps one of a
// piece keeps the piece, which may have messages of several sessions. So a window of 100 of which each message is the last of its
// piece costs 400 KiB, but they are acknowledged mostly in order. What would fill a
// quarter of a piece has memory of its own.
const pieceSize = 4 << 10

// mostItems is how long a list may be that is kept for the next page.
const mostItems = 2048

var pages = sync.Pool{New: func() any { return new(page) }}

func newPage(most int) *page {
	p := pages.Get().(*page)
	p.most = most
	return p
}

// free gives p back. The bodies of its items stay, and the next page goes on in the last piece.
func (p *page) free() {
	clear(p.items)
	if cap(p.items) > mostItems {
		p.items = nil
	}
	*p = page{items: p.items[:0], piece: p.piece}
	pages.Put(p)
}

// add takes over the message, whose body is a view of so many bytes that the store has,
// and reports whether there is room for more.
func (p *page) add(it *item, stored int) (more bool) {
	it.body.buf = p.keep(it.body.buf)
	p.items = append(p.items, *it)
	p.bytes += it.size()
	p.data += stored
	return p.bytes < p.most
}

// keep returns a copy of b. Pieces grow with the page, so that a short one wastes
// little.
func (p *page) keep(b []byte) []byte {
	if len(b) > pieceSize/4 {
		return bytes.Clone(b)
	}
	if cap(p.piece)-len(p.piece) < len(b) {
		p.piece = make([]byte, 0, max(len(b), min(p.data, pieceSize)))
	}
	start := len(p.piece)
	p.piece = append(p.piece, b...)
	return p.piece[start:len(p.piece):len(p.piece)]
}

// wants returns how many bytes of what the store has fill the rest of the page, if it
// is like what came before. An item is some bytes more than that.
func (p *page) wants() int {
	if p.bytes == 0 {
		return p.most / 2
	}
	return 1 + int(int64(p.most-p.bytes)*int64(p.data)/int64(p.bytes))
}
