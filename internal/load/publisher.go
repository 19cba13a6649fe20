package load

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"tidegate/mqtt/packet"
)

// topology says who publishes what to whom. A publisher is a number from 0 on, and
// so is a message of one.
type topology struct {
	pubs, subs int
	topic      func(pub, seq int) []byte
	filters    func(sub int) []string
	fan        func(pub, seq int) int // subscribers that the message must reach
	lanes      int                    // of a publisher, see newReceiver
}

// publisher sends the messages of one connection.
type publisher struct {
	*run
	c        *conn
	topo     *topology
	number   int
	retain   bool
	deadline time.Time // of the publishing
	timer    *time.Timer

	payload   []byte
	interval  time.Duration // between two messages; 0: none
	due       time.Time     // of the next message
	sent      int64
	expected  int64        // deliveries that the sent messages must lead to
	delivered atomic.Int64 // deliveries seen, without duplicates
	givenUp   int64        // deliveries for which nobody waits, so that a loss does not narrow the window for good
	err       error
}

// newPublisher makes publisher number of topo, which starts now.
func newPublisher(r *run, c *conn, topo *topology, number int) *publisher {
	return &publisher{run: r, c: c, topo: topo, number: number, timer: time.NewTimer(0), payload: make([]byte, r.o.Size)}
}

// publish sends count messages, or those that fit before the limit of the
// publishing, and waits for their acknowledgements. What went wrong is in p.err.
func (p *publisher) publish(ctx context.Context, count int) {
	start := time.Now()
	p.deadline = start.Add(p.o.Time)
	if p.o.Rate > 0 {
		p.interval = time.Duration(float64(p.topo.pubs) / p.o.Rate * float64(time.Second))
		p.due = start.Add(p.interval * time.Duration(p.number) / time.Duration(p.topo.pubs)) // publishers take turns
	}
	for seq := 0; seq < count && p.ready(ctx); seq++ {
		now := p.now()
		if p.epoch.Add(time.Duration(now)).After(p.deadline) {
			break
		}
		stamp(p.payload, now, p.number, seq)
		p.send(seq, p.payload)
	}
	p.settle(ctx)
}

// send publishes message seq.
func (p *publisher) send(seq int, payload []byte) {
	m := packet.Publish{
		Version: p.o.Version, Topic: p.topo.topic(p.number, seq),
		Payload: payload, QoS: p.o.QoS, Retain: p.retain,
	}
	if err := p.c.publish(&m); err != nil {
		p.fail(err)
		return
	}
	p.sent++
	p.expected += int64(p.topo.fan(p.number, seq))
}

// ready waits until the next message may be sent. false: no more of them.
func (p *publisher) ready(ctx context.Context) bool {
	return p.err == nil && p.pace(ctx) && p.window(ctx) && p.endToEnd(ctx)
}

// pace waits until the next message is due.
func (p *publisher) pace(ctx context.Context) bool {
	if p.interval == 0 {
		return true
	}
	if p.due.After(p.deadline) {
		return false
	}
	for wait := time.Until(p.due); wait > 0; wait = time.Until(p.due) {
		if !p.flush() {
			return false
		}
		p.timer.Reset(wait)
		select {
		case <-p.timer.C:
		case <-p.c.done:
			p.fail(errors.New("connection lost"))
			return false
		case <-ctx.Done():
			p.fail(ctx.Err())
			return false
		}
	}
	p.due = p.due.Add(p.interval)
	return true
}

// window waits until the broker has acknowledged enough.
func (p *publisher) window(ctx context.Context) bool {
	most := int64(min(p.o.Window, p.c.ack.receiveMaximum))
	for p.c.inflight.Load() >= most {
		if !p.wait(ctx, p.deadline) {
			return false
		}
	}
	return true
}

// endToEnd waits until enough of what was sent has arrived. What does not move
// within the drain time is given up.
func (p *publisher) endToEnd(ctx context.Context) bool {
	most := int64(p.o.E2E)
	for most > 0 && p.expected-p.givenUp-p.delivered.Load() >= most {
		before := p.delivered.Load()
		patience := time.Now().Add(p.o.Drain)
		if p.deadline.Before(patience) {
			patience = p.deadline
		}
		if p.wait(ctx, patience) {
			continue
		}
		if p.err != nil || !time.Now().Before(p.deadline) {
			return false
		}
		if p.delivered.Load() == before {
			p.givenUp = p.expected - before
		}
	}
	return true
}

// settle waits until all is acknowledged.
func (p *publisher) settle(ctx context.Context) {
	until := time.Now().Add(max(p.o.Drain, 10*time.Second))
	for p.err == nil && p.c.inflight.Load() > 0 {
		if !p.wait(ctx, until) && p.err == nil {
			p.fail(fmt.Errorf("%d messages were not acknowledged", p.c.inflight.Load()))
		}
	}
	if p.err == nil {
		p.flush()
	}
}

// wait flushes and waits for news; false: the time is over, or p.err says why not.
func (p *publisher) wait(ctx context.Context, until time.Time) bool {
	if !p.flush() {
		return false
	}
	p.timer.Reset(time.Until(until))
	select {
	case <-p.c.wake:
		return true
	case <-p.timer.C:
	case <-p.c.done:
		p.fail(errors.New("connection lost"))
	case <-ctx.Done():
		p.fail(ctx.Err())
	}
	return false
}

func (p *publisher) flush() bool {
	if err := p.c.flush(); err != nil {
		p.fail(err)
	}
	return p.err == nil
}

// fail notes why the publisher ends. Why the read loop ended tells more than what
// a write met.
func (p *publisher) fail(err error) {
	p.timer.Reset(100 * time.Millisecond)
	select {
	case <-p.c.done:
		err = errors.Join(p.c.err, err)
	case <-p.timer.C:
	}
	p.err = fmt.Errorf("publisher %d: %w", p.number, err)
}
