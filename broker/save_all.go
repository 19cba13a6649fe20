package broker

import "tidegate/store"

// saveAll writes all rows of state.db and their mirror again from memory, and the
// ledger, because the disk has lost some of them. The locks stand over each group of them so that no row which is
// removed meanwhile comes back.
func (b *Broker) saveAll(t *turn) {
	b.commit.mu.Lock()
	clear(b.commit.mirror)
	b.commit.mu.Unlock()
	b.losses.settleRows()
	b.mu.Lock()
	for _, s := range b.sessions {
		if s.durable() {
			s.save(t.now+lazy, nil)
		}
		if s.will != nil {
			b.commit.put(s.willRow(), t.now+lazy, nil)
		}
	}
	for _, g := range b.shares {
		b.commit.putTwice(g.row(), t.now+lazy, nil)
	}
	b.mu.Unlock()
	b.retained.mu.Lock()
	for topic, m := range b.retained.list {
		value := m.body.appendStored([]byte{retainedVersion, byte(m.qos)}, t.now, b.line())
		b.commit.put(store.Row{Table: retainedTable, Key: []byte(topic), Value: value}, t.now+lazy, nil)
	}
	b.retained.mu.Unlock()
}

// settleRows has the next commit write all rows.
func (l *lossLedger) settleRows() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.rows {
		l.settle(k)
	}
}
