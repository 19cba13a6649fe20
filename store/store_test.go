package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/units"
)

// openTest opens the store in dir. In the end it is closed and verified.
func openTest(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Verify(); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("open store: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		verifyExact(t, dir)
	})
	return s
}

// verifyExact verifies the closed store in dir and that no queue is owed more
// than it says, which holds here because no test acknowledges out of order.
func verifyExact(t testing.TB, dir string) {
	t.Helper()
	v, err := inspectDir(dir)
	if err != nil {
		t.Error(err)
		return
	}
	if err := v.report.Err(); err != nil {
		t.Error(err)
	}
	for id, q := range v.queues {
		if v.owed[id] > q.Pending {
			t.Errorf("queue %d is owed %d records behind %d, says %d", id, v.owed[id], q.Acked, q.Pending)
		}
	}
}

func closeTest(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func commit(t testing.TB, s *Store, b *Batch) {
	t.Helper()
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
}

// got is one record as Read hands it out.
type got struct {
	seq  uint64
	tag  uint32
	data string
}

func readAll(t testing.TB, s *Store, queue uint32, after, upTo uint64) (all []got) {
	t.Helper()
	err := s.Read(queue, after, upTo, func(seq uint64, tag uint32, data []byte) bool {
		all = append(all, got{seq, tag, string(data)})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func segmentsOf(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, journalDir, "*"+segSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

const small = 64 * units.KiB

func TestRecordsAreReadBackByTheirOwners(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	commit(t, s, &Batch{
		Records: []Record{
			{Seq: 3, Owners: []Owner{{1, 11}, {2, 21}}, Data: []byte("both")},
			{Seq: 7, Owners: []Owner{{2, 22}}, Data: []byte("two only")},
			{Seq: 8, Owners: nil, Data: []byte("nobody's")},
			{Seq: 1 << 40, Owners: []Owner{{1, 12}}, Data: nil},
		},
		Queues: []Queue{{ID: 1, Acked: 2, Pending: 2, Note: []byte("note")}, {ID: 2, Pending: 2}},
	})
	check := func(t *testing.T, s *Store) {
		one := []got{{3, 11, "both"}, {1 << 40, 12, ""}}
		two := []got{{3, 21, "both"}, {7, 22, "two only"}}
		for _, c := range []struct {
			queue       uint32
			after, upTo uint64
			want        []got
		}{
			{1, 0, 1 << 50, one},
			{1, 3, 1 << 50, one[1:]},
			{1, 0, 3, one[:1]},
			{1, 3, 7, nil},
			{2, 0, 1 << 50, two},
			{2, 3, 7, two[1:]},
			{2, 7, 3, nil},
			{3, 0, 1 << 50, nil},
		} {
			if have := readAll(t, s, c.queue, c.after, c.upTo); !slices.Equal(have, c.want) {
				t.Errorf("queue %d behind %d up to %d: %v, want %v", c.queue, c.after, c.upTo, have, c.want)
			}
		}
		if q := s.Queues(); len(q) != 2 || q[0].Acked != 2 || q[0].Pending != 2 || string(q[0].Note) != "note" {
			t.Errorf("queues %+v", q)
		}
		if last := s.LastSeq(); last != 1<<40 {
			t.Errorf("last record is %d", last)
		}
	}
	t.Run("before closing", func(t *testing.T) { check(t, s) })
	closeTest(t, s)
	t.Run("after opening", func(t *testing.T) { check(t, openTest(t, dir, Options{})) })
}

func TestReadStopsWhenToldTo(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	commit(t, s, batchOf(0, 10))
	n := 0
	if err := s.Read(1, 0, 10, func(uint64, uint32, []byte) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("fn was called %d times, %v", n, err)
	}
}

// What fn is given was copied, so fn may use the store, even write to it.
func TestReadMayCommitInside(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: small})
	commit(t, s, batchOf(0, 2000))
	err := s.Read(1, 0, 2000, func(seq uint64, _ uint32, _ []byte) bool {
		commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: seq, Pending: 2000 - seq}}})
		return seq < 200
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLargeRecordsAndManyOwners(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB, many segments' worth
	var owners []Owner
	for i := range uint32(3000) {
		owners = append(owners, Owner{i, i * 7})
	}
	b := &Batch{}
	for i := range uint64(5) {
		b.Records = append(b.Records, Record{Seq: i + 1, Owners: owners, Data: big})
	}
	for i := range uint32(3000) {
		b.Queues = append(b.Queues, Queue{ID: i, Pending: 5})
	}
	commit(t, s, b)
	closeTest(t, s)
	s = openTest(t, dir, Options{SegmentSize: small})
	all := readAll(t, s, 2999, 0, 5)
	if len(all) != 5 || all[4].tag != 2999*7 || all[4].data != string(big) {
		t.Errorf("%d records read back", len(all))
	}
}

// The life of a backlog: it grows over many segments, is read while it does, and
// goes away file by file as it is acknowledged.
func TestSegmentsComeAndGo(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	const n = 6000
	for s.LastSeq() < n {
		commit(t, s, batchOf(s.LastSeq(), 20))
	}
	full := s.Stats().Segments
	if full < 10 || full != len(segmentsOf(t, dir)) {
		t.Fatalf("%d segments, %d files", full, len(segmentsOf(t, dir)))
	}
	if have := readAll(t, s, 1, 0, n); len(have) != n {
		t.Fatalf("%d records of %d", len(have), n)
	}
	for acked := uint64(1000); acked <= n; acked += 1000 {
		commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: acked, Pending: n - acked}}})
		have := readAll(t, s, 1, acked, n)
		if uint64(len(have)) != n-acked || s.Stats().FirstSeq > acked+1 {
			t.Errorf("acknowledged up to %d: %d records left, first segment starts at %d", acked, len(have), s.Stats().FirstSeq)
		}
	}
	if st := s.Stats(); st.Segments != 1 || len(segmentsOf(t, dir)) != 1 || st.SegmentsRemoved != uint64(full-1) {
		t.Errorf("%d segments left of %d, %d removed", st.Segments, full, st.SegmentsRemoved)
	}
	closeTest(t, s)
	if s = openTest(t, dir, Options{SegmentSize: small}); s.LastSeq() != n {
		t.Errorf("last record is %d after all were removed, want %d", s.LastSeq(), n)
	}
}

