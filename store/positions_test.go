package store

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// drained makes a store in whose segments two queues are owed all records, and of
// which queue 1 has acknowledged some alone, ten at a time, up to acked.
func drained(t *testing.T, dir string, acked uint64) *Store {
	t.Helper()
	s := openTest(t, dir, Options{SegmentSize: small})
	for s.LastSeq() < 1000 {
		b := batchOf(s.LastSeq(), 100)
		for i := range b.Records {
			b.Records[i].Owners = []Owner{{1, 0}, {2, 0}}
		}
		last := s.LastSeq() + 100
		b.Queues = []Queue{{ID: 1, Pending: last}, {ID: 2, Pending: last}}
		commit(t, s, b)
	}
	for to := uint64(10); to <= acked; to += 10 {
		release(t, s, to)
	}
	return s
}

// release moves queue 1 and nothing else.
func release(t testing.TB, s *Store, acked uint64) {
	t.Helper()
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: acked, Pending: 1000 - acked, Note: fmt.Append(nil, "behind ", acked)}}})
}

// The position of a queue alone is one page and one sync, and a position in the next
// segment, or one beside anything else, goes to the newest segment with all others.
func TestPositionsAloneTakeOnePage(t *testing.T) {
	dir := t.TempDir()
	s := drained(t, dir, 20)
	for i, c := range []struct {
		alone bool
		batch *Batch
	}{
		{true, &Batch{Queues: []Queue{{ID: 1, Acked: 30, Pending: 970}}}},
		{true, &Batch{Queues: []Queue{{ID: 2, Acked: 3, Pending: 997}, {ID: 1, Acked: 31, Pending: 969}}}},
		{false, &Batch{Queues: []Queue{{ID: 1, Acked: 32, Pending: 968}}, Marks: []Row{{Key: []byte("m"), Value: []byte("v")}}}},
		{true, &Batch{Queues: []Queue{{ID: 1, Acked: 33, Pending: 967}}}},
		{false, &Batch{Queues: []Queue{{ID: 1, Acked: 34, Pending: 966}}, Rows: []Row{{Table: "t", Key: []byte("m"), Value: []byte("v")}}}},
		{false, &Batch{Queues: []Queue{{ID: 1, Acked: 990, Pending: 10}}}}, // in another segment
		{true, &Batch{Queues: []Queue{{ID: 2, Acked: 4, Pending: 996}}}},
		{false, &Batch{Queues: []Queue{{ID: 1, Gone: true}}}},
		{true, &Batch{Queues: []Queue{{ID: 2, Acked: 5, Pending: 995}}}},
		{false, &Batch{Queues: []Queue{{ID: 3, Acked: 1000}}}}, // a new one
		{false, &Batch{Queues: []Queue{{ID: 2, Acked: 6, Pending: 994, Note: make([]byte, positionsSlot)}}}},
		{true, &Batch{Queues: []Queue{{ID: 2, Acked: 7, Pending: 993}}}},
		{false, &Batch{Queues: []Queue{{ID: 2, Acked: 8}}}}, // owed nothing more
		{false, &Batch{Queues: []Queue{{ID: 2, Gone: true}}}},
	} {
		batch := c.batch
		written, want := s.Wear()[wearPositions], s.Queues()
		commit(t, s, batch)
		for _, q := range batch.Queues {
			want = slices.DeleteFunc(want, func(o Queue) bool { return o.ID == q.ID })
			if !q.Gone {
				want = append(want, q)
			}
		}
		slices.SortFunc(want, func(a, b Queue) int { return int(a.ID) - int(b.ID) })
		now := s.Wear()[wearPositions]
		if alone := now == written.plus(Wear{Bytes: pageSize, Syncs: 1}); alone != c.alone {
			t.Errorf("commit %d writes %+v", i, Wear{now.Bytes - written.Bytes, now.Syncs - written.Syncs})
		}
		r, err := OpenReadOnly(copyStore(t, dir), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if have := r.Queues(); !slices.EqualFunc(want, have, sameQueue) || !slices.EqualFunc(want, s.Queues(), sameQueue) {
			t.Errorf("commit %d: queues %+v, want %+v", i, have, want)
		}
		closeTest(t, r)
	}
}

// Whoever wrote the newest segment last may have crashed before it was synced: the
// first positions after a start go there, and those that only their file has with them.
func TestFirstPositionsAfterAStartAreHeld(t *testing.T) {
	dir := t.TempDir()
	s := drained(t, dir, 30)
	closeTest(t, s)
	for acked := uint64(40); acked < 70; acked += 20 {
		s = openTest(t, dir, Options{SegmentSize: small})
		count := s.positions.count
		commit(t, s, &Batch{Queues: []Queue{{ID: 2, Acked: acked, Pending: 1000 - acked}}})
		if s.positions.count != count || len(s.loose) > 0 || s.acked()[1] != acked-10 {
			t.Errorf("at %d %d positions are not in the newest segment, which has %v", acked, len(s.loose), s.acked())
		}
		release(t, s, acked)
		release(t, s, acked+10)
		if s.positions.count != count+2 || s.acked()[1] != acked-10 {
			t.Errorf("at %d the newest segment has %v", acked, s.acked())
		}
		commit(t, s, &Batch{Marks: []Row{{Key: []byte("m"), Value: []byte("v")}}})
		closeTest(t, s)
	}
	s = openTest(t, dir, Options{SegmentSize: small})
	count := s.positions.count
	if _, err := s.Rewrite(200, nil); err != nil || s.unnamed {
		t.Fatalf("the journal is not synced by rewriting a segment: %v", err)
	}
	if release(t, s, 80); s.positions.count != count {
		t.Error("the file takes positions beyond what may not be on the disk")
	}
	release(t, s, 90)
	if all, damage, err := readPositions(s.positions.path); s.positions.count != count+1 || len(all) != 2 || damage != nil || err != nil {
		t.Errorf("a start leaves %d places of the file and writes %d times: %v, %v", len(all), s.positions.count-count, damage, err)
	}
}

// A segment that cannot be used on, and one that state.db does not know for the newest
// one, take the next positions as any commit.
func TestPositionsGoWhereACommitHasToCome(t *testing.T) {
	dir := t.TempDir()
	s := drained(t, dir, 30)
	count, segments := s.positions.count, len(segmentsOf(t, dir))
	s.tail.suspect = true
	if release(t, s, 40); s.positions.count != count || len(segmentsOf(t, dir)) != segments+1 {
		t.Errorf("%d segments, want another than the %d", len(segmentsOf(t, dir)), segments)
	}
	release(t, s, 45)
	zeroRoot(t, filepath.Join(dir, stateName))
	commit(t, s, &Batch{Rows: []Row{{Table: "t", Key: []byte("k"), Value: []byte("v")}}})
	if s.noted != 0 {
		t.Fatal("state.db is not damaged")
	}
	if release(t, s, 50); s.noted != s.tail.segment.first || s.acked()[1] != 50 {
		t.Errorf("state.db has %d for the newest segment, which has %v", s.noted, s.acked())
	}
	if release(t, s, 60); s.positions.count != count+2 {
		t.Error("no positions go alone from then on")
	}
}

// What only the positions file has is lost, all of it or the last write, at any point
// of a queue that drains: it reads again what it had acknowledged in its segment, and
// nothing that it is owed by what it then says is missing.
func TestPositionsFileIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		told  bool
		spoil func(t *testing.T, path string)
	}{
		"missing":              {false, remove},
		"empty":                {false, func(t *testing.T, path string) { truncate(t, path, 0) }},
		"cut short":            {false, func(t *testing.T, path string) { truncate(t, path, positionsSlot/2) }},
		"zeroed":               {false, func(t *testing.T, path string) { write(t, path, 0, make([]byte, 2*positionsSlot)) }},
		"something else":       {true, func(t *testing.T, path string) { write(t, path, 0, bytes.Repeat([]byte("junk"), positionsSlot/2)) }},
		"one place is damaged": {false, func(t *testing.T, path string) { flipByte(t, path, 20, 1) }},
		"the other one is":     {false, func(t *testing.T, path string) { flipByte(t, path, positionsSlot+20, 1) }},
		"of a later version":   {true, func(t *testing.T, path string) { flipByte(t, path, 4, 2); flipByte(t, path, positionsSlot+4, 2) }},
		"its length is damaged": {true, func(t *testing.T, path string) {
			flipByte(t, path, 0, 0x80)
			flipByte(t, path, positionsSlot, 0x80)
		}},
	} {
		for acked := uint64(10); acked < 1000; acked += 170 {
			t.Run(fmt.Sprint(name, " at ", acked), func(t *testing.T) {
				dir := t.TempDir()
				s := drained(t, dir, acked)
				commit(t, s, &Batch{Queues: []Queue{{ID: 2, Acked: acked, Pending: 1000 - acked}}})
				for i := range uint64(5) {
					release(t, s, acked+i)
				}
				releasing, acks := s.Queues(), s.acked()
				if acks[1] >= releasing[0].Acked {
					t.Errorf("the newest segment has %d, all know %d", acks[1], releasing[0].Acked)
				}
				closeTest(t, s)
				c.spoil(t, filepath.Join(dir, positionsName))
				if r, err := Inspect(dir); err != nil || (r.of(dir, filepath.Join(dir, positionsName)) != nil) != c.told || len(r.Missing) > 0 {
					t.Errorf("verify says %+v, %v", r, err)
				}
				log := &logLines{}
				s = openTest(t, dir, Options{SegmentSize: small, Log: log.logger()})
				if told := log.count("positions file is damaged") == 1; told != c.told || s.Stats().CorruptRows > 0 {
					t.Errorf("it is told: %v; %+v; log: %s", told, s.Stats(), log.buf.String())
				}
				checkFallenBack(t, s, releasing)
				release(t, s, acked+4)
				release(t, s, acked+5)
				closeTest(t, s)
				s = openTest(t, dir, Options{SegmentSize: small})
				if q := s.Queues()[0]; q.Acked != acked+5 {
					t.Errorf("queue %+v, want behind %d", q, acked+5)
				}
			})
		}
	}
}

