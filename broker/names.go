package broker

import "hash/maphash"

// names gives out topics as strings that are made once: a queue has the same topics
// over and over. It keeps one for each value of a short hash.
type names struct {
	seed maphash.Seed
	kept [256]string // of at most longestName bytes each
}

const longestName = 128

func newNames() *names { return &names{seed: maphash.MakeSeed()} }

func (n *names) of(topic []byte) string {
	if len(topic) > longestName {
		return string(topic)
	}
	kept := &n.kept[maphash.Bytes(n.seed, topic)%uint64(len(n.kept))]
	if *kept != string(topic) {
		*kept = string(topic)
	}
	return *kept
}
