package bridge

import (
	"context"
	"errors"
	"sync"
)

// errAsked ends a connection, or a try to have one, because of Reconnect.
var errAsked = errors.New("another connection was asked for")

// leg is what Reconnect cuts short: a try, its link, and the wait for the next try.
type leg struct {
	mu  sync.Mutex
	end context.CancelFunc // nil: there was none yet
}

// begin returns the context of a leg within ctx. end has to be called.
func (l *leg) begin(ctx context.Context) (leg context.Context, end context.CancelFunc) {
	leg, end = context.WithCancel(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = end
	return leg, end
}

func (l *leg) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil {
		l.end()
	}
}

// Reconnect has the bridge take leave of the server that it is connected to, and dial
// it again at once. If it dials or waits, it dials at once. Reconnect does not wait for
// any of that, and may be called from any goroutine.
func (b *Bridge) Reconnect() {
	b.log.Info("bridge connects anew, because that was asked for")
	b.leg.cut()
}

// follow connects to one server after the other until ctx is done.
func (b *Bridge) follow(ctx context.Context, c course) {
	for ctx.Err() == nil {
		b.goLeg(ctx, &c)
	}
}

func (b *Bridge) goLeg(ctx context.Context, c *course) {
	leg, end := b.leg.begin(ctx)
	defer end()
	how := b.round(leg, c)
	switch {
	case ctx.Err() != nil:
		return
	case leg.Err() != nil:
		b.down(ctx, errAsked)
	default:
		b.down(ctx, how.why)
		pause(leg, c.next(how))
	}
	if leg.Err() != nil {
		c.again()
	}
}
