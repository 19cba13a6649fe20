package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

const damagedRecords = 800

// damaged makes a store with records in several segments and one row and one
// mark, hands its closed files to spoil, and returns the directory.
func damaged(t *testing.T, spoil func(state string, segments []string)) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	for s.LastSeq() < damagedRecords {
		b := &Batch{}
		for i := range uint64(8) {
			seq := s.LastSeq() + 1 + i
			b.Records = append(b.Records, Record{Seq: seq, Owners: []Owner{{1, 0}}, Data: []byte(crashData(seq))})
		}
		b.Queues = []Queue{{ID: 1, Pending: s.LastSeq() + 8, Note: []byte("the note")}}
		b.Marks = []Row{{Key: []byte("mark"), Value: []byte("m")}}
		commit(t, s, b)
	}
	commit(t, s, &Batch{Rows: []Row{
		{Table: "losses", Key: []byte("k"), Value: []byte("a loss")},
		{Table: "sessions", Key: []byte("k"), Value: []byte("a session")},
		{Table: "t", Key: []byte("k"), Value: []byte("the row")},
	}})
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Pending: damagedRecords, Note: []byte("a newer note")}}})
	if fileSize(s.positions.path) == 0 {
		t.Fatal("positions that were committed alone are not in their file")
	}
	closeTest(t, s)
	verifyExact(t, dir)
	segments := segmentsOf(t, dir)
	if len(segments) < 4 {
		t.Fatalf("only %d segments", len(segments))
	}
	spoil(filepath.Join(dir, stateName), segments)
	return dir
}