// A queue that is owed one old record keeps its segment and all behind it, until
// it is gone.
func TestSlowQueuePinsSegments(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	commit(t, s, &Batch{Records: []Record{{Seq: 1, Owners: []Owner{{9, 0}}, Data: []byte("x")}}, Queues: []Queue{{ID: 9, Pending: 1}, {ID: 8}}})
	for s.LastSeq() < 1000 {
		commit(t, s, batchOf(s.LastSeq(), 20))
	}
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: s.LastSeq()}}})
	if st := s.Stats(); st.FirstSeq != 1 {
		t.Fatalf("the first segment starts at %d though queue 9 is owed record 1", st.FirstSeq)
	}
	if have := readAll(t, s, 9, 0, 1000); len(have) != 1 {
		t.Errorf("queue 9 reads %v", have)
	}
	commit(t, s, &Batch{Queues: []Queue{{ID: 9, Gone: true}}})
	if st := s.Stats(); st.Segments != 1 || st.Queues != 2 {
		t.Errorf("%d segments and %d queues left", st.Segments, st.Queues)
	}
}

// Sealed segments that hold nothing for a queue are skipped by their summary.
func TestSummarySparesReading(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	for s.LastSeq() < 3000 {
		commit(t, s, batchOf(s.LastSeq(), 20))
	}
	last := s.LastSeq() + 1
	commit(t, s, &Batch{Records: []Record{{Seq: last, Owners: []Owner{{2, 0}}, Data: []byte("needle")}}, Queues: []Queue{{ID: 2, Pending: 1}}})
	closeTest(t, s)
	s = openTest(t, dir, Options{SegmentSize: small})
	if have := readAll(t, s, 2, 0, last); len(have) != 1 || have[0].data != "needle" {
		t.Fatalf("read %v", have)
	}
	for _, g := range s.segments[:len(s.segments)-1] {
		if _, ok := g.spans[2]; g.spans == nil || ok {
			t.Fatalf("segment %d: what it holds is %v", g.first, g.spans)
		}
		if g.handle != nil && len(g.handle.sound) > 0 {
			t.Errorf("segment %d: its records were looked at", g.first)
		}
	}
}

func TestFewSegmentsAreOpen(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: small})
	for s.LastSeq() < 3000 {
		commit(t, s, batchOf(s.LastSeq(), 20))
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			n := 0
			err := s.Read(1, 0, 3000, func(uint64, uint32, []byte) bool {
				n++
				if n%100 == 0 {
					s.pool.mu.Lock()
					if len(s.pool.open) > maxOpen && !t.Failed() {
						t.Errorf("%d segments are open", len(s.pool.open))
					}
					s.pool.mu.Unlock()
				}
				return true
			})
			if n != 3000 || err != nil {
				t.Errorf("read %d records: %v", n, err)
			}
		})
	}
	wg.Wait()
}

