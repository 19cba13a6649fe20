package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The newest segment is damaged, or all of the journal is gone, and the disk is full:
// the store opens, what parses can be read, and nothing is taken. With room again the
// next commit works, and all that was there still is.
func TestDamageOnAFullDisk(t *testing.T) {
	sound := damaged(t, func(string, []string) {})
	for name, spoil := range map[string]func(t *testing.T, segments []string){
		"the newest segment is cut":  func(t *testing.T, s []string) { spoilHalf(t, s[len(s)-1]) },
		"its root is a cycle":        func(t *testing.T, s []string) { spoilCycle(t, s[len(s)-1]) },
		"its last commit is damaged": func(t *testing.T, s []string) { zeroRoot(t, s[len(s)-1]) },
		"all segments are zeroed": func(t *testing.T, s []string) {
			for _, path := range s {
				write(t, path, 0, make([]byte, fileSize(path)))
			}
		},
		"all segments are missing": func(t *testing.T, s []string) {
			for _, path := range s {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fullDisk(t, sound, func(dir string) { spoil(t, segmentsOf(t, dir)) })
			want := intact(t, sound, dir, func(path string) string { return path })
			log := &logLines{}
			s := openTest(t, dir, Options{SegmentSize: small, Log: log.logger()})
			marks := make(map[string]string)
			if err := s.Marks(into(marks)); err != nil || len(want) > 0 && marks["mark"] != "m" {
				t.Errorf("the marks are %v, %v", marks, err)
			}
			check := func() {
				t.Helper()
				if seqs, errs := readDamaged(t, s); len(want.without(seqs)) > 0 || len(errs) > 0 {
					t.Errorf("%v of %d records on sound pages are missing; %v", want.without(seqs), len(want), errs)
				}
			}
			check()
			queues, last := s.Queues(), s.LastSeq()
			b := &Batch{Records: []Record{{Seq: last + 1, Owners: []Owner{{1, 0}}, Data: []byte(crashData(last + 1))}}}
			for _, q := range queues {
				q.Pending++
				b.Queues = append(b.Queues, q)
			}
			for range 3 {
				if err := s.Commit(b); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("commit on the full disk: %v", err)
				}
			}
			if st := s.Stats(); !st.Unrepaired || log.count("no room for the newest segment") != 1 || s.Verify() == nil {
				t.Errorf("%+v; log: %s", st, log.buf.String())
			}
			if err := os.Remove(filepath.Join(filepath.Dir(dir), "ballast")); err != nil {
				t.Fatal(err)
			}
			commit(t, s, b)
			want[last+1] = true
			check()
			if st := s.Stats(); st.Unrepaired || st.LastSeq != last+1 || !slices.EqualFunc(b.Queues, s.Queues(), sameQueue) {
				t.Errorf("%+v; queues %+v, want %+v", st, s.Queues(), b.Queues)
			}
			closeTest(t, s)
			s = openTest(t, dir, Options{SegmentSize: small})
			check()
		})
	}
}

// state.db is damaged or gone, and the disk is full: the store opens, no other process
// can have it, rows that parse can be read, and queues drain. Rows are taken when there
// is room, without a new start.
func TestDamagedStateOnAFullDisk(t *testing.T) {
	sound := damaged(t, func(string, []string) {})
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		rows  string // what still parses of three tables
	}{
		"a meta page is damaged": {func(t *testing.T, path string) { write(t, path, pageSize+16+56, []byte{0, 1, 2, 3}) }, "a loss, a session, the row"},
		"its root is zeroed":     {zeroRoot, ""},
		"it is empty":            {func(t *testing.T, path string) { write(t, path, 0, make([]byte, fileSize(path))) }, ""},
		"it is missing": {func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fullDisk(t, sound, func(dir string) { c.spoil(t, filepath.Join(dir, stateName)) })
			log := &logLines{}
			s := openTest(t, dir, Options{SegmentSize: small, Log: log.logger()})
			if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
				t.Errorf("opened once more: %v", err)
			}
			if st := s.Stats(); !st.Unrepaired || !st.StateLost || log.count("no room for state.db") != 1 || s.Verify() == nil {
				t.Errorf("%+v; log: %s", st, log.buf.String())
			}
			if _, err := s.Backup(io.Discard, BackupInfo{}); !errors.Is(err, ErrNoState) {
				t.Errorf("backup: %v", err)
			}
			before := rowsOf(t, s)
			if before != c.rows && c.rows != "" {
				t.Errorf("the rows are %q, want %q", before, c.rows)
			}
			if have := readAll(t, s, 1, 0, math.MaxUint64); len(have) != damagedRecords {
				t.Errorf("%d records can be read, want %d", len(have), damagedRecords)
			}
			row := &Batch{Rows: []Row{{Table: "t", Key: []byte("new"), Value: []byte("new")}}}
			for range 3 {
				if err := s.Commit(row); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrNoState) {
					t.Errorf("commit of a row on the full disk: %v", err)
				}
			}
			commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: 5, Pending: damagedRecords - 5}}}) // a queue drains
			if err := os.Remove(filepath.Join(filepath.Dir(dir), "ballast")); err != nil {
				t.Fatal(err)
			}
			commit(t, s, row)
			if st := s.Stats(); st.Unrepaired || st.StateRebuilt != 1 || s.Verify() != nil {
				t.Errorf("%+v; %v", st, s.Verify())
			}
			closeTest(t, s)
			s = openTest(t, dir, Options{SegmentSize: small})
			if after := rowsOf(t, s); after != strings.TrimPrefix(before+", new", ", ") {
				t.Errorf("the rows are %q, were %q", after, before)
			}
			if q := s.Queues()[0]; q.Acked != 5 {
				t.Errorf("the queue is %+v", q)
			}
		})
	}
}

