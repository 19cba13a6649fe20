package store

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

// However much the journal has, and whoever reads it, little of it is in the
// process's memory.
func TestLittleOfTheJournalIsResident(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	most := int64(0)
	for range 300 { // 22 MB, which is more than a segment
		commit(t, s, batchOf(s.LastSeq(), 500))
		most = max(most, resident(t, dir))
	}
	written := most
	for seq, last := uint64(0), s.LastSeq(); seq < last; most = max(most, resident(t, dir)) {
		n := 0
		err := s.Read(1, seq, last, func(got uint64, _ uint32, _ []byte) bool { seq = got; n++; return n < 2000 })
		if err != nil || n == 0 {
			t.Fatalf("behind record %d of %d there are %d: %v", seq, last, n, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, Options{}) // which looks at every page of the newest segment
	opened := resident(t, dir)
	most = max(most, opened)
	t.Logf("%d bytes at most while it was written, %d in all, %d after a start, of %d", written, most, opened, s.Stats().JournalBytes)
	if most > 4<<20 {
		t.Errorf("%d bytes of the journal were resident, want at most 4 MiB", most)
	}
}

// resident is how much of the maps of files in dir is in memory.
func resident(t *testing.T, dir string) (n int64) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skipf("the kernel does not say what is in memory: %v", err)
	}
	defer f.Close()
	ours := false
	for in := bufio.NewScanner(f); in.Scan(); {
		line := in.Text()
		if strings.Contains(line, "-") && strings.Contains(line, " r") {
			ours = strings.Contains(line, dir)
		}
		var kb int64
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &kb); err == nil && ours {
			n += kb << 10
		}
	}
	return n
}
