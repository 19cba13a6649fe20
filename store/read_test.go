package store

import (
	"errors"
	"os"
	"sync"
	"testing"
)

// Reads run beside commits, rolls and removals, and see a gapless run of records.
func TestReadBesideCommit(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: small})
	const n = 4000
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for after := uint64(0); after < n; {
				stop := false
				select {
				case <-done:
					stop = true
				default:
				}
				after = readRun(t, s, after)
				if stop && after < n {
					t.Errorf("read up to %d of %d", after, n)
					return
				}
			}
		})
	}
	for s.LastSeq() < n {
		commit(t, s, batchOf(s.LastSeq(), 10))
	}
	close(done)
	readers.Wait()
}

// readRun reads what is there behind after and returns the last record.
func readRun(t *testing.T, s *Store, after uint64) uint64 {
	err := s.Read(1, after, s.LastSeq(), func(seq uint64, _ uint32, data []byte) bool {
		if seq != after+1 || len(data) != 150 {
			t.Errorf("record %d of %d bytes came behind %d", seq, len(data), after)
		}
		after = seq
		return true
	})
	if err != nil {
		t.Error(err)
	}
	return after
}

// A reader that is in a segment when it is removed finishes it.
func TestRemovalDuringRead(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentSize: small})
	for s.LastSeq() < 2000 {
		commit(t, s, batchOf(s.LastSeq(), 20))
	}
	g := s.segments[0]
	h, err := s.pool.acquire(g)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: 2000}}})
	if _, err := os.Stat(g.path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the segment is still there: %v", err)
	}
	tx, err := h.db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	if k, _ := tx.Bucket(firstPart(tx, 1)).Cursor().First(); k == nil {
		t.Error("no record in the segment that is held")
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	s.pool.release(g)
	if g.handle != nil {
		t.Error("the removed segment stays open")
	}
	if have := readAll(t, s, 1, 0, 100); len(have) != 0 {
		t.Errorf("%d removed records are read", len(have))
	}
}

// Whatever is wanted at a time, all is read once and in order, across segments, and
// hardly more is copied.
func TestReadSome(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{SegmentSize: small})
	const n = 3000
	for s.LastSeq() < n {
		commit(t, s, batchOf(s.LastSeq(), 100))
	}
	for _, wants := range []int{-1, 0, 1, 150, 1000, 1 << 30} {
		last, pieces := uint64(0), 0
		err := s.ReadSome(1, 0, n, func() int { pieces++; return wants }, func(seq uint64, _ uint32, data []byte) bool {
			if seq != last+1 || len(data) != 150 {
				t.Fatalf("with %d wanted, record %d of %d bytes came behind %d", wants, seq, len(data), last)
			}
			last = seq
			return true
		})
		if err != nil || last != n {
			t.Errorf("with %d wanted, read up to %d of %d: %v", wants, last, n, err)
		}
		if wants < 1000 && pieces < n {
			t.Errorf("with %d wanted, %d records came in %d pieces", wants, n, pieces)
		}
	}
}
