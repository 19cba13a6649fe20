package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
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
		if err := syscall.Unmount(root, 0); err != nil {
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
