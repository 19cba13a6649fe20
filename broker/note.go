package broker

import (
	"encoding/binary"
	"slices"
)

// A note is what the store keeps for a session beside its position: version,
// last packet identifier, how far behind the position messages were sent, what
// is owed and given up (see appendHoldings), and the ranges there that the
// consumer has already acknowledged or, at QoS 2, released.
const (
	noteVersion = 5
	notePlaces  = 3 // the version with places instead of ranges
	noteUnsized = 1 // ... and without what is owed and given up
)

type note struct {
	lastID uint16
	sent   uint64 // place in the journal; at most base: none
	sized  bool   // bytes and cuts are known
	bytes  int64  // owed on disk
	cuts   cuts
	beyond []acked
}

// append appends n as the store keeps it beside the position base.
func (n *note) append(dst []byte, base uint64) []byte {
	dst = append(dst, noteVersion, byte(n.lastID>>8), byte(n.lastID))
	dst = binary.AppendUvarint(dst, max(n.sent, base)-base)
	dst = appendHoldings(dst, base, n.bytes, n.cuts)
	for _, a := range n.beyond {
		v := (a.seq - base) << 1
		if a.released {
			v |= 1
		}
		dst = binary.AppendUvarint(dst, v)
		dst = binary.AppendUvarint(dst, a.seq-a.from)
	}
	return dst
}

// parseNote is the reverse. A note that is damaged yields what is lawful up to
// there: at worst a message is sent once more.
func parseNote(b []byte, base uint64) (n note) {
	if len(b) < 3 || b[0] != noteVersion && b[0] != notePlaces && b[0] != noteUnsized {
		return n
	}
	n.lastID = binary.BigEndian.Uint16(b[1:])
	r := varints{rest: b[3:]}
	n.sent = base + r.next()
	if b[0] != noteUnsized {
		n.bytes, n.cuts = r.holdings(base)
		n.sized = !r.bad
	}
	for len(r.rest) > 0 {
		v, span := r.next(), uint64(1)
		if b[0] == noteVersion {
			span = r.next()
		}
		if a := (acked{base + v>>1 - min(span, v>>1), base + v>>1, v&1 != 0}); !r.bad {
			n.beyond = append(n.beyond, a)
		}
	}
	return n
}

// appendHoldings appends what a session is owed on disk, in bytes, and the cuts
// behind the position base: how many there are, and of each its length, level and
// bytes.
func appendHoldings(dst []byte, base uint64, bytes int64, c cuts) []byte {
	c = c.behind(base)
	dst = binary.AppendUvarint(dst, uint64(bytes))
	dst = binary.AppendUvarint(dst, uint64(len(c)))
	for _, r := range c {
		dst = binary.AppendUvarint(dst, r.upTo-base)
		dst = append(dst, r.level)
		dst = binary.AppendUvarint(dst, uint64(r.bytes))
		base = r.upTo
	}
	return dst
}

// varints reads unsigned varints until one is damaged.
type varints struct {
	rest []byte
	bad  bool
}

func (r *varints) next() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// holdings reads what appendHoldings has written.
func (r *varints) holdings(base uint64) (bytes int64, c cuts) {
	bytes = int64(r.next())
	for n := r.next(); n > 0 && !r.bad; n-- {
		base += r.next()
		level := uint8(min(r.next(), uint64(nothing)))
		if piece := (cut{base, level, int64(r.next())}); !r.bad {
			c = append(c, piece)
		}
	}
	return bytes, c
}

// acked is what the consumer has acknowledged behind a session's position: one
// message, or all of a range of the journal. Of one that is released it is known
// only that it was answered with PUBREC.
type acked struct {
	from     uint64 // not in it
	seq      uint64 // the last in it
	released bool
}

// has reports whether the message at seq is acknowledged because of a.
func (a *acked) has(seq uint64) bool { return !a.released && a.from < seq && seq <= a.seq }

// inAny reports whether the message at seq is acknowledged because of one of list.
func inAny(list []acked, seq uint64) bool {
	return slices.ContainsFunc(list, func(a acked) bool { return a.has(seq) })
}