// copyStore returns a copy of the closed store in dir.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// mustSurvive opens the store, reads all it can, writes to it and opens it again.
// Whatever is read must be what was written. It returns what was read and the
// damage that Read reported.
func mustSurvive(t *testing.T, dir string, log *logLines) (seqs []uint64, damage []*CorruptError) {
	t.Helper()
	s, err := Open(dir, Options{SegmentSize: small, Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	seqs, damage = readDamaged(t, s)
	last := s.LastSeq()
	commit(t, s, &Batch{
		Records: []Record{{Seq: last + 1, Owners: []Owner{{7, 3}}, Data: []byte("new")}},
		Queues:  []Queue{{ID: 7, Acked: last, Pending: 1}},
		Rows:    []Row{{Table: "t", Key: []byte("new"), Value: []byte("new")}},
	})
	closeTest(t, s)
	s, err = Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	if have := readAll(t, s, 7, last, last+1); len(have) != 1 || have[0] != (got{last + 1, 3, "new"}) {
		t.Errorf("after the damage %v was read, want the new record", have)
	}
	return seqs, damage
}

// readDamaged reads queue 1 to the end, over damaged segments.
func readDamaged(t *testing.T, s *Store) (seqs []uint64, damage []*CorruptError) {
	t.Helper()
	after := uint64(0)
	for range 100 {
		err := s.Read(1, after, s.LastSeq(), func(seq uint64, _ uint32, data []byte) bool {
			if seq <= after || string(data) != crashData(seq) {
				t.Errorf("record %d with %.20q came behind %d", seq, data, after)
			}
			after = seq
			seqs = append(seqs, seq)
			return true
		})
		if err == nil {
			return seqs, damage
		}
		var c *CorruptError
		if !errors.As(err, &c) || c.Seq <= after {
			t.Fatalf("behind %d: %v", after, err)
		}
		damage = append(damage, c)
	}
	t.Fatal("reading does not come to an end")
	return nil, nil
}

func write(t *testing.T, path string, off int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// Each file of the store, spoiled in each way: the store opens, sets that file
// aside, says so once, and everything else is there.
func TestDamagedFileIsSetAside(t *testing.T) {
	sound := damaged(t, func(string, []string) {})
	for how, spoil := range map[string]func(t *testing.T, path string){
		"empty":           func(t *testing.T, path string) { truncate(t, path, 0) },
		"cut short":       func(t *testing.T, path string) { truncate(t, path, 3*pageSize) },
		"cut in a page":   func(t *testing.T, path string) { truncate(t, path, pageSize+100) },
		"zeroed":          func(t *testing.T, path string) { write(t, path, 0, make([]byte, fileSize(path))) },
		"zeroed pages":    func(t *testing.T, path string) { write(t, path, 2*pageSize, make([]byte, fileSize(path)-2*pageSize)) },
		"no meta pages":   func(t *testing.T, path string) { write(t, path, 0, make([]byte, 2*pageSize)) },
		"something else":  func(t *testing.T, path string) { write(t, path, 0, bytes.Repeat([]byte("junk"), 8*pageSize)) },
		"root is a cycle": spoilCycle,
	} {
		for which, pick := range map[string]func(state string, segments []string) string{
			"state":  func(state string, _ []string) string { return state },
			"newest": func(_ string, segments []string) string { return segments[len(segments)-1] },
			"middle": func(_ string, segments []string) string { return segments[1] },
			"oldest": func(_ string, segments []string) string { return segments[0] },
		} {
			t.Run(which+" "+how, func(t *testing.T) {
				dir := copyStore(t, sound)
				segments := segmentsOf(t, dir)
				victim := pick(filepath.Join(dir, stateName), segments)
				spoil(t, victim)
				log := &logLines{}
				seqs, damage := mustSurvive(t, dir, log)
				if lost := intact(t, sound, dir, aside(victim)).without(seqs); len(lost) > 0 || damage != nil {
					t.Errorf("%d records on sound pages are lost, as %v; %v", len(lost), lost[:min(len(lost), 10)], damage)
				}
				if n := log.count("set aside"); n != 1 {
					t.Errorf("%d lines say that a file was set aside: %s", n, log.buf.String())
				}
				if kept, _ := filepath.Glob(victim + corruptInfix + "*Z"); len(kept) != 1 {
					t.Errorf("kept: %v", kept)
				}
				if err := Verify(dir); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// spoilCycle makes the root page a branch that is its own child, as a lost write
// may. bbolt would follow it until the stack ends.
func spoilCycle(t *testing.T, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := newPageWalk(f)
	if err != nil {
		t.Fatal(err)
	}
	ne := binary.NativeEndian
	page := make([]byte, pageSize)
	ne.PutUint64(page, w.root)
	ne.PutUint16(page[8:], branchFlag)
	ne.PutUint16(page[10:], 1)
	ne.PutUint32(page[16:], pageElement) // the key follows the element
	ne.PutUint32(page[20:], 1)
	ne.PutUint64(page[24:], w.root)
	write(t, path, int64(w.root)*pageSize, page)
}

// Everything lost but the names: the store starts anew, with higher numbers.
func TestAllSegmentsLost(t *testing.T) {
	dir := damaged(t, func(_ string, segments []string) {
		for _, path := range segments {
			truncate(t, path, 0)
		}
	})
	log := &logLines{}
	if seqs, _ := mustSurvive(t, dir, log); len(seqs) != 0 {
		t.Errorf("read %v", seqs)
	}
}

// flip changes one bit of text in the file.
func flip(t *testing.T, path, text string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at, found := 0, false
	for i := 0; ; { // every version of the page that is left in the file
		j := bytes.Index(content[i:], []byte(text))
		if j < 0 {
			break
		}
		at, found = i+j, true
		write(t, path, int64(at), []byte{content[at] ^ 1})
		i = at + 1
	}
	if !found {
		t.Fatalf("%q is not in %s", text, path)
	}
}

func TestDamagedRecordIsSkipped(t *testing.T) {
	for name, seq := range map[string]uint64{"in a sealed segment": 17, "in the newest": damagedRecords} {
		t.Run(name, func(t *testing.T) {
			dir := damaged(t, func(_ string, segments []string) {
				i := 0
				if seq > 100 {
					i = len(segments) - 1
				}
				flip(t, segments[i], crashData(seq))
			})
			log := &logLines{}
			s, err := Open(dir, Options{SegmentSize: small, Log: log.logger()})
			if err != nil {
				t.Fatal(err)
			}
			defer closeTest(t, s)
			for range 2 {
				seqs, damage := readDamaged(t, s)
				if len(seqs) != damagedRecords-1 || slices.Contains(seqs, seq) || damage != nil {
					t.Errorf("%d records of %d were read, %v", len(seqs), damagedRecords, damage)
				}
			}
			if st := s.Stats(); st.CorruptRecords != 1 || log.count("damaged record") != 1 || st.LastSeq != damagedRecords {
				t.Errorf("%d counted, last %d, log %s", st.CorruptRecords, st.LastSeq, log.buf.String())
			}
			var c *CorruptError
			if err := s.Verify(); !errors.As(err, &c) || c.Seq != seq || !errors.Is(err, errChecksum) {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

// A queue whose position is unreadable starts at the oldest record.
func TestDamagedQueueStartsOver(t *testing.T) {
	dir := damaged(t, func(state string, segments []string) {
		flip(t, segments[len(segments)-1], "the note")
		remove(t, filepath.Join(filepath.Dir(state), positionsName))
	})
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	if q := s.Queues(); len(q) != 1 || q[0].ID != 1 || q[0].Acked != 0 || q[0].Pending != damagedRecords {
		t.Errorf("queues %+v", q)
	}
	if n := len(readAll(t, s, 1, 0, damagedRecords)); n != damagedRecords || s.Stats().CorruptRows != 1 {
		t.Errorf("%d records, %d rows reported", n, s.Stats().CorruptRows)
	}
}

func TestDamagedRowIsSkipped(t *testing.T) {
	dir := damaged(t, func(state string, _ []string) { flip(t, state, "the row") })
	log := &logLines{}
	s, err := Open(dir, Options{Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	if v := row(t, s); v != "" || s.Stats().CorruptRows != 1 || log.count("damaged row") != 1 {
		t.Errorf("row %q, %d reported, log %s", v, s.Stats().CorruptRows, log.buf.String())
	}
}

// The file shrinks under the running store, so that its memory map faults. The
// commit after that, or at the latest the next, goes on in another segment.
func TestActiveSegmentShrinksWhileOpen(t *testing.T) {
	for _, left := range []int64{0, 2 * pageSize} {
		for _, records := range []int{10, 100} {
			t.Run(fmt.Sprintf("%d bytes left of %d records", left, records), func(t *testing.T) {
				shrinkActive(t, left, records)
			})
		}
	}
}

func shrinkActive(t *testing.T, left int64, records int) {
	dir, log := t.TempDir(), &logLines{}
	s := openTest(t, dir, Options{SegmentSize: small, Log: log.logger()})
	commit(t, s, batchOf(0, records))
	path, next := s.tail.file.path, s.LastSeq()+1
	truncate(t, path, left)
	var c *CorruptError
	if err := s.Commit(batchOf(next-1, 1)); errors.As(err, &c) && c.Path == path {
		commit(t, s, batchOf(next-1, 1))
	} else if err != nil {
		t.Fatal(err)
	}
	if have := readAll(t, s, 1, 0, next); len(have) != 1 || have[0].seq != next {
		t.Errorf("%d records are left", len(have))
	}
	if log.count("set aside") != 1 || log.count("marks") != 1 {
		t.Errorf("log: %s", log.buf.String())
	}
}

// state.db is damaged under the running store: the next commit of rows writes it
// anew with what parses of it, and they are there.
func TestStateIsDamagedWhileOpen(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"it shrinks to nothing": func(t *testing.T, path string) { truncate(t, path, 0) },
		"its last pages are cut": func(t *testing.T, path string) {
			truncate(t, path, fileSize(path)/2/pageSize*pageSize)
		},
		"its root is zeroed": zeroRoot,
	} {
		t.Run(name, func(t *testing.T) {
			dir, log := t.TempDir(), &logLines{}
			s := openTest(t, dir, Options{Log: log.logger()})
			for i := range 8 {
				b := &Batch{}
				for j := range 50 {
					b.Rows = append(b.Rows, Row{Table: "t", Key: fmt.Appendf(nil, "old %d", 50*i+j), Value: make([]byte, 300)})
				}
				commit(t, s, b)
			}
			spoil(t, filepath.Join(dir, stateName))
			commit(t, s, &Batch{Rows: []Row{{Table: "t", Key: []byte("k"), Value: []byte("v")}}})
			rows := make(map[string]string)
			if err := s.Rows("t", into(rows)); err != nil || rows["k"] != "v" {
				t.Errorf("%d rows, %v", len(rows), err)
			}
			t.Logf("%d of 401 rows are there", len(rows))
			if st := s.Stats(); st.StateRebuilt != 1 || log.count("set aside") != 1 || name == "its root is zeroed" && len(rows) != 351 {
				t.Errorf("%+v; log: %s", st, log.buf.String())
			}
			if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
				t.Errorf("a second process opens it: %v", err)
			}
		})
	}
}

// zeroRoot leaves the root of the transaction before.
func zeroRoot(t *testing.T, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := newPageWalk(f)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, int64(w.root)*pageSize, make([]byte, pageSize))
}

func TestNewerFormatIsRefused(t *testing.T) {
	for _, which := range []string{stateName, journalDir} {
		dir := t.TempDir()
		s := openTest(t, dir, Options{})
		f := s.tail.file
		if which == stateName {
			f = s.state
		}
		closeTest(t, s)
		raiseFormat(t, f.path, formatVersion+1)
		_, err := Open(dir, Options{})
		if !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), fmt.Sprint("format ", formatVersion+1)) {
			t.Errorf("%s: %v", which, err)
		}
		raiseFormat(t, f.path, formatVersion)
	}
}

func raiseFormat(t *testing.T, path string, version byte) {
	t.Helper()
	f := &boltFile{path: path}
	if err := f.open(path, segmentOptions(small)); err != nil {
		t.Fatal(err)
	}
	defer f.close()
	err := f.update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(metaBucket)).Put([]byte(formatKey), frame([]byte(formatKey), []byte{version}))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Random damage anywhere: the process survives, opens, and hands out nothing
// that was not written.
func TestRandomDamage(t *testing.T) {
	seed := cmp.Or(*simSeed, uint64(time.Now().UnixNano()))
	t.Logf("go test -run %s -seed %d", t.Name(), seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	sound := damaged(t, func(string, []string) {})
	for range 60 {
		dir := copyStore(t, sound)
		files := append(segmentsOf(t, dir), filepath.Join(dir, stateName), filepath.Join(dir, positionsName))
		for range 1 + rng.IntN(4) {
			spoilRandomly(t, rng, files[rng.IntN(len(files))])
		}
		mustSurvive(t, dir, &logLines{})
		_ = Verify(dir) // must not panic
		if t.Failed() {
			return
		}
	}
}

func spoilRandomly(t *testing.T, rng *rand.Rand, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pages := len(content) / pageSize
	if pages == 0 {
		return
	}
	at, other := rng.IntN(pages)*pageSize, rng.IntN(pages)*pageSize
	switch rng.IntN(6) {
	case 0: // a bit
		i := rng.IntN(len(content))
		write(t, path, int64(i), []byte{content[i] ^ 1<<rng.IntN(8)})
	case 1: // a page header field
		write(t, path, int64(at+rng.IntN(pageHeader+pageElement)), []byte{byte(rng.Uint32())})
	case 2: // a lost page
		write(t, path, int64(at), make([]byte, pageSize))
	case 3: // a page that landed elsewhere
		write(t, path, int64(at), content[other:other+pageSize])
	case 4: // … and says it belongs there
		write(t, path, int64(at), append(content[at:at+8:at+8], content[other+8:other+pageSize]...))
	case 5:
		truncate(t, path, int64(rng.IntN(len(content))))
	}
}