// checkFallenBack expects positions before, in the same segment, and all that they are owed.
func checkFallenBack(t *testing.T, s *Store, before []Queue) {
	t.Helper()
	for i, q := range s.Queues() {
		if s.needs(q) != s.needs(before[i]) || q.Acked > before[i].Acked {
			t.Errorf("queue %+v falls back to %+v", before[i], q)
		}
		if have := len(readAll(t, s, q.ID, q.Acked, math.MaxUint64)); uint64(have) != q.Pending {
			t.Errorf("queue %+v reads %d records", q, have)
		}
	}
	if r, err := s.Inspect(); err != nil || len(r.Missing) > 0 {
		t.Errorf("verify misses %+v, %v", r.Missing, err)
	}
}

// A positions file that comes back, as it was before the newest segment went on, counts
// for nothing: neither beside a later transaction, nor beside a segment that was begun
// anew under the same name or written anew from what parsed of it.
func TestOldPositionsFileCountsForNothing(t *testing.T) {
	for name, goOn := range map[string]func(t *testing.T, s *Store){
		"a later commit":         func(t *testing.T, s *Store) { commit(t, s, batchOf(s.LastSeq(), 1)) },
		"the segment is sealed":  func(t *testing.T, s *Store) { rollTest(t, s) },
		"the segment is damaged": func(*testing.T, *Store) {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := drained(t, dir, 20)
			old, err := os.ReadFile(s.positions.path)
			if err != nil {
				t.Fatal(err)
			}
			commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: 900, Pending: 100}, {ID: 2, Acked: 900, Pending: 100}}})
			goOn(t, s)
			want, newest := s.Queues(), s.tail.file.path
			closeTest(t, s)
			if name == "the segment is damaged" {
				spoilCycle(t, newest)
				want = nil
			}
			write(t, filepath.Join(dir, positionsName), 0, old)
			s, err = Open(dir, Options{SegmentSize: small})
			if err != nil {
				t.Fatal(err)
			}
			defer closeTest(t, s)
			have := s.Queues()
			if want != nil && !slices.EqualFunc(have, want, sameQueue) || want == nil && string(have[0].Note) == "behind 20" {
				t.Errorf("queues %+v, want %+v", have, want)
			}
		})
	}
}

