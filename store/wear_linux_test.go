package store

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// What the store says that it writes is what it hands to write calls, to a
// twentieth, and what the kernel charges, to a half: where the page cache has
// large folios, a page counts as all of the folio that it was first written with.
func TestWearIsWhatTheKernelCounts(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: small})
	start, calls, kernel := s.Written(), charged(t, "wchar"), charged(t, "write_bytes")
	for i := range 80 {
		b := batchOf(s.LastSeq(), 1+i*7%50)
		b.Marks = []Row{{Key: []byte("mark"), Value: make([]byte, i)}}
		b.Rows = []Row{{Table: "sessions", Key: []byte("k"), Value: make([]byte, 100)}, {Table: "retained", Key: []byte("k"), Value: make([]byte, 300)}}
		commit(t, s, b)
	}
	if _, err := s.Rewrite(1, nil); err != nil {
		t.Fatal(err)
	}
	last := s.LastSeq()
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: last - 3, Pending: 3}}})
	have, called, dirtied := s.Written()-start, charged(t, "wchar")-calls, charged(t, "write_bytes")-kernel
	t.Logf("the store says %d bytes, write calls had %d, the kernel charges %d; %+v", have, called, dirtied, s.Wear())
	if 20*have < 19*called || 20*have > 21*called {
		t.Errorf("the store says %d bytes, write calls had %d", have, called)
	}
	if dirtied > 0 && (have > dirtied+dirtied/10 || dirtied > have+have/2) { // 0: tmpfs charges nobody
		t.Errorf("the store says %d bytes, the kernel charges %d", have, dirtied)
	}
	for _, part := range []string{wearMessages, wearPositions, wearMarks, wearSegments, wearRewrite, "sessions", "retained"} {
		if s.Wear()[part].Bytes == 0 {
			t.Errorf("nothing is written for %s", part)
		}
	}
}

// charged returns a counter of what this process has written.
func charged(t *testing.T, counter string) (n uint64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("the kernel does not count what a process writes: %v", err)
	}
	_, rest, _ := bytes.Cut(text, []byte("\n"+counter+": "))
	if _, err := fmt.Fscan(bytes.NewReader(rest), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
