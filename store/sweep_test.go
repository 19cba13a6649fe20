package store

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var damages = flag.Int("damages", 100, "how many damages TestDamageSweep tries; 0: all")

// numbers are those of records.
type numbers map[uint64]bool

// without returns those that are not in have.
func (n numbers) without(have []uint64) (rest []uint64) {
	for seq := range n {
		if !slices.Contains(have, seq) {
			rest = append(rest, seq)
		}
	}
	slices.Sort(rest)
	return rest
}

// intact returns the records of the store in sound all pages of which are in dir
// as they were. File names a file of dir by the one of sound.
func intact(t *testing.T, sound, dir string, file func(path string) string) numbers {
	t.Helper()
	all := make(numbers)
	for _, path := range segmentsOf(t, sound) {
		now, _ := os.ReadFile(file(filepath.Join(dir, journalDir, filepath.Base(path))))
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v, err := openSalvage(path)
		if err != nil {
			t.Fatal(err)
		}
		for seq, p := range v.records {
			from, to := int(p.page)*pageSize, int(p.page)*pageSize+len(v.read(p.page))
			if to <= len(now) && bytes.Equal(now[from:to], before[from:to]) {
				all[seq] = true
			}
		}
		v.close()
	}
	return all
}

// aside finds the damaged file that was set aside, or where it still is.
func aside(victim string) func(path string) string {
	return func(path string) string {
		if kept, _ := filepath.Glob(path + corruptInfix + "*"); path == victim && len(kept) > 0 {
			return kept[0]
		}
		return path
	}
}

// damage is one thing that can happen to a closed store.
type damage struct {
	what  string
	file  string                       // base name
	spoil func(t *testing.T, s string) // the path
}

// Each file of a store is damaged in each way and at each place, or a sample of
// them: the store opens, hands out every record whose pages are sound and nothing
// else, and takes new ones.
func TestDamageSweep(t *testing.T) {
	seed := cmp.Or(*simSeed, uint64(time.Now().UnixNano()))
	t.Logf("go test -run %s -seed %d -damages %d", t.Name(), seed, *damages)
	rng := rand.New(rand.NewPCG(seed, 1))
	sound := damaged(t, func(string, []string) {})
	list := sweep(t, rng, sound)
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	if *damages > 0 {
		list = list[:min(len(list), *damages)]
	}
	scratch, lost, repaired := scratchDir(t), 0, 0
	for i, d := range list {
		dir := filepath.Join(scratch, fmt.Sprint(i))
		if err := os.CopyFS(dir, os.DirFS(sound)); err != nil {
			t.Fatal(err)
		}
		l, r := d.check(t, sound, dir, i%4 == 0)
		lost, repaired = lost+l, repaired+r
		if t.Failed() {
			t.Fatalf("damage %d: %s of %s", i, d.what, d.file)
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d damages; %d times a file was set aside; %d records lay on damaged pages and were lost", len(list), repaired, lost)
}

// sweep lists what can happen: to each sector, at each 64th byte, at each length.
func sweep(t *testing.T, rng *rand.Rand, sound string) (list []damage) {
	t.Helper()
	for _, path := range append(segmentsOf(t, sound), filepath.Join(sound, stateName), filepath.Join(sound, positionsName)) {
		file, size := filepath.Base(path), fileSize(path)
		add := func(what string, spoil func(t *testing.T, path string)) {
			list = append(list, damage{what, file, spoil})
		}
		for off := int64(0); off < size; off += sector {
			add(fmt.Sprint("zeroed sector at ", off), func(t *testing.T, path string) { write(t, path, off, make([]byte, sector)) })
			add(fmt.Sprint("length ", off), func(t *testing.T, path string) { truncate(t, path, off) })
			for bit := off; bit < off+sector; bit += 64 {
				at, flip := bit+rng.Int64N(64), byte(1)<<rng.IntN(8)
				add(fmt.Sprintf("bit %#x at %d", flip, at), func(t *testing.T, path string) { flipByte(t, path, at, flip) })
			}
		}
		for off := int64(0); off < size; off += pageSize {
			from := rng.Int64N(size/pageSize) * pageSize
			add(fmt.Sprintf("page %d is written to %d", from/pageSize, off/pageSize), func(t *testing.T, path string) { copyPage(t, path, from, off) })
		}
		add("missing file", remove)
		add("junk", func(t *testing.T, path string) { write(t, path, 0, bytes.Repeat([]byte("junk"), int(size/4))) })
	}
	return list
}

func flipByte(t *testing.T, path string, at int64, bits byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, at, []byte{content[at] ^ bits})
}

func copyPage(t *testing.T, path string, from, to int64) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, to, content[from:from+pageSize])
}

