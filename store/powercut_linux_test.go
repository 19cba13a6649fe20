package store

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

var powerCuts = flag.Int("powercuts", 500, "how many power cuts are tried")

const (
	tracedDir  = "TIDEGATE_STORE_TRACED_DIR"
	tracedSeed = "TIDEGATE_STORE_TRACED_SEED"

	// tracedBatches is how many batches a traced process commits, enough for
	// some segments to be sealed, rewritten and removed.
	tracedBatches = 60

	// cutsPerTrace is how many power cuts are tried on one process at most.
	cutsPerTrace = 1000
)

// A process works under strace; the power is cut before every sync it makes and
// at random moments between. Each time any part of what was not synced may be on
// the disk. The store opens, and holds all batches that were acknowledged, each
// as a whole, perhaps the one under way, and nothing else.
func TestPowerCutLosesNothing(t *testing.T) {
	seed := cmp.Or(*simSeed, uint64(time.Now().UnixNano()))
	t.Logf("go test -run %s -seed %d -powercuts %d", t.Name(), seed, *powerCuts)
	done, syncs := 0, 0
	for done < *powerCuts && !t.Failed() {
		p := tracePlan(t, seed)
		n, s := p.cutPower(t, min(cutsPerTrace, *powerCuts-done))
		done, syncs, seed = done+n, syncs+s, seed+1
	}
	t.Logf("%d power cuts, %d syncs", done, syncs)
}

// rewrittenLine is what a traced process prints in the end. Without a rewrite, a
// removal and a commit to the positions file the test would miss what it is for.
var rewrittenLine = regexp.MustCompile(`rewritten [1-9]\d*, removed [1-9]\d*, positions alone [1-9]\d*`)

// plan is what a traced process does.
type plan struct {
	root   string
	calls  []syscallLine
	out    []byte   // what it printed
	states []*model // after each number of batches
	rng    *rand.Rand
}

// tracePlan lets a process do the random work of seed under strace with options.
func tracePlan(t *testing.T, seed uint64, options ...string) *plan {
	t.Helper()
	p := &plan{root: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 1))}
	var err error
	p.calls, p.out, err = strace(t, "TestProcessThatIsTraced", []string{
		tracedDir + "=" + p.root, tracedSeed + "=" + strconv.FormatUint(seed, 10),
	}, options...)
	if err != nil || !rewrittenLine.Match(p.out) {
		t.Fatalf("the process failed: %v\n%s", err, p.out)
	}
	t.Logf("seed %d: %d system calls; %s", seed, len(p.calls), rewrittenLine.Find(p.out))
	m := newModel(seed)
	p.states = append(p.states, m.snapshot())
	for k := range tracedBatches {
		tracedBatch(m, k+1)
		p.states = append(p.states, m.snapshot())
	}
	return p
}

// snapshot is m as it is now; only its records go on.
func (m *model) snapshot() *model {
	return &model{
		last: m.last, records: m.records,
		queues: maps.Clone(m.queues), marks: maps.Clone(m.marks), rows: maps.Clone(m.rows),
	}
}

// tracedBatch makes up the batch k. Now and then everything is acknowledged, so
// that segments are removed.
func tracedBatch(m *model, k int) *Batch {
	if k%25 != 0 {
		_, b := m.batch()
		return b
	}
	b := &Batch{}
	for id, q := range m.queues {
		q.Acked, q.Pending = m.last, 0
		m.queues[id] = q
		b.Queues = append(b.Queues, q)
	}
	return b
}

