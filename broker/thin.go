package broker

import (
	"hash/maphash"

	"tidegate/mqtt"
)

// A queue with overflow: thin makes room by keeping every second message of each
// topic in a part of it, again and again, so that a long outage leaves a complete
// curve that is coarser where it is older. The messages of a topic are numbered
// when they are owed; see cuts for what a level is.

// maxOrdinals bounds the topics whose messages are numbered, for each queue.
const maxOrdinals = 1024

// ordinalCost is what one of them costs in memory.
const ordinalCost = 32

// nextOrdinal numbers a message of the topic. Topics for which there is no room
// get numbers at random: of level k one of 2^k is kept on average. The caller
// holds mu.
func (s *session) nextOrdinal(topic []byte, seq uint64) uint16 {
	if s.bounds.Overflow != mqtt.Thin {
		return 0
	}
	key := maphash.Bytes(s.b.seed, topic)
	n, known := s.ordinals[key]
	if !known && len(s.ordinals) >= maxOrdinals {
		return uint16(maphash.Comparable(s.b.seed, seq) % ordinals)
	}
	if s.ordinals == nil {
		s.ordinals = make(map[uint64]uint16)
	}
	s.ordinals[key] = (n + 1) % ordinals
	return n
}

// heaviest returns the part of the queue that is to be thinned next, behind from:
// the oldest of the level that has the most bytes. So levels come to hold equally
// much, and how coarse a part is grows with its age.
func (s *session) heaviest(from uint64) (start uint64, part cut) {
	var of [nothing + 1]int64
	list := s.withRest()
	for _, r := range list {
		of[r.level] += r.bytes
	}
	start = from
	for i, r := range list {
		if r.upTo <= from || r.level >= nothing {
			continue
		}
		if part.upTo == 0 || of[r.level] > of[part.level] {
			part, start = r, from
			if i > 0 {
				start = max(from, list[i-1].upTo)
			}
		}
	}
	part.bytes = of[part.level]
	return start, part
}

// withRest returns the cuts with what is behind the last.
func (s *session) withRest() cuts {
	rest := cut{upTo: 1<<64 - 1, bytes: s.bytes}
	for _, r := range s.cuts {
		rest.bytes = max(0, rest.bytes-r.bytes)
	}
	return append(s.cuts[:len(s.cuts):len(s.cuts)], rest)
}

// nothingBehind notes that nothing is owed behind the last cut, although what is known
// of their bytes, which are about right only, leaves some for it. It reports whether
// that is news. The caller holds mu.
func (s *session) nothingBehind() bool {
	last, rest := len(s.cuts)-1, s.withRest()[len(s.cuts)].bytes
	if last < 0 || rest == 0 {
		return false
	}
	s.cuts[last].bytes += rest
	return true
}

// thin makes a pass thin the heaviest part, until so much is gained, at most half
// of it. It returns false if that is as thin as it may be.
func (p *pass) thin(much amount) bool {
	start, part := p.s.heaviest(p.from)
	if part.level >= thinnest {
		return false
	}
	p.from, p.at, p.level = start, start, part.level+1
	half := cut{level: p.level}
	p.judge = func(it *item) fateOf {
		switch {
		case it.seq > part.upTo:
			p.at = part.upTo // also if nothing was left of it
			return enough
		case p.lost.n >= much.n && p.lost.bytes >= much.bytes, p.looked > part.bytes/2:
			return enough
		case half.keeps(it.ordinal):
			return stays
		}
		return lostThinned
	}
	return true
}
