package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tidegate/mqtt"
)

// lostPurged is why a message is lost that somebody has purged.
const lostPurged = "purged"

// purgePause is how long Purge waits for whoever reads the same queue.
const purgePause = 10 * time.Millisecond

// Purged is what [Broker.Purge] has done.
type Purged struct {
	Messages int64 `json:"messages"` // that were dropped
	Bytes    int64 `json:"bytes"`    // that they took on the disk, about
	Left     int64 `json:"left"`     // still queued: sent to a consumer that is connected, or published meanwhile
}

// Purge drops all that the queue called name holds at the moment, but what was sent
// to a consumer that is there, or goes to it past the rest. What is dropped stands in the loss ledger, and is
// gone for good when Purge returns. Serve has to run. See [Broker.QueueMessages] for
// the name.
func (b *Broker) Purge(ctx context.Context, name string) (done Purged, err error) {
	s := b.queueNamed(name)
	if s == nil {
		return done, fmt.Errorf("%q: %w", name, ErrNoQueue)
	}
	t := b.newTurn(ctx.Done())
	defer b.endTurn(t)
	for upTo, more := b.commit.lastSeq(), true; more; {
		p := s.beginPurge(t, upTo)
		if p == nil { // a page is being read
			t.end()
			select {
			case <-time.After(purgePause):
			case <-ctx.Done():
				return done, ctx.Err()
			}
			t.begin()
			continue
		}
		err := p.readDisk()
		s.endPass(p)
		done.Messages += p.lost.n
		done.Bytes += p.lost.bytes
		if err != nil {
			return done, fmt.Errorf("purge the queue %q: %w", name, err)
		}
		more = !p.ended && p.upTo < upTo && p.upTo != b.commit.committedSeq() // a commit came between
	}
	err = s.saveNow(t)
	done.Left = s.owed.Load()
	b.removeUnclaimed(t, s)
	return done, err
}

// beginPurge returns a pass over what is owed up to upTo, nil while somebody reads
// the queue. Of an absent consumer it begins with what was sent before, unless a
// QoS 2 message has still to be released there.
func (s *session) beginPurge(t *turn, upTo uint64) *pass {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filling {
		return nil
	}
	p := s.newPass(t)
	if s.link == nil && s.share == nil && !slices.ContainsFunc(s.beyond, func(a acked) bool { return a.released }) {
		p.from, p.at = s.loaded, s.loaded
	}
	p.level, p.judge = nothing, func(it *item) fateOf {
		if it.seq > upTo {
			return enough
		}
		return lostPurged
	}
	return p
}

// saveNow waits until the position of s and the ledger are on disk.
func (s *session) saveNow(t *turn) error {
	saved := make(chan error, 1)
	s.mu.Lock()
	s.b.commit.moved(s, t.now, func(_ *turn, err error) { saved <- err })
	s.mu.Unlock()
	t.end()
	defer t.begin()
	select {
	case err := <-saved:
		return err
	case <-t.done:
		return mqtt.ErrClosed
	case <-s.b.stopped:
		return mqtt.ErrClosed
	}
}