// TestProcessThatIsTraced is the process of TestPowerCutLosesNothing and of
// TestFailingCallsLoseNothing. What is refused is tried again.
func TestProcessThatIsTraced(t *testing.T) {
	dir := os.Getenv(tracedDir)
	if dir == "" {
		t.Skip("runs only as a child process")
	}
	seed, err := strconv.ParseUint(os.Getenv(tracedSeed), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // strace counts the calls of each thread
	root, m := dir, newModel(seed)
	dir = filepath.Join(dir, "data", "store")
	s := openTraced(t, dir)
	rewritten, removed := uint64(0), uint64(0)
	count := func() {
		rewritten += s.Stats().SegmentsRewritten
		removed += s.Stats().SegmentsRemoved
	}
	for k := 1; k <= tracedBatches; k++ {
		b := tracedBatch(m, k)
		insist(t, "batch", func() error { return s.Commit(b) })
		fmt.Println("committed", k)
		switch {
		case k%12 == 3:
			insist(t, "compact", func() error { _, err := s.Compact(t.Context(), halves{}); return err })
		case k%12 == 5:
			insist(t, "backup", func() error { return backUp(s, root) })
			fmt.Println("backed up", k)
		case k%12 == 8:
			insist(t, "rewrite", func() error { _, err := s.Rewrite(m.last/2, halves{}.Keep); return err })
		case k%20 == 19:
			count()
			closeTest(t, s)
			s = openTraced(t, dir)
		}
	}
	count()
	closeTest(t, s)
	fmt.Printf("rewritten %d, removed %d, positions alone %d\n", rewritten, removed, s.positions.count)
}

func openTraced(t *testing.T, dir string) (s *Store) {
	insist(t, "open", func() (err error) {
		s, err = Open(dir, Options{SegmentSize: small, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))})
		return err
	})
	return s
}

// insist calls fn until it works and prints why it does not.
func insist(t *testing.T, what string, fn func() error) {
	for range 20 {
		err := fn()
		if err == nil || errors.Is(err, ErrActive) {
			return
		}
		fmt.Printf("%s refused: %v\n", what, err)
	}
	t.Fatalf("%s: refused for ever", what)
}

// cutPower tries n power cuts, at least one of them before every sync if n
// suffices. It returns how many there were and how many syncs.
func (p *plan) cutPower(t *testing.T, n int) (cuts, syncs int) {
	t.Helper()
	at := make(map[int]int) // how many cuts before each call
	for i, c := range p.calls {
		if c.syncs() {
			at[i]++
			syncs++
		}
	}
	left := n - syncs
	if left < 0 {
		clear(at)
		left = n
	}
	for ; left > 0; left-- {
		at[p.rng.IntN(len(p.calls)+1)]++
	}
	d, acked, backed, scratch := newDisk(p.root, p.rng), 0, 0, scratchDir(t)
	for i, c := range append(slices.Clone(p.calls), syscallLine{result: -1}) {
		for ; at[i] > 0; at[i]-- {
			dir := filepath.Join(scratch, strconv.Itoa(cuts))
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			d.cut(t, dir)
			if err := p.check(t, filepath.Join(dir, "data", "store"), acked); err != nil {
				t.Fatalf("power cut %d, before call %d, %s, with %d batches acknowledged: %v", cuts, i, c.name, acked, err)
			}
			if err := p.checkBackup(dir, backed); err != nil {
				t.Fatalf("power cut %d, before call %d, %s, after a backup of %d batches: %v", cuts, i, c.name, backed, err)
			}
			os.RemoveAll(dir)
			cuts++
		}
		if k, ok := c.printed("committed "); ok {
			acked = k
		}
		if k, ok := c.printed("backed up "); ok {
			backed = k
		}
		d.play(c)
	}
	if acked != tracedBatches {
		t.Errorf("%d batches were seen, want %d", acked, tracedBatches)
	}
	return cuts, syncs
}

// scratchDir returns a directory in memory if there is one: a thousand stores
// are written to it.
func scratchDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "tidegate")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// check opens the store that the power cut left.
func (p *plan) check(t *testing.T, dir string, acked int) error {
	log := &logLines{}
	s, err := Open(dir, Options{SegmentSize: small, Log: log.logger()})
	if err != nil {
		return err
	}
	err = p.checkOpen(s, acked)
	if err == nil {
		err = goOn(s)
	}
	if st := s.Stats(); err == nil && log.buf.Len() > 0 {
		err = fmt.Errorf("it found damage (%+v): %s", st, log.buf.String())
	}
	err = errors.Join(err, s.Close())
	if p.rng.IntN(4) == 0 { // it takes as long as all the rest
		verifyExact(t, dir)
	}
	return err
}