// An empty segment is begun anew under its name while the file is of the one before,
// at a transaction that the new one comes to as well.
func TestSegmentBegunAnewHasOtherPositions(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	set := func(acked uint64, marks ...Row) {
		t.Helper()
		commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: acked}}, Marks: marks})
	}
	mark := Row{Key: []byte("m"), Value: []byte("v")}
	set(1)
	set(2)
	txid, segment, path := s.tail.txid, s.tail.segment, s.positions.path
	if s.positions.count != 1 {
		t.Fatalf("%d writes of positions alone, want 1", s.positions.count)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set(3, mark)
	s.tail.suspect = true
	for range txid {
		if s.tail.txid != txid || s.tail.segment == segment {
			set(4, mark)
		}
	}
	if s.tail.txid != txid || s.tail.segment == segment || len(segmentsOf(t, dir)) != 1 {
		t.Fatalf("the segment begun anew is at %d, want %d; %v", s.tail.txid, txid, segmentsOf(t, dir))
	}
	closeTest(t, s)
	write(t, path, 0, old)
	s = openTest(t, dir, Options{SegmentSize: small})
	if q := s.Queues()[0]; q.Acked != 4 {
		t.Errorf("queue %+v, want behind 4", q)
	}
}

// The positions file cannot be written: that is said once and counted, the newest
// segment takes the positions, and the file is tried again when there may be room.
func TestPositionsFileIsRefused(t *testing.T) {
	dir, log := t.TempDir(), &logLines{}
	full := filepath.Join(dir, positionsName)
	s := openTest(t, dir, Options{SegmentSize: small, Log: log.logger()})
	for s.LastSeq() < 1000 {
		commit(t, s, batchOf(s.LastSeq(), 100))
	}
	tries := uint64(0)
	for acked := uint64(1); acked < 1000; acked += 3 {
		if err := os.Symlink("/dev/full", full); err == nil {
			tries++
		}
		release(t, s, acked)
	}
	st := s.Stats()
	if st.FailedCommits > 0 || st.PositionsRefused < 2 || st.PositionsRefused > tries || log.count("cannot write the positions file") != 1 {
		t.Errorf("%d of %d are counted, %d commits failed; log: %s", st.PositionsRefused, tries, st.FailedCommits, log.buf.String())
	}
	if s.positions.count > 0 {
		t.Errorf("%d writes worked", s.positions.count)
	}
	_ = os.Remove(full)
	commit(t, s, batchOf(1000, 100))
	for s.tail.segment.first <= 1000 {
		commit(t, s, batchOf(s.LastSeq(), 100))
	}
	last := s.LastSeq()
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: last - 2, Pending: 2}}})
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: last - 1, Pending: 1}}})
	if s.positions.count == 0 {
		t.Error("the file is not tried again")
	}
}

