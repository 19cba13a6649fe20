package store

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// everything is all that a store hands out, as text.
func everything(t *testing.T, s *Store) string {
	t.Helper()
	rows := make(map[string]string)
	if err := errors.Join(s.Rows("t", into(rows)), s.Marks(into(rows))); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&b, "%q %q\n", k, rows[k])
	}
	for _, q := range s.Queues() {
		fmt.Fprintf(&b, "%+v\n%v\n", q, readAll(t, s, q.ID, q.Acked, s.LastSeq()))
	}
	return b.String()
}

// put makes a file that is none of the store's.
func put(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func ackAll(t *testing.T, s *Store) {
	t.Helper()
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: s.LastSeq()}}})
}

// backedUp returns a store's archive.
func backedUp(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	m, err := s.Backup(&b, BackupInfo{Gateway: "g", Version: "v"})
	if err != nil || len(m.Lacks) > 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	return b.Bytes()
}

// An archive is the store at the moment when it was begun, whatever becomes of the
// files while it is taken: commits go on, segments are begun, removed, rewritten.
func TestBackupIsOneMoment(t *testing.T) {
	dir := damaged(t, func(string, []string) {})
	put(t, filepath.Join(dir, "clock.json"))
	s := openTest(t, dir, Options{SegmentSize: 4 * small})
	want := everything(t, s)
	r, w := io.Pipe()
	took := make(chan error, 1)
	go func() {
		_, err := s.Backup(w, BackupInfo{})
		took <- errors.Join(err, w.Close())
	}()
	var got bytes.Buffer
	if _, err := io.CopyN(&got, r, 600); err != nil { // it has begun
		t.Fatal(err)
	}
	before := segmentsOf(t, dir)
	commit(t, s, &Batch{Rows: []Row{{Table: "t", Key: []byte("later"), Value: []byte("x")}}, Marks: []Row{{Key: []byte("mark")}}})
	for range 40 {
		commit(t, s, batchOf(s.LastSeq(), 100))
	}
	ackAll(t, s)
	for _, path := range before {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there: nothing was tried", path)
		}
	}
	if _, err := io.Copy(&got, r); err != nil {
		t.Fatal(err)
	}
	if err := <-took; err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "new")
	done, err := Restore(&got, to)
	if err != nil || done.Report.Err() != nil {
		t.Fatalf("%+v, %v", done, err)
	}
	verifyExact(t, to)
	if _, err := os.Stat(filepath.Join(to, "clock.json")); err != nil {
		t.Error(err)
	}
	restored := openTest(t, to, Options{SegmentSize: small})
	if have := everything(t, restored); have != want {
		t.Errorf("restored\n%.2000s\nwant\n%.2000s", have, want)
	}
	commit(t, restored, batchOf(restored.LastSeq(), 10))
}

// A store that is open for reading only gives the same archive.
func TestBackupOfAStoppedStore(t *testing.T) {
	dir := damaged(t, func(string, []string) {})
	var archive []byte
	var want string
	whileReading(t, dir, func(s *Store) { archive, want = backedUp(t, s), everything(t, s) })
	to := t.TempDir()
	if _, err := Restore(bytes.NewReader(archive), to); err != nil {
		t.Fatal(err)
	}
	if have := everything(t, openTest(t, to, Options{SegmentSize: small})); have != want {
		t.Error("the restored store has something else")
	}
}

// Whatever is missing or wrong in an archive: it is refused, and the directory is as
// it was; or what was changed meant nothing.
func TestDamagedArchivesAreRefused(t *testing.T) {
	dir := damaged(t, func(string, []string) {})
	s := openTest(t, dir, Options{SegmentSize: small})
	sound, want := backedUp(t, s), everything(t, s)
	rng := rand.New(rand.NewPCG(1, 2))
	try := func(what string, archive []byte) {
		t.Helper()
		to := filepath.Join(t.TempDir(), "new")
		_, err := Restore(bytes.NewReader(archive), to)
		if err == nil {
			s, err := OpenReadOnly(to, Options{})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			defer closeTest(t, s)
			if everything(t, s) != want {
				t.Errorf("%s: it was taken", what)
			}
			return
		}
		if _, statErr := os.Lstat(to); !errors.Is(err, ErrBadArchive) || !errors.Is(statErr, os.ErrNotExist) {
			t.Errorf("%s: %v, %v", what, err, statErr)
		}
	}
	for range 20 {
		n := rng.IntN(len(sound) - 2048)
		try(fmt.Sprintf("cut off at %d", n), sound[:n])
		flipped := bytes.Clone(sound)
		flipped[n] ^= 1 << rng.IntN(8)
		try(fmt.Sprintf("a bit at %d", n), flipped)
	}
	manifest := bytes.LastIndex(sound, []byte(manifestName)) &^ 511
	try("without its list", append(bytes.Clone(sound[:manifest]), make([]byte, 1024)...))
	try("empty", nil)
	try("no archive", []byte(strings.Repeat("zzz", 1000)))
	if _, m, err := CheckArchive(bytes.NewReader(sound)); err != nil || len(m.Files) < 4 {
		t.Errorf("the sound one: %+v, %v", m, err)
	}
}