// checkOpen looks for the acknowledged batches, and perhaps one more. Its rows
// come before the rest.
func (p *plan) checkOpen(s *Store, acked int) error {
	states := p.states[acked:min(acked+2, len(p.states))]
	var errs []error
	for i, journal := range states {
		err := errors.Join(journal.compareJournal(s), journal.compareMarks(s), journal.compareOwed(s))
		if err == nil && journal.compareRows(s) != nil && len(states) > 1 {
			err = states[1].compareRows(s)
			if i == 1 {
				err = errors.New("the last batch is there without its rows")
			}
		}
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("not batch %d: %w", acked+i, err))
	}
	return errors.Join(errs...)
}

// compareOwed reads all that every queue is owed.
func (m *model) compareOwed(s *Store) error {
	for id, q := range m.queues {
		var have []got
		err := s.Read(id, q.Acked, s.LastSeq(), func(seq uint64, tag uint32, data []byte) bool {
			have = append(have, got{seq, tag, string(data)})
			return true
		})
		have = slices.DeleteFunc(have, func(g got) bool { return !(halves{}).Keep(g.seq, Owner{id, g.tag}, nil) })
		if want := m.kept(id, q.Acked); err != nil || !slices.Equal(want, have) {
			return fmt.Errorf("queue %d reads %d records, want %d (%v)", id, len(have), len(want), err)
		}
	}
	return nil
}

// thinned is a queue that has given up every second of its records.
const thinned = 5

// halves says what queues still need.
type halves struct{}

func (halves) Keep(_ uint64, o Owner, _ []byte) bool { return o.Queue != thinned || o.Tag%2 == 0 }

func (halves) Share(queue uint32, _, _ uint64) float64 {
	if queue == thinned {
		return 0.5
	}
	return 1
}

// kept returns what a queue has to read behind after.
func (m *model) kept(queue uint32, after uint64) []got {
	return slices.DeleteFunc(m.owed(queue, after, m.last), func(g got) bool { return !(halves{}).Keep(g.seq, Owner{queue, g.tag}, nil) })
}

const backupName = "backup"

// backUp puts a backup of the store into dir, in place of the one before.
func backUp(s *Store, dir string) error {
	var archive bytes.Buffer
	m, err := s.Backup(&archive, BackupInfo{})
	if err == nil && len(m.Lacks) > 0 {
		err = fmt.Errorf("the backup lacks %v", m.Lacks)
	}
	if err != nil {
		return err
	}
	aside := filepath.Join(dir, backupName+".new")
	f, err := os.OpenFile(aside, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(archive.Bytes(), 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(aside, filepath.Join(dir, backupName)); err != nil {
		return err
	}
	return syncDir(dir)
}

// checkBackup restores the backup that the power cut left, now and then, and looks
// for the batches that had been committed. The next one may be there instead.
func (p *plan) checkBackup(dir string, backed int) error {
	if p.rng.IntN(8) > 0 { // it takes longer than all the rest
		return nil
	}
	f, err := os.Open(filepath.Join(dir, backupName))
	if errors.Is(err, fs.ErrNotExist) && backed == 0 {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	to := filepath.Join(dir, "restored")
	if _, err := Restore(f, to); err != nil {
		return err
	}
	s, err := Open(to, Options{SegmentSize: small})
	if err != nil {
		return err
	}
	err = p.states[max(backed, 5)].compareAll(s)
	if next := backed + 12; err != nil && backed > 0 && next < len(p.states) {
		err = p.states[next].compareAll(s)
	}
	return errors.Join(err, s.Close())
}

func (m *model) compareAll(s *Store) error {
	return errors.Join(m.compareJournal(s), m.compareMarks(s), m.compareOwed(s), m.compareRows(s))
}

// goOn commits something more and reads it.
func goOn(s *Store) error {
	last := s.LastSeq()
	b := &Batch{
		Records: []Record{{Seq: last + 1, Owners: []Owner{{99, 3}}, Data: []byte("new")}},
		Queues:  []Queue{{ID: 99, Acked: last, Pending: 1}},
	}
	if err := s.Commit(b); err != nil {
		return err
	}
	seen := 0
	err := s.Read(99, last, last+1, func(_ uint64, _ uint32, data []byte) bool {
		if string(data) == "new" {
			seen++
		}
		return true
	})
	if err != nil || seen != 1 {
		return fmt.Errorf("the new record was read %d times (%v)", seen, err)
	}
	return nil
}