// What is backed up, from an open store or one that is open for reading, has the
// positions that only their file has.
func TestBackupHasPositions(t *testing.T) {
	dir := t.TempDir()
	s := drained(t, dir, 30)
	archive, want := backedUp(t, s), s.Queues()
	release(t, s, 40)
	closeTest(t, s)
	r, err := OpenReadOnly(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	later, wantLater := backedUp(t, r), r.Queues()
	closeTest(t, r)
	if want[0].Acked != 30 || wantLater[0].Acked != 40 {
		t.Errorf("queues %+v and %+v", want, wantLater)
	}
	for i, archive := range [][]byte{archive, later} {
		to := filepath.Join(t.TempDir(), "restored")
		if _, err := Restore(bytes.NewReader(archive), to); err != nil {
			t.Fatal(err)
		}
		s := openTest(t, to, Options{SegmentSize: small})
		if have := s.Queues(); !slices.EqualFunc(have, [][]Queue{want, wantLater}[i], sameQueue) {
			t.Errorf("the restored queues are %+v", have)
		}
	}
}

// What a queue has given up beside its position is in the newest segment before it is
// gone: with the positions file lost the queue still says so.
func TestPositionsAreHeldBeforeASegmentIsRewritten(t *testing.T) {
	for name, rewrite := range map[string]func(s *Store) error{
		"rewrite": func(s *Store) error { _, err := s.Rewrite(1, (given{}).Keep); return err },
		"compact": func(s *Store) error { _, err := s.Compact(t.Context(), given{}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := drained(t, dir, 10)
			commit(t, s, &Batch{Queues: []Queue{{ID: 2, Pending: 100, Note: []byte("nothing up to 900")}}})
			commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: 990, Pending: 10}}})
			commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: 991, Pending: 9}, {ID: 2, Pending: 99, Note: []byte("nothing up to 901")}}})
			before := s.Queues()
			if err := rewrite(s); err != nil || s.Stats().SegmentsRewritten+s.Stats().SegmentsRemoved == 0 {
				t.Fatalf("nothing is rewritten: %v", err)
			}
			release(t, s, 992)
			closeTest(t, s)
			remove(t, filepath.Join(dir, positionsName))
			s = openTest(t, dir, Options{SegmentSize: small})
			if have := s.Queues(); !slices.EqualFunc(have, before, sameQueue) {
				t.Errorf("queues %+v, want %+v", have, before)
			}
			commit(t, s, &Batch{Queues: []Queue{{ID: 2, Gone: true}}}) // it has more than it says
		})
	}
}

// given is what queue 2 still needs.
type given struct{}

func (given) Keep(seq uint64, o Owner, _ []byte) bool { return o.Queue != 2 || seq > 901 }

func (given) Share(queue uint32, _, last uint64) float64 {
	if queue == 2 && last <= 901 {
		return 0
	}
	return 1
}