// archiveOf makes an archive of one file.
func archiveOf(t *testing.T, format int, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	info, _ := json.Marshal(BackupInfo{Format: format})
	for _, f := range []struct{ name, text string }{{infoName, string(info)}, {name, "x"}, {manifestName, "{}"}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchivesOfStrangersAreRefused(t *testing.T) {
	for _, name := range []string{
		"data/../evil", "data//etc/passwd", "evil", "data/journal/x", "data/journal/../../evil", "data/a/b", "data/" + restoreDir, "data/journal", "data/.",
	} {
		outside := t.TempDir()
		_, err := Restore(bytes.NewReader(archiveOf(t, 1, name)), filepath.Join(outside, "dir"))
		if entries, _ := os.ReadDir(outside); !errors.Is(err, ErrBadArchive) || len(entries) > 0 {
			t.Errorf("%q: %v, and there is %v", name, err, entries)
		}
	}
	if _, err := Restore(bytes.NewReader(archiveOf(t, 2, "data/x")), t.TempDir()); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("of a newer format: %v", err)
	}
}

func TestNewerFilesAreNotRestored(t *testing.T) {
	dir := damaged(t, func(_ string, segments []string) { raiseFormat(t, segments[0], formatVersion+1) })
	s, err := OpenReadOnly(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, s)
	to := t.TempDir()
	if _, err := Restore(bytes.NewReader(backedUp(t, s)), to); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("restored: %v", err)
	}
	if entries, _ := os.ReadDir(to); len(entries) > 0 {
		t.Errorf("there is %v", entries)
	}
}

func TestRestoreNeedsAnEmptyDirectory(t *testing.T) {
	dir := damaged(t, func(string, []string) {})
	s := openTest(t, dir, Options{SegmentSize: small})
	archive := backedUp(t, s)
	for what, c := range map[string]struct {
		names []string
		want  error
	}{
		"the root of a file system":  {[]string{"lost+found/"}, nil},
		"a store":                    {[]string{"state.db"}, ErrNotEmpty},
		"anything":                   {[]string{"x"}, ErrNotEmpty},
		"interrupted while it read":  {[]string{restoreDir + "/journal/x.seg", "lost+found/"}, nil},
		"interrupted while it moved": {[]string{restoreDir + "/journal/x.seg", "state.db"}, ErrUnfinished},
	} {
		to := t.TempDir()
		for _, name := range c.names {
			if err := os.MkdirAll(filepath.Join(to, filepath.Dir(name+"x")), 0o700); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(name, "/") {
				put(t, filepath.Join(to, name))
			}
		}
		if slices.Contains(c.names, restoreDir+"/journal/x.seg") {
			if _, err := Open(to, Options{}); !errors.Is(err, ErrUnfinished) {
				t.Errorf("%s: it is opened: %v", what, err)
			}
		}
		_, err := Restore(bytes.NewReader(archive), to)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
		if c.want == nil {
			verifyExact(t, to)
			if _, err := os.Lstat(filepath.Join(to, restoreDir)); err == nil {
				t.Errorf("%s: %s is still there", what, restoreDir)
			}
		} else if text, _ := os.ReadFile(filepath.Join(to, c.names[len(c.names)-1])); string(text) != "old" {
			t.Errorf("%s: what was there is %q now", what, text)
		}
	}
}

// badSectors cannot be read in the middle.
type badSectors struct{ *bytes.Reader }

func (b badSectors) ReadAt(p []byte, off int64) (int, error) {
	const from, to = 100_000, 100_001
	if off < to && off+int64(len(p)) > from {
		n, _ := b.Reader.ReadAt(p[:max(0, from-off)], off)
		return n, syscall.EIO
	}
	return b.Reader.ReadAt(p, off)
}

// A bad sector costs a page, not the backup.
func TestCopyPutsZerosForWhatCannotBeRead(t *testing.T) {
	whole := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	var got bytes.Buffer
	lack, err := copyPadded(&got, badSectors{bytes.NewReader(whole)}, int64(len(whole)))
	if err != nil || !errors.Is(lack, syscall.EIO) || got.Len() != len(whole) {
		t.Fatalf("%d bytes, %v, %v", got.Len(), lack, err)
	}
	wrong := 0
	for i := range whole {
		if got.Bytes()[i] != whole[i] {
			wrong++
		}
	}
	if wrong == 0 || wrong > pageSize {
		t.Errorf("%d bytes differ", wrong)
	}
	got.Reset()
	if lack, err := copyPadded(&got, bytes.NewReader(whole[:100]), 200); err != nil || !errors.Is(lack, io.EOF) || got.Len() != 200 {
		t.Errorf("a file that shrank: %d bytes, %v, %v", got.Len(), lack, err)
	}
}

// Who takes the first files too slowly must not hold commits up.
func TestSlowReceiversAreGivenUp(t *testing.T) {
	a := &archive{tar: tar.NewWriter(io.Discard), until: time.Now().Add(-time.Second)}
	if err := a.begin("x", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, ErrSlowReceiver) {
		t.Errorf("write: %v", err)
	}
}
