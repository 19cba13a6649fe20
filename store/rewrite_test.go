package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// twoQueues commits n records from last on, 100 at a time. All are owed to the
// queue 1, which acknowledges them at once; every tenth also to the queue 2, which
// is absent.
func twoQueues(t testing.TB, s *Store, n int) {
	t.Helper()
	var pending uint64
	for _, q := range s.Queues() {
		if q.ID == 2 {
			pending = q.Pending
		}
	}
	for range n / 100 {
		b := &Batch{}
		for range 100 {
			seq := s.LastSeq() + uint64(len(b.Records)) + 1
			owners := []Owner{{1, 7}}
			if seq%10 == 0 {
				owners = append(owners, Owner{2, uint32(seq)})
				pending++
			}
			b.Records = append(b.Records, Record{Seq: seq, Owners: owners, Data: []byte(crashData(seq))})
		}
		last := s.LastSeq() + 100
		b.Queues = []Queue{{ID: 1, Acked: last}, {ID: 2, Pending: pending, Note: []byte("two")}}
		b.Marks = []Row{{Key: []byte("mark"), Value: seqKey(last)}}
		commit(t, s, b)
	}
}

// everyTenth is what queue 2 should read up to last.
func everyTenth(last uint64) (want []got) {
	for seq := uint64(10); seq <= last; seq += 10 {
		want = append(want, got{seq, uint32(seq), crashData(seq)})
	}
	return want
}

// One absent queue pins segments that are owed to it only in a tenth. Their space
// comes back, and nothing that is owed is lost, also after another opening.
func TestMostlyDeadSegmentsShrink(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	twoQueues(t, s, 3000)
	before := s.Stats()
	freed, err := s.Compact(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	after := s.Stats()
	if after.JournalBytes > before.JournalBytes/3 || before.JournalBytes-after.JournalBytes != freed {
		t.Errorf("%d bytes in %d files, before %d in %d; it says %d were freed",
			after.JournalBytes, after.Segments, before.JournalBytes, before.Segments, freed)
	}
	if again, err := s.Compact(t.Context(), nil); again != 0 || err != nil {
		t.Errorf("a second time it frees %d (%v)", again, err)
	}
	want := everyTenth(3000)
	for range 2 {
		if have := readAll(t, s, 2, 0, math.MaxUint64); !slices.Equal(have, want) {
			t.Errorf("queue 2 is owed %d records, want %d", len(have), len(want))
		}
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
		twoQueues(t, s, 100)
		want = everyTenth(s.LastSeq())
		closeTest(t, s)
		s = openTest(t, dir, Options{SegmentSize: small})
	}
}

// A segment in the middle in which nobody is owed anything goes as a file, though
// an older one is needed.
func TestDeadSegmentInTheMiddleIsRemoved(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	commit(t, s, &Batch{
		Records: []Record{{Seq: 1, Owners: []Owner{{2, 0}}, Data: []byte("pins the oldest segment")}},
		Queues:  []Queue{{ID: 2, Pending: 1}},
	})
	for s.Stats().Segments < 9 {
		b := batchOf(s.LastSeq(), 100)
		b.Queues[0] = Queue{ID: 1, Acked: s.LastSeq() + 100}
		commit(t, s, b)
	}
	if _, err := s.Compact(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	// The oldest, the newest sealed one, whose queues are a fallback, and the active one.
	if n := len(segmentsOf(t, dir)); n != 3 || s.Stats().Segments != 3 {
		t.Errorf("%d files, %d segments", n, s.Stats().Segments)
	}
	commit(t, s, batchOf(s.LastSeq(), 10))
	closeTest(t, s)
	s = openTest(t, dir, Options{SegmentSize: small})
	if have := readAll(t, s, 2, 0, math.MaxUint64); len(have) != 1 || have[0].seq != 1 {
		t.Errorf("queue 2 reads %v", have)
	}
}

// Whoever thins a queue says which records stay, segment by segment.
func TestRewriteKeepsWhatTheCallerKeeps(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: small})
	commit(t, s, batchOf(0, 400))
	commit(t, s, batchOf(400, 100))
	thin := func(seq uint64, o Owner, data []byte) bool { return o.Queue != 1 || seq%2 == 0 || len(data) != 150 }
	pending := uint64(500)
	for seq := uint64(1); ; {
		r, err := s.Rewrite(seq, thin)
		if errors.Is(err, ErrActive) {
			break
		}
		if err != nil || r.Kept == 0 || r.Dropped != r.Last-r.First+1-r.Kept || r.After >= r.Before || r.Rewrites != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if n, err := s.Rewrites(r.Last); n != 1 || err != nil {
			t.Errorf("record %d: rewritten %d times (%v)", r.Last, n, err)
		}
		pending -= r.Dropped
		commit(t, s, &Batch{Queues: []Queue{{ID: 1, Pending: pending}}})
		seq = r.Last + 1
	}
	have := readAll(t, s, 1, 0, math.MaxUint64)
	if uint64(len(have)) != pending || pending == 500 || have[0].seq != 2 {
		t.Errorf("%d records, %d pending, the first is %v", len(have), pending, have[0].seq)
	}
	if held, err := s.Held(1); held != int64(150*pending) || err != nil {
		t.Errorf("%d bytes are held, want %d (%v)", held, 150*pending, err)
	}
}

