package bridge

import (
	"context"
	"slices"
	"strings"
	"time"

	"tidegate/mqtt"
)

// What waits for a bridge was queued under the rules of out that there were then, and what
// no rule matches any more is dropped when its turn comes. So somebody has to be told before
// which topics are gone. The subscriptions of the inbox say so at the start; then they stay
// in it, below a place where nothing is published, until all that waited has had its turn.

// lookForGone compares the rules of out with kept, the filters that the inbox has from
// before, and says what is gone while messages wait.
func (b *Bridge) lookForGone(kept []string) {
	waiting := b.local.Backlog(places{b.cfg.Name}.inbox())
	gone := b.cfg.gone(kept)
	if waiting == 0 || len(gone) == 0 {
		return
	}
	b.monitor.update(func(s *Status) { s.Gone, s.goneAt = gone, time.Now() })
	b.log.Warn("messages wait for topics that no rule of out names any more; those that no other rule matches are dropped when their turn comes; "+
		"to keep them, write the topics under out again and restart; queue export copies what waits", "topics", gone, "messages_at_most", waiting)
}

// gone returns the topics of former rules of out, as kept knows them, that none of the rules
// has as a whole.
func (c *Config) gone(kept []string) (gone []string) {
	at, now := places{c.Name}, subscriptions(c.Out)
	for _, f := range kept {
		f = strings.TrimPrefix(f, at.out())
		switch {
		case strings.HasPrefix(f, at.in()), f == at.again()+"#":
		case slices.ContainsFunc(now, func(has mqtt.Subscription) bool { return covers(has.Filter, f) }):
		case len(gone) < maxListening:
			gone = append(gone, f)
		}
	}
	return gone
}

// pass ends it once nothing waits that was there when the bridge looked.
func (b *Bridge) pass(w mqtt.Waiting) {
	b.monitor.update(func(s *Status) {
		if w.Messages == 0 || w.Oldest > 0 && w.Oldest < time.Since(s.goneAt) {
			s.Gone = nil
		}
	})
}

// forget has the inbox forget what is gone no more, before the next start asks.
func (b *Bridge) forget(ctx context.Context) {
	at := places{b.cfg.Name}
	keeps := func(f string) bool { return strings.HasPrefix(f, at.out()) }
	if b.monitor.snapshot().Gone != nil || !slices.ContainsFunc(b.local.Filters(at.inbox()), keeps) {
		return
	}
	if inbox, err := b.openInbox(ctx); err == nil { // else it is said once more
		inbox.Close()
	}
}
