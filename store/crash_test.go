package store

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// crashDir names the directory in the environment of the process that is killed.
const crashDir = "TIDEGATE_STORE_CRASH_DIR"

// A process that commits as fast as it can, prints each number once it is
// committed, and is killed at some point, has lost nothing of what it printed.
func TestKilledProcessLosesNothing(t *testing.T) {
	dir, last := t.TempDir(), uint64(0)
	for round := range 30 {
		printed := runAndKill(t, dir, 5+(round*37)%120)
		if printed < last {
			t.Fatalf("round %d: the process went back from %d to %d", round, last, printed)
		}
		verifyExact(t, dir)
		s, err := Open(dir, Options{SegmentSize: small})
		if err != nil {
			t.Fatal(err)
		}
		last = checkCrashed(t, s, printed)
		closeTest(t, s)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// runAndKill lets the process print lines lines and returns the last number.
func runAndKill(t *testing.T, dir string, lines int) (printed uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestProcessThatIsKilled$", "-test.v")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		text, ok := strings.CutPrefix(in.Text(), "committed ")
		if !ok {
			continue
		}
		if printed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
		if lines--; lines == 0 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // says that it was killed
	if lines > 0 {
		t.Fatalf("the process ended by itself, %d lines early", lines)
	}
	return printed
}

// checkCrashed checks that all that was printed is there. What was committed and
// not printed may be there too, whole.
func checkCrashed(t *testing.T, s *Store, printed uint64) (last uint64) {
	t.Helper()
	last = s.LastSeq()
	q := s.Queues()[0]
	if last < printed || q.Acked+q.Pending != last || printed >= 600 && q.Acked < printed-595 {
		t.Errorf("%d was printed, %d is the last record, queue %+v", printed, last, q)
	}
	want := q.Acked + 1
	for _, r := range readAll(t, s, 1, q.Acked, last) {
		if r.seq != want || r.data != crashData(r.seq) {
			t.Errorf("record %d came, want %d", r.seq, want)
			return last
		}
		want++
	}
	if want != last+1 {
		t.Errorf("records end before %d, want up to %d", want, last)
	}
	if n, _ := strconv.Atoi(row(t, s)); uint64(n) < printed {
		t.Errorf("%d was printed, the row says %d", printed, n)
	}
	return last
}

func row(t *testing.T, s *Store) (value string) {
	t.Helper()
	err := s.Rows("t", func(_, v []byte) error { value = string(v); return nil })
	if err != nil {
		t.Error(err)
	}
	return value
}

func crashData(seq uint64) string { return strings.Repeat(fmt.Sprintf("%d ", seq), 60) }

// TestProcessThatIsKilled is the process of TestKilledProcessLosesNothing.
func TestProcessThatIsKilled(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("runs only as a child process")
	}
	s, err := Open(dir, Options{SegmentSize: small})
	if err != nil {
		t.Fatal(err)
	}
	for {
		last := s.LastSeq()
		b := &Batch{}
		for i := range uint64(7) {
			seq := last + 1 + i
			b.Records = append(b.Records, Record{Seq: seq, Owners: []Owner{{1, 0}}, Data: []byte(crashData(seq))})
		}
		last += 7
		acked := last - min(last, 600) // some segments behind, so that some are removed
		b.Queues = []Queue{{ID: 1, Acked: acked, Pending: last - acked}}
		b.Rows = []Row{{Table: "t", Key: []byte("k"), Value: strconv.AppendUint(nil, last, 10)}}
		commit(t, s, b)
		if acked += 5; acked <= last {
			commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: acked, Pending: last - acked}}})
		}
		fmt.Println("committed", last)
	}
}

// What a crash between the steps of starting another segment leaves behind.
func TestCrashWhileRolling(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, s *Store){
		"sealed, next one not begun": func(t *testing.T, s *Store) {
			if err := s.seal(); err != nil {
				t.Fatal(err)
			}
		},
		"next one is an empty file beside it": func(t *testing.T, s *Store) {
			leaveTmp(t, s, nil)
		},
		"next one is half written beside it": func(t *testing.T, s *Store) {
			leaveTmp(t, s, make([]byte, 3*pageSize))
		},
		"next one in place, this one without summary": func(t *testing.T, s *Store) {
			s.tail.suspect = true
			if err := s.roll(); err != nil {
				t.Fatal(err)
			}
		},
		"next one in place, nothing in it": func(t *testing.T, s *Store) {
			if err := s.roll(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir, Options{SegmentSize: small})
			commit(t, s, batchOf(0, 400))
			commit(t, s, batchOf(400, 100))
			commit(t, s, &Batch{Marks: []Row{{Key: []byte("m"), Value: []byte("v")}}})
			leave(t, s)
			closeTest(t, s)
			s = openTest(t, dir, Options{SegmentSize: small})
			commit(t, s, batchOf(500, 100))
			closeTest(t, s)
			s = openTest(t, dir, Options{SegmentSize: small})
			checkRolled(t, dir, s)
		})
	}
}