// rowsOf are the values of the rows of three tables.
func rowsOf(t *testing.T, s *Store) string {
	t.Helper()
	var list []string
	for _, table := range []string{"losses", "sessions", "t"} {
		err := s.Rows(table, func(_, value []byte) error { list = append(list, string(value)); return nil })
		if err != nil {
			t.Error(err)
		}
	}
	return strings.Join(list, ", ")
}

// What damage a commit finds on a full disk waits there, too; a queue that has no rows
// to write drains until there is room, and then nobody has to commit a row.
func TestStateIsDamagedWhileTheDiskIsFull(t *testing.T) {
	dir := fullDisk(t, damaged(t, func(string, []string) {}), func(string) {})
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, dir, Options{SegmentSize: small})
		zeroRoot(t, filepath.Join(dir, stateName))
		row := &Batch{Rows: []Row{{Table: "t", Key: []byte("new"), Value: []byte("new")}}}
		for range 3 {
			if err := s.Commit(row); !errors.Is(err, ErrNoState) || !s.Stats().Unrepaired {
				t.Errorf("commit of a row: %v, %+v", err, s.Stats())
			}
		}
		if err := os.Remove(filepath.Join(filepath.Dir(dir), "ballast")); err != nil {
			t.Fatal(err)
		}
		runOnce(t, s)
		if s.Stats().Unrepaired {
			t.Error("state.db waits for a commit although there is room")
		}
		commit(t, s, row)
		if got := rowsOf(t, s); !strings.Contains(got, "new") {
			t.Errorf("the rows are %q", got)
		}
	})
}

// runOnce lets the store do once what it does from time to time, in virtual time.
func runOnce(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { s.Run(ctx, func() Owed { return nil }) })
	time.Sleep(s.every)
	synctest.Wait()
	cancel()
	ended.Wait()
}

// A directory that is empty is not begun on a full disk: a journal without state.db
// would look like damage to whoever comes next.
func TestNothingBeginsOnAFullDisk(t *testing.T) {
	dir := fullDisk(t, t.TempDir(), func(string) {})
	s, err := Open(dir, Options{Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("opened: %v, want %v", err, syscall.ENOSPC)
	}
	if segments, _ := filepath.Glob(filepath.Join(dir, journalDir, "*")); len(segments) > 0 {
		t.Errorf("it has begun %q", segments)
	}
}

// Sealed segments are damaged and the disk is full: what parses of them is read where
// it lies, one after the other, and written anew when there is room.
func TestDamagedSealedSegmentsOnAFullDisk(t *testing.T) {
	sound := damaged(t, func(string, []string) {})
	dir := fullDisk(t, sound, func(dir string) {
		segments := segmentsOf(t, dir)
		spoilCycle(t, segments[0])
		spoilHalf(t, segments[1])
	})
	want := intact(t, sound, dir, func(path string) string { return path })
	synctest.Test(t, func(t *testing.T) {
		log := &logLines{}
		s := openTest(t, dir, Options{SegmentSize: small, Log: log.logger()})
		check := func() {
			t.Helper()
			if seqs, errs := readDamaged(t, s); len(want.without(seqs)) > 0 || len(errs) > 0 {
				t.Errorf("%v of %d records on sound pages are missing; %v", want.without(seqs), len(want), errs)
			}
		}
		var readers sync.WaitGroup
		for range 3 { // they take what is known of a segment from each other
			readers.Go(check)
		}
		readers.Wait()
		if n := log.count("no room to write a damaged segment anew"); n != 2 || s.Stats().FilesQuarantined != 0 {
			t.Errorf("the log has %d lines; %+v", n, s.Stats())
		}
		if err := os.Remove(filepath.Join(filepath.Dir(dir), "ballast")); err != nil {
			t.Fatal(err)
		}
		runOnce(t, s)
		if n := s.Stats().FilesQuarantined; n != 2 || s.Verify() != nil {
			t.Errorf("%d files were set aside, want 2; %v", n, s.Verify())
		}
		check()
	})
}

// What is read as it is goes with its last record, and its file with it.
func TestDamagedSealedSegmentIsReleased(t *testing.T) {
	dir := fullDisk(t, damaged(t, func(string, []string) {}), func(dir string) { spoilCycle(t, segmentsOf(t, dir)[0]) })
	s := openTest(t, dir, Options{SegmentSize: small})
	readDamaged(t, s)
	u := s.sealedAsIs
	if u == nil {
		t.Fatal("no segment is read as it is")
	}
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: damagedRecords - 1, Pending: 1}}})
	if _, err := os.Stat(u.path); !errors.Is(err, fs.ErrNotExist) || s.sealedAsIs != nil || !u.closed {
		t.Errorf("%q is there: %v; closed: %v", u.path, err, u.closed)
	}
}

func sameQueue(a, b Queue) bool {
	return a.ID == b.ID && a.Acked == b.Acked && a.Pending == b.Pending && string(a.Note) == string(b.Note)
}

// fullDisk returns a copy of the store in sound on a file system of its own, which is
// spoilt and then filled.
func fullDisk(t *testing.T, sound string, spoil func(dir string)) (dir string) {
	t.Helper()
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("cannot mount a small file system (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil { // after a fault a map stays
			t.Error(err)
		}
	})
	dir = filepath.Join(root, "store")
	if err := os.CopyFS(dir, os.DirFS(sound)); err != nil {
		t.Fatal(err)
	}
	spoil(dir)
	f, err := os.Create(filepath.Join(root, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, pageSize); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return dir
}