// A rewritten segment may become the fallback for a damaged one, with its queues
// and marks.
func TestRewrittenSegmentIsAFallback(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	twoQueues(t, s, 1000)
	segments := segmentsOf(t, dir)
	if _, err := s.Compact(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	closeTest(t, s)
	truncate(t, segments[len(segments)-1], 0)
	s = openTest(t, dir, Options{SegmentSize: small})
	queues, marks := s.Queues(), 0
	if err := s.Marks(func(_, _ []byte) error { marks++; return nil }); err != nil || marks != 1 {
		t.Errorf("%d marks, %v", marks, err)
	}
	if len(queues) != 2 || string(queues[1].Note) != "two" {
		t.Errorf("queues %+v", queues)
	}
	last, _ := parseSegment(filepath.Base(segments[len(segments)-1]))
	if have := readAll(t, s, 2, 0, math.MaxUint64); !slices.Equal(have, everyTenth(last-1)) {
		t.Errorf("queue 2 is owed %d records", len(have))
	}
}

// What a crash between the steps of Rewrite leaves: the file beside, which goes.
func TestCrashWhileRewriting(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	twoQueues(t, s, 1000)
	closeTest(t, s)
	tmp := segmentsOf(t, dir)[0] + tmpSuffix
	if err := os.WriteFile(tmp, make([]byte, 3*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, Options{SegmentSize: small})
	if fileSize(tmp) != 0 || len(readAll(t, s, 2, 0, math.MaxUint64)) != 100 {
		t.Error("the file beside is there, or records are not")
	}
}

// A damaged record is not carried over, and is counted once.
func TestRewriteReportsDamage(t *testing.T) {
	dir := damaged(t, func(_ string, segments []string) { flip(t, segments[0], crashData(17)) })
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	if _, err := s.Rewrite(1, nil); err != nil {
		t.Fatal(err)
	}
	if seqs, damage := readDamaged(t, s); len(seqs) != damagedRecords-1 || damage != nil || s.Stats().CorruptRecords != 1 {
		t.Errorf("%d records, %v, %d counted", len(seqs), damage, s.Stats().CorruptRecords)
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
}

// Readers and a writer go on while segments are written anew.
func TestRewriteBesideReadersAndWriter(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: small})
	twoQueues(t, s, 1000)
	done := make(chan error, 2)
	go func() {
		for range 20 {
			if _, err := s.Compact(t.Context(), nil); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	go func() {
		for range 20 {
			next := uint64(10)
			err := s.Read(2, 0, math.MaxUint64, func(seq uint64, _ uint32, _ []byte) bool {
				if seq != next {
					return false
				}
				next += 10
				return true
			})
			if err != nil || next <= 1000 {
				done <- fmt.Errorf("reading ended before %d: %w", next, err)
				return
			}
		}
		done <- nil
	}()
	twoQueues(t, s, 2000)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestSpaceCountsWhatIsThere(t *testing.T) {
	dir := damaged(t, func(_ string, segments []string) { truncate(t, segments[1], 3*pageSize) })
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	readDamaged(t, s)
	for range 2 {
		sp, err := s.Space()
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		var want int64
		for _, path := range append(segmentsOf(t, dir), filepath.Join(dir, stateName)) {
			want += fileSize(path)
		}
		want += 3 * pageSize
		if err != nil || sp.Used() != want || sp.Aside != 3*pageSize || sp.Free <= 0 || sp.Free > sp.Total {
			t.Errorf("%+v, used %d, want %d (%v)", sp, sp.Used(), want, err)
		}
		commit(t, s, batchOf(s.LastSeq(), 500))
	}
}

// It is asked for with each commit, so no file is.
func TestSpaceAsksForNoFile(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	commit(t, s, batchOf(0, 500))
	got := testing.AllocsPerRun(100, func() {
		if _, err := s.Space(); err != nil {
			t.Skip(err)
		}
	})
	if got > 2 {
		t.Errorf("%v allocations, want 2", got)
	}
}

// A segment that is mostly marks is not written anew for ever.
func TestSegmentOfMarksIsWrittenAnewOnce(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: 1 << 20})
	marks := &Batch{}
	for i := range 2000 {
		marks.Marks = append(marks.Marks, Row{Key: fmt.Appendf(nil, "mark %d", i), Value: make([]byte, 100)})
	}
	commit(t, s, marks)
	for pinned := uint64(1); s.Stats().Segments < 3; pinned++ {
		b := batchOf(s.LastSeq(), 100)
		b.Queues = []Queue{{ID: 1, Acked: s.LastSeq(), Pending: 100}, {ID: 2, Pending: pinned}}
		b.Records[0].Owners = append(b.Records[0].Owners, Owner{2, 0}) // which pins the segment
		commit(t, s, b)
	}
	rewritten := uint64(0)
	for i := range 3 {
		if _, err := s.Compact(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		now := s.Stats().SegmentsRewritten
		if i == 0 && now == 0 || i > 0 && now > rewritten {
			t.Errorf("pass %d: %d segments were written anew, before it %d", i, now, rewritten)
		}
		rewritten = now
	}
}