func checkRolled(t *testing.T, dir string, s *Store) {
	t.Helper()
	if n := len(readAll(t, s, 1, 0, 600)); n != 600 {
		t.Errorf("%d of 600 records are there", n)
	}
	if q := s.Queues(); len(q) != 1 || q[0].Pending != 600 {
		t.Errorf("queues %+v", q)
	}
	marks := 0
	if err := s.Marks(func(_, _ []byte) error { marks++; return nil }); err != nil || marks != 1 {
		t.Errorf("%d marks, %v", marks, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, journalDir, "*"+tmpSuffix)); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if st := s.Stats(); st.FilesQuarantined > 0 {
		t.Errorf("%d files were set aside", st.FilesQuarantined)
	}
}

// leaveTmp writes the file beside which the next segment would be made.
func leaveTmp(t *testing.T, s *Store, content []byte) {
	t.Helper()
	if err := s.seal(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segmentPath(s.dir, s.LastSeq()+1)+tmpSuffix, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The disk fails at the very last step of a commit: bbolt shows it, and it was
// refused. Nothing of it shows afterwards, not now, not after a restart, and not
// after the next segment was begun and the process ended before it was tried again.
func TestRefusedCommitLeavesNoMarks(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *Store){
		"the process goes on":                  func(*testing.T, *Store) {},
		"the process ends":                     func(t *testing.T, s *Store) { closeTest(t, s) },
		"the process ends after the next roll": func(t *testing.T, s *Store) { rollTest(t, s); closeTest(t, s) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir, Options{SegmentSize: small})
			before := batchOf(0, 10)
			before.Marks = []Row{{Key: []byte("stays"), Value: []byte("v")}, {Key: []byte("is to go"), Value: []byte("v")}}
			commit(t, s, before)
			refused := batchOf(10, 5)
			refused.Marks = []Row{{Key: []byte("is new"), Value: []byte("v")}, {Key: []byte("is to go")}}
			failLast(t, s, refused)
			if end(t, s); s.isClosed() {
				s = openTest(t, dir, Options{SegmentSize: small})
			}
			checkRefused(t, s)
			commit(t, s, refused)
			if have := marksOf(t, s); len(have) != 2 || have["is new"] != "v" || s.LastSeq() != 15 {
				t.Errorf("after the retry the marks are %v, the last record %d", have, s.LastSeq())
			}
		})
	}
}

// failLast writes b as Commit does when the last sync fails.
func failLast(t *testing.T, s *Store, b *Batch) {
	t.Helper()
	next := s.tail
	err := next.file.update(func(tx *bolt.Tx) error {
		return errors.Join(s.putRecords(tx, &next, b.Records), putQueues(tx, b.Queues), putMarks(tx, b.Marks))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.doubt(syscall.EIO)
}

func rollTest(t *testing.T, s *Store) {
	t.Helper()
	if err := s.roll(); err != nil {
		t.Fatal(err)
	}
}

func checkRefused(t *testing.T, s *Store) {
	t.Helper()
	if have := marksOf(t, s); len(have) != 2 || have["stays"] != "v" || have["is to go"] != "v" {
		t.Errorf("the marks are %v", have)
	}
	if have := len(readAll(t, s, 1, 0, math.MaxUint64)); have != 10 || s.LastSeq() != 10 || s.Queues()[0].Pending != 10 {
		t.Errorf("%d records, last %d, queue %+v", have, s.LastSeq(), s.Queues()[0])
	}
}

func marksOf(t *testing.T, s *Store) map[string]string {
	t.Helper()
	marks := make(map[string]string)
	if err := s.Marks(into(marks)); err != nil {
		t.Error(err)
	}
	return marks
}
