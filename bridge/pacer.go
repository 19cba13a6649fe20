package bridge

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// CatchUp says how a backlog goes upstream.
type CatchUp struct {
	// Order is in_order, where what is published waits behind the backlog, or
	// live_first, where it goes past it.
	Order string `yaml:"order"`

	// Rate is how fast the backlog gets shorter at most. What is published
	// meanwhile goes on top of it.
	Rate units.Rate `yaml:"rate"`

	// LiveShare is how much of the window live messages are sure to get, with
	// live_first. The backlog is sure to get the rest.
	LiveShare units.Percent `yaml:"live_share"`
}

// The orders of a catch-up.
const (
	inOrder   = "in_order"
	liveFirst = "live_first"
)

// pacer keeps a backlog to its rate over one link, until it is gone: from then on
// nothing is held back.
type pacer struct {
	arrived func() (messages, bytes uint64) // since the link came up
	idle    func()                          // is called before a wait

	over atomic.Bool

	mu       sync.Mutex
	messages allowance
	bytes    allowance
}

func newPacer(rate units.Rate, arrived func() (messages, bytes uint64), idle func()) *pacer {
	now := time.Now()
	p := &pacer{
		arrived:  arrived,
		idle:     idle,
		messages: allowance{rate: float64(rate.Messages), at: now},
		bytes:    allowance{rate: float64(rate.Bytes), at: now},
	}
	p.over.Store(rate == units.Rate{})
	return p
}

// slice is the longest wait without a look at what has arrived.
const slice = 50 * time.Millisecond

// wait returns when the next message of the backlog may go, and false if ctx is done first.
func (p *pacer) wait(ctx context.Context) bool {
	for !p.over.Load() {
		pausing := p.due()
		if pausing == 0 {
			break
		}
		p.idle()
		if pause(ctx, min(pausing, slice)); ctx.Err() != nil {
			return false
		}
	}
	return true
}

// look ends it if nothing is left. It is called when a message has gone, for one that is
// in hand may be the last of the backlog, or have been published since.
func (p *pacer) look(left func() int64) {
	if !p.over.Load() && left() <= 0 {
		p.over.Store(true)
	}
}

// due returns how long it takes at least until the backlog may go on.
func (p *pacer) due() time.Duration {
	messages, bytes := p.arrived()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	return max(p.messages.wait(now, messages), p.bytes.wait(now, bytes))
}

// spend counts what goes. What is not queued, at QoS 0, does not count.
func (p *pacer) spend(d mqtt.Delivery) {
	if d.QoS == mqtt.AtMostOnce {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages.has--
	p.bytes.has -= float64(len(d.Topic) + len(d.Payload))
}

// allowance is how much of the backlog may go: what the rate has yielded, and as
// much as has arrived meanwhile, which waits behind it in the same queue.
type allowance struct {
	rate  float64 // per second; 0: no limit
	has   float64 // below 0: the last one was larger than what there was
	at    time.Time
	added uint64 // of what has arrived
}

// burst is for how long the rate may be saved up.
const burst = time.Second

// wait returns how long it takes at least until something may go.
func (a *allowance) wait(now time.Time, arrived uint64) time.Duration {
	if a.rate == 0 {
		return 0
	}
	if most := a.rate * burst.Seconds(); a.has < most {
		a.has = min(a.has+a.rate*now.Sub(a.at).Seconds(), most)
	}
	a.has += float64(arrived - a.added)
	a.at, a.added = now, arrived
	if a.has > 0 {
		return 0
	}
	return time.Duration(-a.has/a.rate*float64(time.Second)) + time.Microsecond
}
