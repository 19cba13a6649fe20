package store

import (
	"math"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mustHeal commits until the disk is full, which must be a clear error without a
// trace, acknowledges something on the full disk, and goes on with room again.
func mustHeal(t *testing.T, s *Store, want syscall.Errno, makeRoom func()) {
	t.Helper()
	var refused *Batch
	for refused == nil {
		last := s.LastSeq()
		b := batchOf(last, 50)
		b.Marks = []Row{{Key: []byte("last"), Value: seqKey(last + 50)}}
		if err := s.Commit(b); err != nil {
			t.Logf("full at record %d: %v", last, err)
			if !strings.Contains(err.Error(), want.Error()) { // bbolt does not wrap all errors
				t.Fatalf("the error does not say %v", want)
			}
			refused = b
		}
	}
	last := s.LastSeq()
	for range 3 {
		if err := s.Commit(refused); err == nil {
			t.Fatal("the batch was taken though the disk is full")
		}
	}
	checkNoTrace(t, s, last)
	makeRoom()
	commit(t, s, refused)
	if have := readAll(t, s, 1, 0, math.MaxUint64); uint64(len(have)) != last+50 || s.LastSeq() != last+50 {
		t.Errorf("%d records, last %d, want %d", len(have), s.LastSeq(), last+50)
	}
	if st := s.Stats(); st.FailedCommits != 4 || st.LastCommitFailure != nil {
		t.Errorf("%d commits failed, the last: %v", st.FailedCommits, st.LastCommitFailure)
	}
}

// checkNoTrace checks that last is the last thing to be seen.
func checkNoTrace(t *testing.T, s *Store, last uint64) {
	t.Helper()
	if have := readAll(t, s, 1, 0, math.MaxUint64); uint64(len(have)) != last || s.Queues()[0].Pending != last {
		t.Errorf("%d records are visible and %d pending, %d were committed", len(have), s.Queues()[0].Pending, last)
	}
	err := s.Marks(func(_, v []byte) error {
		if string(v) != string(seqKey(last)) {
			t.Errorf("the mark says %x, want %x", v, last)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// The kernel refuses files above a size. The limit holds for the process, so the
// test must not run beside others that write.
func TestFileLimitHeals(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, t.TempDir(), Options{})
	limited := old
	limited.Cur = 3 << 20
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Skipf("cannot limit the size of files: %v", err)
	}
	makeRoom := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}
	defer makeRoom()
	mustHeal(t, s, syscall.EFBIG, makeRoom)
}

// A real full disk, within a segment and where the next one would start.
func TestFullDiskHeals(t *testing.T) {
	for name, o := range map[string]Options{"in a segment": {}, "between segments": {SegmentSize: small}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
				t.Skipf("cannot mount a small file system (needs root): %v", err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
			s := openTest(t, filepath.Join(dir, "store"), o)
			mustHeal(t, s, syscall.ENOSPC, func() {
				if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A backlog can be acknowledged, and its space comes back, while the disk is full.
func TestFullDiskDrains(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a small file system (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := openTest(t, filepath.Join(dir, "store"), Options{SegmentSize: small})
	for s.Commit(batchOf(s.LastSeq(), 20)) == nil {
		continue
	}
	last := s.LastSeq()
	for acked := uint64(1); acked < last/2; acked++ {
		commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: acked, Pending: last - acked}}})
	}
	commit(t, s, &Batch{
		Records: []Record{{Seq: last + 1, Owners: []Owner{{1, 0}}, Data: []byte("new")}},
		Queues:  []Queue{{ID: 1, Acked: last / 2, Pending: last + 1 - last/2}},
	})
}
