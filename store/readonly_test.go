package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// contents returns every file below dir with its bytes and the time of its last
// change.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = info.ModTime().Format(time.RFC3339Nano) + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// whileReading opens dir for reading, lets fn look, and expects that no file has
// changed.
func whileReading(t *testing.T, dir string, fn func(s *Store)) {
	t.Helper()
	before := contents(t, dir)
	s, err := OpenReadOnly(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	fn(s)
	closeTest(t, s)
	after := contents(t, dir)
	for path := range before {
		if before[path] != after[path] {
			t.Errorf("%s has changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("there were %d files, and are %d", len(before), len(after))
	}
}

func TestReadOnlyShowsAllAndChangesNothing(t *testing.T) {
	dir := damaged(t, func(string, []string) {})
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	leaveTmp(t, s, []byte("left over"))
	if _, err := OpenReadOnly(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("beside a writer: %v", err)
	}
	closeTest(t, s)
	whileReading(t, dir, func(s *Store) {
		if have := len(readAll(t, s, 1, 0, s.LastSeq())); have != damagedRecords || len(s.Queues()) != 1 {
			t.Errorf("%d records in %d queues", have, len(s.Queues()))
		}
		rows := make(map[string]string)
		if err := errors.Join(s.Rows("t", into(rows)), s.Marks(into(rows))); err != nil || rows["k"] != "the row" || rows["mark"] != "m" {
			t.Errorf("rows and marks %v, %v", rows, err)
		}
		if err := s.Commit(batchOf(s.LastSeq(), 1)); !errors.Is(err, ErrReadOnly) {
			t.Errorf("commit: %v", err)
		}
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
			t.Errorf("a writer beside it: %v", err)
		}
		other, err := OpenReadOnly(dir, Options{})
		if err != nil {
			t.Fatalf("another reader: %v", err)
		}
		closeTest(t, other)
	})
}

func TestReadOnlyPassesOverDamage(t *testing.T) {
	dir := damaged(t, func(_ string, segments []string) {
		for _, i := range []int{1, len(segments) - 1} {
			write(t, segments[i], 0, make([]byte, 4*pageSize))
		}
	})
	whileReading(t, dir, func(s *Store) {
		seqs, damage := readDamaged(t, s)
		if len(seqs) == 0 || len(damage) != 1 || s.Stats().FilesQuarantined != 2 {
			t.Errorf("%d records, %v, %d files passed over", len(seqs), damage, s.Stats().FilesQuarantined)
		}
	})
}

func TestReadOnlyNeedsAStore(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReadOnly(dir, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	if len(contents(t, dir)) != 0 {
		t.Error("it has made files")
	}
	dir = damaged(t, func(state string, _ []string) { write(t, state, 0, make([]byte, 2*pageSize)) })
	if _, err := OpenReadOnly(dir, Options{}); !isCorrupt(err) {
		t.Errorf("state.db is damaged: %v", err)
	}
	dir = damaged(t, func(_ string, segments []string) {
		for _, path := range segments {
			write(t, path, 0, make([]byte, 4*pageSize))
		}
	})
	if _, err := OpenReadOnly(dir, Options{}); !isCorrupt(err) {
		t.Errorf("all segments are damaged: %v", err)
	}
}
