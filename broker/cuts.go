package broker

import (
	"maps"
	"slices"
	"sort"

	"tidegate/store"
)

// cuts say which part of what stands in the journal for a session was given up
// because of its bounds: nothing, or all but every so manieth message of a topic.
// So what is given up costs one entry, however much it is. Consecutive ranges go up
// to upTo each; behind the last everything is owed.
type cuts []cut

// cut is one range. Of level k every message is owed whose ordinal is a multiple
// of 2^k.
type cut struct {
	upTo  uint64
	level uint8
	bytes int64 // of what is owed in it, about
}

const (
	everything uint8 = 0
	thinnest   uint8 = 11            // as many bits as the ordinal has
	nothing    uint8 = thinnest + 1  // of the range is owed
	ordinals         = 1 << thinnest // ordinals start again behind so many
)

// at returns the range that seq is in, len(c) behind the last.
func (c cuts) at(seq uint64) int {
	return sort.Search(len(c), func(i int) bool { return seq <= c[i].upTo })
}

// keep reports whether the message at seq with that ordinal is still owed.
func (c cuts) keep(seq uint64, ordinal uint16) bool {
	i := c.at(seq)
	return i == len(c) || c[i].keeps(ordinal)
}

func (r *cut) keeps(ordinal uint16) bool {
	return r.level < nothing && ordinal&(1<<r.level-1) == 0
}

// settle notes that a message of so many bytes is owed no more. It changes c.
func (c cuts) settle(seq uint64, bytes int64) {
	if i := c.at(seq); i < len(c) {
		c[i].bytes = max(0, c[i].bytes-bytes)
	}
}

// behind returns what still matters when nothing is owed up to seq.
func (c cuts) behind(seq uint64) cuts { return c[c.at(seq+1):] }

// raise returns the cuts with at least level between from and to. Of what was
// owed there, before bytes, after bytes are left.
func (c cuts) raise(from, to uint64, level uint8, before, after int64) cuts {
	var next cuts
	start := uint64(0)
	for _, r := range append(slices.Clone(c), cut{upTo: 1<<64 - 1}) {
		if r.upTo <= from {
			next, start = next.add(start, r), r.upTo
			continue
		}
		next = next.add(start, cut{min(r.upTo, from), r.level, 0})
		next = next.add(max(start, from), cut{min(r.upTo, to), max(r.level, level), after})
		if min(r.upTo, to) > max(start, from) {
			r.bytes, before, after = max(0, r.bytes-before), max(0, before-r.bytes), 0
		}
		next = next.add(max(start, to), r)
		start = r.upTo
	}
	return next[:len(next)-1]
}

// add appends the range from start on, unless it is empty.
func (c cuts) add(start uint64, r cut) cuts {
	if r.upTo <= start {
		return c
	}
	if last := len(c) - 1; last >= 0 && c[last].level == r.level {
		c[last].upTo = r.upTo
		c[last].bytes += r.bytes
		return c
	}
	return append(c, r)
}

// share returns how much is owed from first to last, if messages lie evenly.
func (c cuts) share(first, last uint64) (share float64) {
	rest := last - first + 1
	for _, r := range c[c.at(first):] {
		if n := min(r.upTo, last) + 1 - first; r.level < nothing {
			share += float64(n) / float64(int(1)<<r.level)
		}
		if r.upTo >= last {
			return share / float64(rest)
		}
		first = r.upTo + 1
	}
	return (share + float64(last-first+1)) / float64(rest)
}

// stillOwed is what queues have not given up, as the store knows it.
type stillOwed map[uint32]cuts

// StillOwed returns what the queues still need of the journal, for [store.Store.Run].
func (b *Broker) StillOwed() store.Owed {
	b.mu.Lock()
	queues := maps.Clone(b.queues)
	b.mu.Unlock()
	all := make(stillOwed)
	for id, s := range queues {
		s.mu.Lock()
		if len(s.cut) > 0 {
			all[id] = slices.Clone(s.cut)
		}
		s.mu.Unlock()
	}
	return all
}

func (o stillOwed) Keep(seq uint64, to store.Owner, _ []byte) bool {
	return o[to.Queue].keep(seq, itemFromTag(to.Tag).ordinal)
}

func (o stillOwed) Share(queue uint32, first, last uint64) float64 {
	return o[queue].share(first, last)
}