func TestMarksAndRows(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	var b Batch
	for i := range 5000 {
		key := fmt.Appendf(nil, "key-%04d", i)
		b.Rows = append(b.Rows, Row{Table: "sessions", Key: key, Value: bytes.Repeat(key, 10)}, Row{Table: "retained", Key: key, Value: []byte{}})
		b.Marks = append(b.Marks, Row{Key: key, Value: []byte{byte(i)}})
	}
	commit(t, s, &b)
	commit(t, s, &Batch{
		Rows:  []Row{{Table: "sessions", Key: []byte("key-0001")}, {Table: "unknown", Key: []byte("x")}},
		Marks: []Row{{Key: []byte("key-0000")}, {Key: []byte("key-9999")}},
	})
	check := func(s *Store) {
		t.Helper()
		keys := func(each func(func(k, v []byte) error) error) (keys []string) {
			t.Helper()
			if err := each(func(k, _ []byte) error { keys = append(keys, string(k)); return nil }); err != nil {
				t.Error(err)
			}
			return keys
		}
		sessions := keys(func(fn func(k, v []byte) error) error { return s.Rows("sessions", fn) })
		if len(sessions) != 4999 || sessions[0] != "key-0000" || sessions[1] != "key-0002" || !slices.IsSorted(sessions) {
			t.Errorf("%d sessions, first %v", len(sessions), sessions[:2])
		}
		if marks := keys(s.Marks); len(marks) != 4999 || marks[0] != "key-0001" || marks[4998] != "key-4999" {
			t.Errorf("%d marks", len(marks))
		}
		err := s.Rows("retained", func(k, v []byte) error {
			if v == nil || len(v) != 0 {
				return fmt.Errorf("row %q is %v, want empty", k, v)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if none := keys(func(fn func(k, v []byte) error) error { return s.Rows("nothing", fn) }); none != nil {
			t.Errorf("rows of no table: %v", none)
		}
	}
	check(s)
	for s.LastSeq() < 1000 { // the marks move to other segments
		commit(t, s, batchOf(s.LastSeq(), 100))
	}
	if s.Stats().Segments < 2 {
		t.Fatal("no second segment")
	}
	check(s)
	closeTest(t, s)
	check(openTest(t, dir, Options{SegmentSize: small}))
}

func TestRowsReturnsTheErrorOfFn(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	commit(t, s, &Batch{Rows: []Row{{Table: "a", Key: []byte("k"), Value: []byte("v")}}})
	mine := errors.New("mine")
	if err := s.Rows("a", func(_, _ []byte) error { return mine }); err != mine {
		t.Error(err)
	}
}

// A batch that the caller got wrong is refused as a whole.
func TestBadBatchIsRefused(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	commit(t, s, batchOf(0, 5))
	ok := Row{Table: "t", Key: []byte("k"), Value: []byte("v")}
	for name, b := range map[string]*Batch{
		"a number that was there before": {Records: []Record{{Seq: 5}}, Rows: []Row{ok}},
		"numbers that do not ascend":     {Records: []Record{{Seq: 9}, {Seq: 8}}, Rows: []Row{ok}},
		"the number that has no next":    {Records: []Record{{Seq: 1<<64 - 1}}, Rows: []Row{ok}},
		"a row without a table":          {Rows: []Row{ok, {Key: []byte("k")}}},
		"a row of the store's own table": {Rows: []Row{ok, {Table: metaBucket, Key: []byte("k")}}},
		"a mark without a key":           {Rows: []Row{ok}, Marks: []Row{{}}},
		"a key that is too long":         {Rows: []Row{ok, {Table: "t", Key: make([]byte, maxKey+1)}}},
	} {
		if err := s.Commit(b); err == nil {
			t.Errorf("%s: was committed", name)
		}
	}
	if err := s.Rows("t", func(k, v []byte) error { return fmt.Errorf("row %q is there", k) }); err != nil {
		t.Error(err)
	}
}

func TestEmptyBatchWritesNothing(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	commit(t, s, &Batch{})
	if st := s.Stats(); st.Commits != 0 {
		t.Errorf("%d commits", st.Commits)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		openTest(t, dir, Options{})
		begin := time.Now()
		_, err := Open(dir, Options{})
		if took := time.Since(begin); !errors.Is(err, ErrLocked) || took > lockTimeout {
			t.Errorf("%v after %v", err, took)
		}
		if err := Verify(dir); !errors.Is(err, ErrLocked) {
			t.Errorf("verify: %v", err)
		}
	})
}

func TestClosedStore(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	commit(t, s, batchOf(0, 5))
	closeTest(t, s)
	none := func(_, _ []byte) error { return nil }
	for name, err := range map[string]error{
		"Commit": s.Commit(batchOf(5, 1)),
		"Read":   s.Read(1, 0, 5, func(uint64, uint32, []byte) bool { return true }),
		"Rows":   s.Rows("t", none),
		"Marks":  s.Marks(none),
		"Verify": s.Verify(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	closeTest(t, s)
}

func TestSegmentSizeIsBounded(t *testing.T) {
	for _, size := range []units.Size{-1, 1, units.GiB} {
		if _, err := Open(t.TempDir(), Options{SegmentSize: size}); err == nil {
			t.Errorf("a segment size of %d was accepted", size)
		}
	}
}

// logLines collects what a store logs.
type logLines struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), part)
}
