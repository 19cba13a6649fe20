package broker

import "tidegate/store"

// rows are rows of the store that wait to be written. A row that changes again
// before it was takes its own place, so that they are no more than there are
// keys.
type rows struct {
	list []store.Row
	at   map[string]int // by table and key
	size int            // what they take in memory, in bytes
}

func (r *rows) put(row store.Row) {
	key := row.Table + "\x00" + string(row.Key)
	r.size += sizeOfRow(row)
	if i, had := r.at[key]; had {
		r.size -= sizeOfRow(r.list[i])
		r.list[i] = row
		return
	}
	if r.at == nil {
		r.at = make(map[string]int)
	}
	r.at[key] = len(r.list)
	r.list = append(r.list, row)
}

func sizeOfRow(row store.Row) int { return 128 + 2*len(row.Key) + len(row.Value) }

// take empties r and returns what was in it.
func (r *rows) take() []store.Row {
	list := r.list
	*r = rows{}
	return list
}

// takeDeletions returns those that delete something, and leaves the others.
func (r *rows) takeDeletions() (list []store.Row) {
	for _, row := range r.take() {
		if row.Value == nil {
			list = append(list, row)
		} else {
			r.put(row)
		}
	}
	return list
}

// putBack returns what take had returned and could not be written. Rows that
// have changed since are newer.
func (r *rows) putBack(list []store.Row) {
	newer := r.take()
	for _, row := range list {
		r.put(row)
	}
	for _, row := range newer {
		r.put(row)
	}
}

// enoughRows of state.db, of which somebody waits for one, are a group: another
// moment would save few bytes for each, and a publisher may have nothing more to send
// before it is told of them.
const enoughRows = 64

// put notes a row of state.db to be written by due. then, if not nil, is called
// when it is on disk.
func (c *committer) put(row store.Row, due int64, then func(*turn, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows.put(row)
	c.weigh()
	if then != nil && len(c.rows.list) >= enoughRows {
		due = min(due, c.now())
	}
	c.alsoBy(due, then)
}
