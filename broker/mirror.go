package broker

import (
	"bytes"
	"hash/maphash"
	"maps"
	"slices"

	"tidegate/store"
)

// The rows of sessions and shares are kept a second time, as marks beside the
// messages, where their queues are: so when state.db is lost, they get what the
// journal holds for them. A mark is written when its row has changed.

// mirrorKey is the key of the mark: the table's name and the row's key, with a zero
// byte between them, so it is longer than that of a receipt.
func mirrorKey(row *store.Row) []byte {
	return slices.Concat([]byte(row.Table), []byte{0}, row.Key)
}

// parseMirror is the reverse.
func parseMirror(key []byte) (table string, rest []byte, ok bool) {
	for _, table := range []string{sessionTable, shareTable} {
		if rest, ok := bytes.CutPrefix(key, []byte(table+"\x00")); ok {
			return table, rest, true
		}
	}
	return "", nil, false
}

// putTwice is put for a row that has a mirror.
func (c *committer) putTwice(row store.Row, due int64, then func(*turn, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows.put(row)
	c.weigh()
	c.reflect(&row)
	c.alsoBy(due, then)
}

// reflect has the mirror of the row written if it is another one. The caller holds
// mu.
func (c *committer) reflect(row *store.Row) {
	key := mirrorKey(row)
	sum, known := c.mirror[string(key)]
	switch {
	case row.Value == nil:
		delete(c.mirror, string(key))
	case known && sum == maphash.Bytes(c.seed, row.Value):
		return
	default:
		c.mirror[string(key)] = maphash.Bytes(c.seed, row.Value)
	}
	c.marks.put(store.Row{Key: key, Value: row.Value})
}

// restoreMirror takes over the sessions and shares that state.db has lost, if it has
// lost any, and has the others reflected as they are.
func (b *Broker) restoreMirror(lost bool) error {
	restored := 0
	err := b.commit.store.Marks(func(key, value []byte) error {
		table, rest, ok := parseMirror(key)
		if !ok {
			return nil
		}
		b.commit.mirror[string(key)] = maphash.Bytes(b.seed, value)
		if b.hasRow(table, rest) {
			return nil
		}
		if lost && b.restoreRow(table, rest, value) == nil {
			restored++
			b.commit.put(store.Row{Table: table, Key: bytes.Clone(rest), Value: bytes.Clone(value)}, lazy, nil)
			return nil
		}
		delete(b.commit.mirror, string(key))
		b.commit.mark(bytes.Clone(key), nil, lazy, nil)
		return nil
	})
	if restored > 0 {
		b.log.Warn("sessions that state.db has lost are back, with what the journal holds for them", "sessions", restored)
	}
	b.reflectAll()
	return err
}

// hasRow reports whether the row of that key is restored.
func (b *Broker) hasRow(table string, key []byte) bool {
	if table == sessionTable {
		return b.sessions[string(key)] != nil
	}
	return len(key) == 4 && b.queues[queueOf(key)] != nil
}

// restoreRow restores it.
func (b *Broker) restoreRow(table string, key, value []byte) error {
	if table == sessionTable {
		return b.restoreSession(string(key), value)
	}
	return b.restoreShare(key, value)
}

// reflectAll has every row that has no mirror, or another one, reflected.
func (b *Broker) reflectAll() {
	for _, id := range slices.Sorted(maps.Keys(b.queues)) {
		row := b.queues[id].stateRow()
		b.commit.mu.Lock()
		b.commit.reflect(&row)
		if len(b.commit.marks.list) > 0 {
			b.commit.alsoBy(lazy, nil)
		}
		b.commit.mu.Unlock()
	}
}

// stateRow returns the row that state.db has of a session or share.
func (s *session) stateRow() store.Row {
	if s.share != nil {
		return s.share.row()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.row()
}
