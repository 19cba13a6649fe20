package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func once(int, int) int { return 1 }

// p2p: n publishers, each to a subscriber of its own.
func (r *run) p2p(ctx context.Context) error {
	list := topics("p2p/%d/value", r.o.N)
	return r.flow(ctx, &topology{
		pubs: r.o.N, subs: r.o.N, fan: once, lanes: 1,
		topic:   func(pub, _ int) []byte { return list[pub] },
		filters: func(sub int) []string { return []string{string(list[sub])} },
	})
}

// fanout: one publisher to n subscribers.
func (r *run) fanout(ctx context.Context) error {
	topic := []byte("fanout/value")
	return r.flow(ctx, &topology{
		pubs: 1, subs: r.o.N, lanes: 1,
		fan:     func(int, int) int { return r.o.N },
		topic:   func(int, int) []byte { return topic },
		filters: func(int) []string { return []string{string(topic)} },
	})
}

// fanin: n publishers to one subscriber.
func (r *run) fanin(ctx context.Context) error {
	list := topics("sensor/%d/value", r.o.N)
	return r.flow(ctx, &topology{
		pubs: r.o.N, subs: 1, fan: once, lanes: 1,
		topic:   func(pub, _ int) []byte { return list[pub] },
		filters: func(int) []string { return []string{"sensor/#"} },
	})
}

// wildcardTopics is how many topics the scenario wildcard publishes to.
const wildcardTopics = 1000

// wildcard: filters of five kinds, spread over n subscribers, and publishers of
// topics that several of them match. A message has to reach each subscriber with
// a matching filter once; what more it gets counts as duplicates, which the
// standard allows for filters that overlap.
func (r *run) wildcard(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(1, 1)) // the same in every run
	filters := make([][]string, r.o.N)
	for i := range r.o.Filters {
		filters[i%r.o.N] = append(filters[i%r.o.N], wildcardFilter(rng, i%5))
	}
	list := make([][]byte, wildcardTopics)
	fan := make([]int, wildcardTopics)
	for i := range list {
		topic := wildcardFilter(rng, 0)
		list[i], fan[i] = []byte(topic), reach(filters, topic)
	}
	pubs := r.o.publishers()
	pick := func(pub, seq int) int { return (seq + pub*wildcardTopics/pubs) % wildcardTopics }
	return r.flow(ctx, &topology{
		pubs: pubs, subs: r.o.N,
		fan:     func(pub, seq int) int { return fan[pick(pub, seq)] },
		topic:   func(pub, seq int) []byte { return list[pick(pub, seq)] },
		filters: func(sub int) []string { return filters[sub] },
	})
}

// wildcardFilter is a random filter of a kind from 0 to 4; kind 0 is a topic.
func wildcardFilter(rng *rand.Rand, kind int) string {
	site, line, device, value := rng.IntN(10), rng.IntN(10), rng.IntN(10), rng.IntN(10)
	switch kind {
	case 1:
		return fmt.Sprintf("site/%d/line/%d/dev/+/%d", site, line, value)
	case 2:
		return fmt.Sprintf("site/%d/+/%d/dev/%d/#", site, line, device)
	case 3:
		return fmt.Sprintf("site/+/line/%d/dev/%d/%d", line, device, value)
	case 4:
		return fmt.Sprintf("site/%d/line/%d/#", site, line)
	}
	return fmt.Sprintf("site/%d/line/%d/dev/%d/%d", site, line, device, value)
}

// reach is how many subscribers have a filter that matches topic.
func reach(filters [][]string, topic string) int {
	n := 0
	for _, list := range filters {
		for _, f := range list {
			if mqtt.Match(f, topic) {
				n++
				break
			}
		}
	}
	return n
}

// cast is everybody who takes part.
type cast struct {
	pubs      []*publisher
	subs      []*conn
	receivers []*receiver
	published chan struct{} // closed when all is published: those that stall go on
	release   func()        // closes it; may be called again
}

func newCast() *cast {
	c := &cast{published: make(chan struct{})}
	c.release = sync.OnceFunc(func() { close(c.published) })
	return c
}

// flow runs a scenario whose publishers and subscribers are connected all the
// time, and fills in the report.
func (r *run) flow(ctx context.Context, topo *topology) error {
	c := newCast()
	defer c.close()
	if err := r.assemble(ctx, c, topo); err != nil {
		return err
	}
	pause(ctx, 200*time.Millisecond) // the broker comes to rest
	if err := r.meter.begin(); err != nil {
		return err
	}
	start := r.now()
	r.perform(ctx, c)
	r.report.published(r.now()-start, c.pubs)
	c.release()
	r.settle(ctx, c.delivered, r.report.Expected)
	err := r.meter.charge(c.delivered())
	r.report.connections(c.subs)
	c.close()
	r.report.delivered(start, c.receivers)
	return err
}

// assemble connects and subscribes everybody.
func (r *run) assemble(ctx context.Context, c *cast, topo *topology) error {
	for i := range topo.pubs {
		pub, err := r.connect(ctx, fmt.Sprintf("pub-%d", i))
		if err != nil {
			return err
		}
		c.pubs = append(c.pubs, newPublisher(r, pub.serve(), topo, i))
	}
	for i := range topo.subs {
		sub, err := r.connect(ctx, fmt.Sprintf("sub-%d", i))
		if err != nil {
			return err
		}
		rec := newReceiver(r, c.pubs, topo.lanes)
		rec.attach(sub)
		if r.o.Stall {
			sub.onPublish = stalled(sub.onPublish, c.published)
		}
		c.subs, c.receivers = append(c.subs, sub.serve()), append(c.receivers, rec)
		if err := sub.subscribe(ctx, topo.filters(i), r.o.QoS, r.o.Timeout); err != nil {
			return err
		}
	}
	return nil
}

// stalled puts off take until the channel is closed, and with it all reading.
func stalled(take func(*packet.Publish), until <-chan struct{}) func(*packet.Publish) {
	return func(m *packet.Publish) { <-until; take(m) }
}

// perform lets every publisher send its share.
func (r *run) perform(ctx context.Context, c *cast) {
	var publishing sync.WaitGroup
	for i, p := range c.pubs {
		count := r.o.Count / len(c.pubs)
		if i < r.o.Count%len(c.pubs) {
			count++
		}
		publishing.Go(func() { p.publish(ctx, count) })
	}
	publishing.Wait()
}

// delivered is how many messages have arrived, without duplicates.
func (c *cast) delivered() int64 {
	var n int64
	for _, p := range c.pubs {
		n += p.delivered.Load()
	}
	return n
}

// close ends all connections. It may be called again.
func (c *cast) close() {
	c.release()
	for _, sub := range c.subs {
		sub.close()
	}
	for _, p := range c.pubs {
		p.c.close()
	}
}
