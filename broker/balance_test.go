package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// Somebody publishes faster than a bounded queue takes, and the power is cut again
// and again. What was acknowledged is queued or in the ledger each time, and nothing
// is counted that was not published.
func TestPowerCutKeepsTheBalance(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, policy := range []mqtt.Overflow{mqtt.DropNewest, mqtt.DropOldest, mqtt.Thin} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			d := newBed(t, func(d *bed) {
				d.segment, d.opts.CommitInterval = 64*units.KiB, units.Duration(time.Millisecond)
			})
			q := mqtt.QueueLimits{MaxMessages: 600, Overflow: policy}
			before := int64(0)
			for round := range 8 {
				d.opens(q).Close()
				p := pressOn(d.b)
				want := rnd.Int64N(1000)
				d.waitFor("acknowledgements", func() bool { return p.promised.Load() >= want })
				promised := p.promised.Load()
				dir := d.copied()
				p.end()
				d.goBack(dir)
				have, published := d.b.inventory()-before, p.published.Load()
				if have < promised || have > published {
					t.Fatalf("power cut %d: %d messages were published, %d acknowledged, and %d are queued or lost", round, published, promised, have)
				}
				before += have
			}
			t.Logf("%d messages, of which %d are lost", before, before-d.owed())
		})
	}
}

// press is a publisher that has some messages under way until end is called.
type press struct {
	published, promised atomic.Int64
	end                 func()
}

func pressOn(b *Broker) *press {
	p, window := new(press), make(chan struct{}, 20)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	p.end = func() { cancel(); running.Wait() }
	running.Go(func() {
		for err := error(nil); err == nil; {
			select {
			case window <- struct{}{}:
			case <-ctx.Done():
				return
			}
			n := p.published.Add(1)
			m := mqtt.Message{Topic: fmt.Sprint("t/", n%3), Payload: make([]byte, 100), QoS: 1}
			err = b.PublishAsync(ctx, m, func(err error) {
				if err == nil {
					p.promised.Add(1)
				}
				<-window
			})
		}
	})
	return p
}
