package store

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/units"
)

// Run compacts once in an interval if a queue has moved, at once if it is told to,
// and otherwise does nothing.
func TestRunCompactsWhatHasMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, t.TempDir(), Options{SegmentSize: 256 * units.KiB})
		for s.LastSeq() < 4000 { // two queues, of which one stays behind
			b := batchOf(s.LastSeq(), 100)
			for i := range b.Records {
				if b.Records[i].Seq%100 == 0 {
					b.Records[i].Owners = []Owner{{1, 0}, {2, 0}}
				}
			}
			b.Queues = append(b.Queues, Queue{ID: 2, Pending: b.Queues[0].Pending / 100})
			commit(t, s, b)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx, func() Owed { return nil }) }()
		defer func() { cancel(); <-done }()
		wait := func(d time.Duration, compactions, rewritten uint64) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if have := s.Compactions(); have != compactions || (s.Stats().SegmentsRewritten > 0) != (rewritten > 0) {
				t.Errorf("compacted %d times, want %d; %d segments are rewritten", have, compactions, s.Stats().SegmentsRewritten)
			}
		}
		wait(time.Minute, 1, 0) // it has just been opened
		wait(time.Hour, 1, 0)   // nothing has moved since
		last := s.LastSeq()
		commit(t, s, &Batch{Queues: []Queue{{ID: 1, Acked: last}}})
		wait(time.Minute-time.Millisecond, 1, 0)
		wait(time.Millisecond, 2, 1)
		before := s.Written()
		wait(time.Hour, 2, 1)
		if n := s.Written() - before; n != 0 {
			t.Errorf("%d bytes were written while nothing happened", n)
		}
		s.CompactSoon()
		wait(0, 3, 1)
	})
}
