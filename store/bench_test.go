package store

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// writtenBytes is what this process has handed to the kernel to write so far
// (proc(5), /proc/pid/io). Its count of bytes for the device, write_bytes, is no
// use: where the page cache has large folios it counts all of one for each page.
func writtenBytes() (n int64, ok bool) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if v, found := strings.CutPrefix(line, "wchar: "); found {
			n, err = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n, err == nil && n > 0
		}
	}
	return 0, false
}

// batchOf owes n records of 150 bytes behind last to queue 1.
func batchOf(last uint64, n int) *Batch {
	b := &Batch{Queues: []Queue{{ID: 1, Pending: last + uint64(n)}}}
	data := make([]byte, 150)
	for i := range n {
		b.Records = append(b.Records, Record{Seq: last + uint64(i) + 1, Owners: []Owner{{Queue: 1}}, Data: data})
	}
	return b
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 16, 128, 1000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			s := openTest(b, b.TempDir(), Options{})
			before, _ := writtenBytes()
			for b.Loop() {
				commit(b, s, batchOf(s.LastSeq(), n))
			}
			after, _ := writtenBytes()
			b.ReportMetric(float64(after-before)/float64(b.N), "written-B/op")
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const n = 100_000
	s := openTest(b, b.TempDir(), Options{})
	for s.LastSeq() < n {
		commit(b, s, batchOf(s.LastSeq(), 1000))
	}
	b.ReportAllocs()
	for b.Loop() {
		got := 0
		err := s.Read(1, 0, n, func(uint64, uint32, []byte) bool { got++; return true })
		if err != nil || got != n {
			b.Fatalf("read %d of %d records: %v", got, n, err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
}

// A commit of one record costs four pages, also in a segment that holds
// thousands. A second level of branches would make it five.
func TestCommitOfOneRecordWritesFourPages(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	if _, ok := writtenBytes(); !ok {
		t.Skip("the kernel does not count written bytes")
	}
	for _, fill := range []uint64{100, 5_000, 60_000} {
		for s.LastSeq() < fill {
			commit(t, s, batchOf(s.LastSeq(), 500))
		}
		const n = 200
		before, _ := writtenBytes()
		for range n {
			commit(t, s, batchOf(s.LastSeq(), 1))
		}
		after, _ := writtenBytes()
		per := (after - before) / n
		t.Logf("%d records in %d segments: %d bytes per commit of one record", fill, s.Stats().Segments, per)
		if per > 17_000 {
			t.Errorf("a commit of one 150-byte record behind %d writes %d bytes, should write at most 17000", fill, per)
		}
	}
}

// BenchmarkPositions commits positions alone, as a queue that drains does, of some
// queues at a time.
func BenchmarkPositions(b *testing.B) {
	for _, n := range []int{1, 5, 50, 200} {
		b.Run(fmt.Sprintf("queues=%d", n), func(b *testing.B) {
			s := openTest(b, b.TempDir(), Options{})
			backlog := batchOf(0, 50_000)
			for id := 1; id <= n; id++ {
				backlog.Queues = append(backlog.Queues, Queue{ID: uint32(id), Pending: 50_000, Note: make([]byte, 30)})
			}
			commit(b, s, backlog)
			before, wear := s.Wear()["positions"], uint64(0)
			batch := &Batch{Queues: make([]Queue, n)}
			for b.Loop() {
				wear++
				acked := min(wear, 49_999)
				for i := range batch.Queues {
					batch.Queues[i] = Queue{ID: uint32(i + 1), Acked: acked, Pending: 50_000 - acked, Note: make([]byte, 30)}
				}
				commit(b, s, batch)
			}
			after := s.Wear()["positions"]
			b.ReportMetric(float64(after.Bytes-before.Bytes)/float64(b.N), "written-B/op")
			b.ReportMetric(float64(after.Syncs-before.Syncs)/float64(b.N), "syncs/op")
		})
	}
}
