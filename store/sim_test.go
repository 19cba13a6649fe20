package store

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var simSeed = flag.Uint64("seed", 0, "of the random operations; 0 takes the time")

// model is what a store should hold.
type model struct {
	rng     *rand.Rand
	last    uint64
	records map[uint64]Record
	queues  map[uint32]Queue
	marks   map[string]string
	rows    map[string]string
}

func newModel(seed uint64) *model {
	return &model{
		rng: rand.New(rand.NewPCG(seed, 0)), records: make(map[uint64]Record),
		queues: make(map[uint32]Queue), marks: make(map[string]string), rows: make(map[string]string),
	}
}

// slow is a queue that is owed little and stays far behind, so that segments in
// the middle are mostly dead.
const slow = 7

// Random batches against a map, with reads between and the store opened anew.
func TestRandomOperationsMatchTheModel(t *testing.T) {
	seed := cmp.Or(*simSeed, uint64(time.Now().UnixNano()))
	t.Logf("go test -run %s -seed %d", t.Name(), seed)
	m := newModel(seed)
	dir, o := t.TempDir(), Options{SegmentSize: small}
	s := openTest(t, dir, o)
	removed := uint64(0)
	for ops := 0; ops < 20_000; {
		n, b := m.batch()
		ops += n
		commit(t, s, b)
		switch m.rng.IntN(40) {
		case 0:
			removed += s.Stats().SegmentsRemoved
			closeTest(t, s)
			s = openTest(t, dir, o)
			m.checkRows(t, s)
		case 1, 2, 3, 4:
			m.checkRead(t, s)
		case 5:
			if _, err := s.Compact(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			return
		}
	}
	m.checkRows(t, s)
	if removed += s.Stats().SegmentsRemoved; removed < 10 {
		t.Errorf("only %d segments were removed", removed)
	}
}

// batch makes up a batch, applies it to the model, and returns how many things
// it changes.
func (m *model) batch() (n int, b *Batch) {
	b = new(Batch)
	changed := make(map[uint32]Queue)
	if m.rng.IntN(3) == 0 {
		return m.positions(b, changed)
	}
	for range m.rng.IntN(20) {
		m.append(b, changed)
	}
	for range m.rng.IntN(3) {
		m.ack(changed)
	}
	if m.rng.IntN(30) == 0 {
		id := uint32(m.rng.IntN(8))
		changed[id] = Queue{ID: id, Gone: true}
	}
	m.take(b, changed)
	b.Marks = m.change(m.marks, "")
	b.Rows = m.change(m.rows, "table")
	return len(b.Records) + len(b.Queues) + len(b.Marks) + len(b.Rows), b
}

// positions makes up a batch of nothing else.
func (m *model) positions(b *Batch, changed map[uint32]Queue) (n int, _ *Batch) {
	for range 1 + m.rng.IntN(3) {
		m.ack(changed)
	}
	m.take(b, changed)
	return len(b.Queues), b
}

// take applies changed.
func (m *model) take(b *Batch, changed map[uint32]Queue) {
	b.Queues = slices.Collect(maps.Values(changed))
	for _, q := range b.Queues {
		if delete(m.queues, q.ID); !q.Gone {
			m.queues[q.ID] = q
		}
	}
}

// append owes a new record to some queues.
func (m *model) append(b *Batch, changed map[uint32]Queue) {
	m.last += 1 + uint64(m.rng.IntN(3))
	r := Record{Seq: m.last, Data: make([]byte, m.rng.IntN(600))}
	if m.rng.IntN(100) == 0 {
		r.Data = make([]byte, m.rng.IntN(20_000))
	}
	for i := range r.Data {
		r.Data[i] = byte(m.rng.Uint32())
	}
	for id := range uint32(8) {
		if m.rng.IntN(3) > 0 || id == slow && m.rng.IntN(10) > 0 {
			continue
		}
		r.Owners = append(r.Owners, Owner{id, m.rng.Uint32()})
		q := m.queue(id, changed)
		q.Pending++
		changed[id] = q
	}
	m.records[r.Seq] = r
	b.Records = append(b.Records, r)
}

// queue returns the queue as the batch has it so far. A new one starts here.
func (m *model) queue(id uint32, changed map[uint32]Queue) Queue {
	if q, ok := changed[id]; ok {
		return q
	}
	if q, ok := m.queues[id]; ok {
		return q
	}
	return Queue{ID: id, Acked: max(m.last, 1) - 1}
}

// ack moves a queue forward.
func (m *model) ack(changed map[uint32]Queue) {
	q := m.queue(uint32(m.rng.IntN(8)), changed)
	if q.ID == slow && m.rng.IntN(10) > 0 {
		return
	}
	if q.Acked < m.last {
		far := []uint64{m.last - q.Acked, min(m.last-q.Acked, 3)}[m.rng.IntN(2)]
		q.Acked += 1 + m.rng.Uint64N(far)
	}
	q.Pending = uint64(len(m.owed(q.ID, q.Acked, m.last)))
	q.Note = fmt.Appendf(nil, "note %0*d", m.rng.IntN(500), m.rng.Uint32()) // some are longer than a sector with what is beside them
	changed[q.ID] = q
}

// change puts and deletes some entries of kv and returns them as rows.
func (m *model) change(kv map[string]string, table string) (rows []Row) {
	for range m.rng.IntN(4) {
		key := fmt.Sprintf("key %d", m.rng.IntN(50))
		if m.rng.IntN(2) == 0 {
			delete(kv, key)
			rows = append(rows, Row{Table: table, Key: []byte(key)})
			continue
		}
		kv[key] = fmt.Sprintf("value %d", m.rng.Uint64())
		rows = append(rows, Row{Table: table, Key: []byte(key), Value: []byte(kv[key])})
	}
	return rows
}

// owed returns what queue should read.
func (m *model) owed(queue uint32, after, upTo uint64) (all []got) {
	for seq := after + 1; seq <= upTo; seq++ {
		r, ok := m.records[seq]
		if i := slices.IndexFunc(r.Owners, func(o Owner) bool { return o.Queue == queue }); ok && i >= 0 {
			all = append(all, got{seq, r.Owners[i].Tag, string(r.Data)})
		}
	}
	return all
}

func (m *model) checkRead(t *testing.T, s *Store) {
	t.Helper()
	id := uint32(m.rng.IntN(8))
	q, ok := m.queues[id]
	if !ok {
		return
	}
	after := q.Acked + m.rng.Uint64N(m.last-q.Acked+1)
	upTo := after + m.rng.Uint64N(m.last-after+1)
	if want, have := m.owed(id, after, upTo), readAll(t, s, id, after, upTo); !slices.Equal(want, have) {
		t.Errorf("queue %d behind %d up to %d: %d records, want %d", id, after, upTo, len(have), len(want))
	}
}

func (m *model) checkRows(t *testing.T, s *Store) {
	t.Helper()
	if err := errors.Join(m.compareJournal(s), m.compareMarks(s), m.compareRows(s)); err != nil {
		t.Error(err)
	}
}

// compareRows compares state.db.
func (m *model) compareRows(s *Store) error {
	rows := make(map[string]string)
	if err := s.Rows("table", into(rows)); err != nil || !maps.Equal(rows, m.rows) {
		return fmt.Errorf("%d rows, want %d (%v)", len(rows), len(m.rows), err)
	}
	return nil
}

func (m *model) compareMarks(s *Store) error {
	marks := make(map[string]string)
	if err := s.Marks(into(marks)); err != nil || !maps.Equal(marks, m.marks) {
		return fmt.Errorf("%d marks, want %d (%v)", len(marks), len(m.marks), err)
	}
	return nil
}

// compareJournal compares the last record and the queues.
func (m *model) compareJournal(s *Store) error {
	if s.LastSeq() != m.last {
		return fmt.Errorf("last record is %d, want %d", s.LastSeq(), m.last)
	}
	queues := s.Queues()
	if len(queues) != len(m.queues) {
		return fmt.Errorf("%d queues, want %d", len(queues), len(m.queues))
	}
	for _, q := range queues {
		if w := m.queues[q.ID]; q.Acked != w.Acked || q.Pending != w.Pending || !bytes.Equal(q.Note, w.Note) {
			return fmt.Errorf("queue %+v, want %+v", q, w)
		}
	}
	return nil
}

// into collects rows.
func into(kv map[string]string) func(k, v []byte) error {
	return func(k, v []byte) error { kv[string(k)] = string(v); return nil }
}
