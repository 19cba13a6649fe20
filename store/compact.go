package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// deadShare is how much of a segment nobody may need any more before it is
	// written anew, in quarters: what is written is then a third of what is gained.
	// Where queues have given up what stands behind their positions, half is enough,
	// because that does not go away by itself.
	deadShare  = 3
	givenShare = 2
)

// Owed says what queues still need of what stands behind their positions.
type Owed interface {
	// Keep is for [Store.Rewrite].
	Keep(seq uint64, o Owner, data []byte) bool

	// Share returns how much of what the queue was owed from first to last it
	// still is, from 0 to 1.
	Share(queue uint32, first, last uint64) float64
}

// Run gives back the space of segments that are mostly dead, from time to time,
// until ctx is done. It writes nothing while no queue has moved. owed is asked each
// time what is still needed; what it gives up is on disk.
func (s *Store) Run(ctx context.Context, owed func() Owed) {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	failed := false
	for {
		wanted := failed
		select {
		case <-ctx.Done():
			return
		case <-s.soon:
			wanted = true // whether or not a queue has moved
		case <-tick.C:
		}
		s.mendIdle()
		s.mendSealed()
		if !s.moved.Swap(false) && !wanted {
			continue
		}
		_, err := s.Compact(ctx, owed())
		s.compactions.Add(1)
		if err != nil && !failed && ctx.Err() == nil {
			s.log.Error("store: cannot write a mostly dead segment anew; its space comes back later", "error", err)
		}
		failed = err != nil
	}
}

// CompactSoon has Run compact at once.
func (s *Store) CompactSoon() {
	select {
	case s.soon <- struct{}{}:
	default:
	}
}

// Compactions returns how often Run has compacted.
func (s *Store) Compactions() uint64 { return s.compactions.Load() }

// Compact gives back the space of what no queue needs any more: a segment in
// which nothing is owed is removed, also behind others that are needed; one of
// which three quarters are dead is written anew, or half if queues have given it
// up, as owed says, which may be nil. It returns by how many bytes files became
// shorter.
func (s *Store) Compact(ctx context.Context, owed Owed) (freed int64, err error) {
	if err := s.holdPositions(); err != nil { // owed may know of them
		return 0, err
	}
	s.mu.Lock()
	segments := slices.Clone(s.segments)
	s.mu.Unlock()
	var failures []error
	for i := range len(segments) - 1 {
		if ctx.Err() != nil {
			return freed, ctx.Err()
		}
		n, err := s.compact(segments, i, owed)
		freed += n
		failures = append(failures, err)
	}
	return freed, errors.Join(failures...)
}

// compact deals with one segment.
func (s *Store) compact(segments []*segment, i int, owed Owed) (freed int64, err error) {
	g := segments[i]
	spans, err := s.spansOf(g)
	if err != nil || spans == nil {
		return 0, s.rewriteFailed(g, err)
	}
	size := fileSize(g.path)
	behind, live := s.live(spans, owed)
	dead := int64(deadShare)
	if live < behind {
		dead = givenShare
	}
	switch {
	case live == 0 && s.mayGo(segments, i):
		return size, s.removeMiddle(g)
	case live <= size/4*(4-dead) && size > emptySegment+live+s.besideOf(g):
		r, err := s.Rewrite(g.first, keepOf(owed))
		return r.Before - r.After, err
	}
	return 0, nil
}

// besideOf is about how much of g are queues and marks, which stay when it is written
// anew: one that is large because of them would be again and again.
func (s *Store) besideOf(g *segment) (bytes int64) {
	_ = s.pool.view(g, func(_ *handle, tx *bolt.Tx) error { // what cannot be read is found when it is written anew
		for _, name := range []string{queuesBucket, marksBucket, summaryBucket} {
			if b := tx.Bucket([]byte(name)); b != nil {
				_ = b.ForEach(func(k, v []byte) error { bytes += int64(pageElement + len(k) + len(v)); return nil })
			}
		}
		return nil
	})
	return 2 * bytes // bbolt fills pages by half
}

// emptySegment is what a segment costs beside its records, about.
const emptySegment = 16 * pageSize

// mayGo reports whether the segment i can be removed, so that the numbers that
// belong to it belong to the one before. The newest sealed one stays: its queues
// are what damage to the newest segment falls back to. And the one before must be
// known to hold nothing behind its last number, as a commit that failed may leave.
func (s *Store) mayGo(segments []*segment, i int) bool {
	if i >= len(segments)-2 {
		return false
	}
	if i == 0 {
		return true
	}
	spans, err := s.spansOf(segments[i-1])
	return err == nil && spans != nil
}

// spansOf returns what the sealed segment g holds for each queue, nil if it has
// no summary.
func (s *Store) spansOf(g *segment) (spans map[uint32]span, err error) {
	s.mu.Lock()
	spans = g.spans
	s.mu.Unlock()
	if spans != nil {
		return spans, nil
	}
	err = s.pool.view(g, func(h *handle, tx *bolt.Tx) error {
		spans, err = s.learnSpans(g, h, tx)
		return err
	})
	return spans, err
}

func keepOf(owed Owed) Keep {
	if owed == nil {
		return nil
	}
	return owed.Keep
}

// live estimates how many bytes of a segment stand behind the positions of queues,
// and how many of them are still owed. What is owed to two queues counts twice, and
// the records of a queue are taken to lie evenly.
func (s *Store) live(spans map[uint32]span, owed Owed) (behind, live int64) {
	acked := s.acked()
	for id, sp := range spans {
		from, pending := acked[id]
		if !pending || from >= sp.last {
			continue
		}
		all := float64(sp.bytes + sp.count*(recordOverhead+frameSize))
		if from >= sp.first {
			all *= float64(sp.last-from) / float64(sp.last-sp.first+1)
		}
		behind += max(int64(all), 1)
		if owed != nil {
			share := owed.Share(id, max(from+1, sp.first), sp.last)
			if all *= share; share == 0 {
				continue
			}
		}
		live += max(int64(all), 1)
	}
	return behind, live
}

// removeMiddle removes a segment in which nothing is owed.
func (s *Store) removeMiddle(g *segment) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if closed, in := s.inChain(g); closed {
		return ErrClosed
	} else if !in {
		return nil
	}
	if err := os.Remove(g.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a segment that nobody needs: %w", err)
	}
	s.forget(g)
	s.unnamed = true
	return s.nameJournal()
}

// forget takes g, whose file is removed, out of the chain.
func (s *Store) forget(g *segment) {
	s.unchain(g)
	s.pool.drop(g)
	s.dropAsIs(g)
	s.mu.Lock()
	s.stats.SegmentsRemoved++
	s.mu.Unlock()
}
