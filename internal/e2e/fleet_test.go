//go:build linux

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"tidegate/internal/client"
	"tidegate/mqtt"
)

const (
	publishers  = 4
	window      = 100 // publishes under way per publisher
	payloadSize = 100 // bytes of a published message
)

// fleet is several publishers, each with a topic of its own and numbers from 1
// up. After a lost connection a publisher sends again, under the same number,
// what was not acknowledged.
type fleet struct {
	watched
	to      *edge
	allowed int // messages that may be sent in all; more are for the next phase
	taken   int // of them, how many publishers have begun to send
	acked   int // messages acknowledged to publishers, each counted once
	lost    int // connections lost
	done    *ledger
}

// newFleet starts publishers that wait for messages to be allowed.
func newFleet(t testing.TB, g *gateway) *fleet {
	t.Helper()
	return newFleetTo(t, &g.edge)
}

func newFleetTo(t testing.TB, to *edge) *fleet {
	t.Helper()
	f := &fleet{to: to, done: newLedger()}
	background(t, func(ctx context.Context) {
		var running sync.WaitGroup
		for i := range publishers {
			p := publisher{fleet: f, topic: fmt.Sprintf("sensor/p%d/n", i), first: 1, confirmed: make(map[int]bool)}
			running.Go(func() { p.run(ctx) })
		}
		running.Wait()
	})
	return f
}

// allow lets the fleet send up to n messages in all.
func (f *fleet) allow(n int) { f.update(func() { f.allowed = max(f.allowed, n) }) }

// awaitAcked waits until n messages were acknowledged to the publishers.
func (f *fleet) awaitAcked(t testing.TB, n int) {
	t.Helper()
	f.await(t, fmt.Sprintf("%d acknowledged publishes", n), func() bool { return f.acked >= n })
}

// take waits for one more message to be allowed.
func (f *fleet) take(ctx context.Context) error {
	return f.wait(ctx, func() bool {
		if f.taken == f.allowed {
			return false
		}
		f.taken++
		return true
	})
}

// publisher is one client of the fleet.
type publisher struct {
	*fleet
	topic string
	next  int // highest number that was ever sent; of the publisher's goroutine

	mu        sync.Mutex   // guards the fields below
	first     int          // lowest number that is not acknowledged
	confirmed map[int]bool // acknowledged numbers behind it
}

func (p *publisher) run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := p.to.dial(ctx, client.Options{CleanSession: true, Window: window})
		if err != nil {
			return
		}
		p.session(ctx, conn)
		if ctx.Err() == nil {
			p.fleet.update(func() { p.lost++ })
		}
	}
}

// session sends over one connection, first what the one before left, until the
// connection or ctx ends.
func (p *publisher) session(ctx context.Context, conn *client.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		<-conn.Done()
		cancel()
	})
	defer conn.Close()
	for n := p.lowest(); n <= p.next; n++ {
		if !p.isConfirmed(n) && p.send(ctx, conn, n) != nil {
			return
		}
	}
	for p.take(ctx) == nil {
		p.next++
		if p.send(ctx, conn, p.next) != nil {
			return
		}
	}
}

func (p *publisher) send(ctx context.Context, conn *client.Conn, n int) error {
	text := fmt.Sprintf("%d ", n)
	text += strings.Repeat(".", payloadSize-len(text))
	m := mqtt.Message{Topic: p.topic, Payload: []byte(text), QoS: mqtt.AtLeastOnce}
	return conn.PublishAsync(ctx, m, func(err error) {
		if err == nil {
			p.confirm(n)
		}
	})
}

// confirm notes the acknowledgement of n.
func (p *publisher) confirm(n int) {
	p.mu.Lock()
	again := n < p.first || p.confirmed[n]
	if !again {
		p.confirmed[n] = true
	}
	for p.confirmed[p.first] {
		delete(p.confirmed, p.first)
		p.first++
	}
	p.mu.Unlock()
	if !again {
		p.done.update(func() { p.done.of(p.topic).add(n) })
		p.fleet.update(func() { p.acked++ })
	}
}

func (p *publisher) lowest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first
}

func (p *publisher) isConfirmed(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return n < p.first || p.confirmed[n]
}
