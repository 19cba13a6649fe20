package broker

import (
	"cmp"
	"encoding/binary"
	"slices"

	"tidegate/mqtt"
	"tidegate/store"
)

// shareTable is where the store keeps shares: queue number to version, place in
// the journal where the queue begins, and filter. Who the members are stands in
// their sessions.
const shareTable = "shares"

const (
	shareVersion = 1
	shareHead    = 9 // bytes before the filter
)

func (g *share) rowKey() []byte { return binary.BigEndian.AppendUint32(nil, g.s.queue) }

// row returns what shareTable keeps.
func (g *share) row() store.Row {
	v := binary.BigEndian.AppendUint64([]byte{shareVersion}, g.s.from)
	return store.Row{Table: shareTable, Key: g.rowKey(), Value: append(v, g.filter...)}
}

// restoreShares takes over the queues of shares, which have no members yet.
func (b *Broker) restoreShares() error {
	return b.commit.store.Rows(shareTable, func(key, row []byte) error {
		if err := b.restoreShare(key, row); err != nil {
			b.log.Error("skipped a shared subscription in the store that makes no sense", "key", key)
		}
		return nil
	})
}

func (b *Broker) restoreShare(key, row []byte) error {
	if len(key) != 4 || len(row) <= shareHead || row[0] != shareVersion || checkShare(string(row[shareHead:])) != nil {
		return errDamaged
	}
	g := b.emptyShare(string(row[shareHead:]))
	g.s.queue = queueOf(key)
	g.s.begin(binary.BigEndian.Uint64(row[1:]))
	b.commit.notBefore(g.s.from)
	b.nextQueue = max(b.nextQueue, g.s.queue)
	b.queues[g.s.queue] = g.s
	return nil
}

// queueOf is the reverse of rowKey.
func queueOf(key []byte) uint32 { return binary.BigEndian.Uint32(key) }

// restoreMembers gives the shares their members, once all sessions and queues are
// there. A share that has none has ended.
func (b *Broker) restoreMembers() {
	t := &turn{b: b}
	for _, s := range b.sessions {
		for filter, sub := range s.subs {
			if !isShared(filter) {
				continue
			}
			g := b.shares[filter]
			if g == nil {
				g = b.newShare(filter)
				b.commit.putTwice(g.row(), lazy, nil)
			}
			g.enter(s, sub)
		}
	}
	for _, g := range b.shares {
		if len(g.members) == 0 {
			b.disband(t, g)
		}
	}
}

// A note of a share is what the store keeps beside its position: version, how far
// behind the position messages were passed on, what is owed and given up (see
// appendHoldings), and those of them that are not
// done, each with its distance from the one before, the queue number of the
// session that has it, and its packet identifier there, or zeros.
const (
	shareNoteVersion = 4
	shareNoteUnsized = 2 // the version without what is owed and given up
)

// note returns it. What lies behind the position base and is neither here nor
// drawn needs nothing more. The caller holds s.mu.
func (g *share) note(base uint64, bytes int64) []byte {
	open := make([]*loan, 0, g.s.window.len()+len(g.again))
	for i := range g.s.window.len() {
		open = append(open, g.s.window.slots.at(i).loan)
	}
	for seq, l := range g.again {
		if seq > base {
			open = append(open, l)
		} else {
			delete(g.again, seq) // the disk has lost it
		}
	}
	slices.SortFunc(open, func(a, b *loan) int { return cmp.Compare(a.seq, b.seq) })
	note := binary.AppendUvarint([]byte{shareNoteVersion}, max(g.drawn, base)-base)
	note = appendHoldings(note, base, bytes, g.s.cuts)
	for _, l := range open {
		note = binary.AppendUvarint(note, l.seq-base)
		note = binary.AppendUvarint(note, uint64(l.queue))
		note = binary.AppendUvarint(note, uint64(l.id))
		base = l.seq
	}
	return note
}

// restoreNote is the reverse. Of a note that is damaged counts what comes before:
// what is not known to be with somebody is passed on again. sized reports whether
// bytes and cuts are known.
func (g *share) restoreNote(note []byte, base uint64) (bytes int64, c cuts, sized bool) {
	g.drawn = base
	if len(note) == 0 || note[0] != shareNoteVersion && note[0] != shareNoteUnsized {
		return 0, nil, false
	}
	r := varints{rest: note[1:]}
	drawn := base + r.next()
	if note[0] == shareNoteVersion {
		bytes, c = r.holdings(base)
		sized = !r.bad
	}
	for seq := base; len(r.rest) > 0 && !r.bad; {
		seq += r.next()
		l := &loan{from: g, seq: seq, queue: uint32(r.next()), id: uint16(r.next())}
		if !r.bad {
			g.again[seq] = l
		}
	}
	if !r.bad {
		g.drawn = drawn
	}
	return bytes, c, sized
}

// wantedIDs returns the identifiers of the subscriptions that match the topic, of
// the shared ones or of the others.
func (s *session) wantedIDs(topic string, shared bool) (ids []uint32) {
	for filter, sub := range s.subs {
		if sub.ID != 0 && isShared(filter) == shared && mqtt.Match(unshared(filter), topic) {
			ids = append(ids, sub.ID)
		}
	}
	return ids
}