// check returns how many records are lost and how many files were set aside.
func (d damage) check(t *testing.T, sound, dir string, verify bool) (lost, repaired int) {
	t.Helper()
	victim := filepath.Join(dir, journalDir, d.file)
	if d.file == stateName || d.file == positionsName {
		victim = filepath.Join(dir, d.file)
	}
	d.spoil(t, victim)
	want := intact(t, sound, dir, func(path string) string { return path })
	log := &logLines{}
	seqs, errs := mustSurvive(t, dir, log)
	if lost := want.without(seqs); len(lost) > 0 || errs != nil {
		t.Errorf("%d records on sound pages are lost, as %v; %v", len(lost), lost[:min(len(lost), 10)], errs)
	}
	lost, repaired = damagedRecords-len(seqs), log.count("set aside")
	newest := filepath.Base(segmentsOf(t, sound)[len(segmentsOf(t, sound))-1])
	if lost > 0 && log.buf.Len() == 0 && (d.what != "missing file" || d.file == newest) { // another one's is told by who reads a queue to its end
		t.Errorf("%d records are lost, and nobody is told", lost)
	}
	checkRows(t, dir, log)
	d.checkQueue(t, dir, len(seqs), verify)
	return lost, repaired
}

// checkRows expects all that is not a record, unless somebody is told that it is
// lost.
func checkRows(t *testing.T, dir string, log *logLines) {
	t.Helper()
	s, err := Open(dir, Options{SegmentSize: small, Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	for _, table := range []string{"losses", "sessions", "t"} {
		rows := make(map[string]string)
		if err := s.Rows(table, into(rows)); err != nil || rows["k"] == "" && log.buf.Len() == 0 {
			t.Errorf("table %q has %v, %v, and nobody is told", table, rows, err)
		}
	}
	marks := make(map[string]string)
	if err := s.Marks(into(marks)); err != nil || marks["mark"] != "m" && log.buf.Len() == 0 {
		t.Errorf("the marks are %v, %v, and nobody is told", marks, err)
	}
}

// checkQueue opens the store once more: what was there is still there, and the
// queue says that it is owed no less.
func (d damage) checkQueue(t *testing.T, dir string, have int, verify bool) {
	t.Helper()
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	if again, _ := readDamaged(t, s); len(again) != have {
		t.Errorf("%d records were read, after a restart %d", have, len(again))
	}
	q := s.queues[1]
	if q.Pending < uint64(have) || q.Acked != 0 {
		t.Errorf("%d records are there, the queue says %+v", have, q)
	}
	var c *CorruptError
	if !verify || d.file == stateName {
		return
	}
	if err := s.Verify(); err != nil && (!errors.As(err, &c) || c.Seq == 0) { // a damaged record stays where it is
		t.Error(err)
	}
}

// Files of the journal that have each other's name, or one that nobody has: all
// records are there.
func TestSwappedSegments(t *testing.T) {
	sound := damaged(t, func(string, []string) {})
	n := len(segmentsOf(t, sound))
	for i := range n {
		for j := range n {
			dir := copyStore(t, sound)
			paths := segmentsOf(t, dir)
			a, b := paths[i], paths[j]
			if i == j {
				b = segmentPath(dir, uint64(900+i))
				if err := os.Rename(a, b); err != nil {
					t.Fatal(err)
				}
			} else if err := exchangeNames(a, b, true); err != nil {
				t.Fatal(err)
			}
			log := &logLines{}
			if seqs, _ := mustSurvive(t, dir, log); len(seqs) != damagedRecords {
				t.Fatalf("%s and %s: %d records are there; %s", a, b, len(seqs), log.buf.String())
			}
			if err := Verify(dir); err != nil || log.count("another") == 0 {
				t.Errorf("%v; %s", err, log.buf.String())
			}
		}
	}
}
