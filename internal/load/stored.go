package load

import (
	"context"
	"fmt"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// retained: n retained topics are published, then one subscriber takes them all.
// Times and rates are those of the taking.
func (r *run) retained(ctx context.Context) error {
	list := topics("ret/%d/value", r.o.N)
	c, err := r.writers(ctx, 1, func(seq int) []byte { return list[seq] })
	if err != nil {
		return err
	}
	defer c.close()
	p := c.pubs[0]
	p.retain = true
	start := r.now()
	p.publish(ctx, r.o.N)
	r.report.published(r.now()-start, c.pubs)
	if r.o.QoS == mqtt.AtMostOnce {
		pause(ctx, time.Second) // nothing tells when the broker has them
	}
	if err := r.take(ctx, c, newReceiver(r, c.pubs, 0), r.hello("sub-0"), "ret/#"); err != nil {
		return err
	}
	p.forget(ctx, r.o.N)
	return nil
}

// forget removes the first count retained messages, so that nothing is left behind.
func (p *publisher) forget(ctx context.Context, count int) {
	p.deadline = time.Now().Add(p.o.Time)
	for seq := 0; seq < count && p.err == nil && p.window(ctx); seq++ {
		p.send(seq, nil)
	}
	p.settle(ctx)
}

// absentTopics is how many topics the absent client's messages have.
const absentTopics = 100

// offline: messages for a durable session whose client is away, perhaps a broker
// that ends and is started again, and the client that comes back.
func (r *run) offline(ctx context.Context) error {
	away := r.durable()
	if err := r.leave(ctx, away); err != nil {
		return err
	}
	list := topics("sensor/%d/value", absentTopics)
	c, err := r.writers(ctx, r.o.publishers(), func(seq int) []byte { return list[seq%absentTopics] })
	if err != nil {
		return err
	}
	defer c.close()
	if err := r.meter.begin(); err != nil {
		return err
	}
	start := r.now()
	r.perform(ctx, c)
	r.report.published(r.now()-start, c.pubs)
	r.report.Expected = r.owed(c)
	if err := r.interrupt(ctx); err != nil {
		return err
	}
	rec := newReceiver(r, c.pubs, absentTopics)
	if err := r.take(ctx, c, rec, away, ""); err != nil {
		return err
	}
	r.report.Lost = r.report.Expected
	for _, p := range c.pubs {
		r.report.Lost -= rec.among(p.number, r.owing(p))
	}
	return r.dissolve(ctx, away)
}

// owed is how many messages the broker owes the absent client.
func (r *run) owed(c *cast) (n int64) {
	for _, p := range c.pubs {
		n += r.owing(p)
	}
	return n
}

// owing is how many messages of p the broker owes. What it took it owes, the rest
// may be lost. It acknowledges each publisher in order, so these are its first.
func (r *run) owing(p *publisher) int64 {
	if r.o.QoS == mqtt.AtMostOnce {
		return p.expected
	}
	return p.c.acked.Load() - p.c.refused.Load()
}

// durable is the CONNECT of a session that stays for an hour at least.
func (r *run) durable() *packet.Connect {
	c := r.hello("away")
	c.CleanSession = false
	if r.o.Version == packet.V5 {
		c.Properties = c.Properties.AppendUint(packet.PropSessionExpiry, 3600)
	}
	return c
}

// leave makes the session anew, subscribes, and disconnects.
func (r *run) leave(ctx context.Context, away *packet.Connect) error {
	if err := r.dissolve(ctx, away); err != nil {
		return err
	}
	c, err := r.dialer().connect(ctx, away)
	if err != nil {
		return err
	}
	defer c.close()
	return c.serve().subscribe(ctx, []string{"sensor/#"}, max(r.o.QoS, mqtt.AtLeastOnce), r.o.Timeout)
}

// dissolve removes the session.
func (r *run) dissolve(ctx context.Context, away *packet.Connect) error {
	clean := *away
	clean.CleanSession, clean.Properties = true, nil
	c, err := r.dialer().connect(ctx, &clean)
	if err != nil {
		return err
	}
	c.serve().close()
	return nil
}

// interrupt charges the broker for what it stored, and ends and starts it if that
// was asked for.
func (r *run) interrupt(ctx context.Context) error {
	pause(ctx, r.o.Settle)
	if err := r.meter.charge(r.report.Sent); err != nil {
		return err
	}
	if cost := r.report.Broker; cost != nil {
		cost.DiskStored = cost.DiskPerMsg
	}
	if r.o.Kill != "" {
		start := time.Now()
		if err := r.broker.restart(ctx); err != nil {
			return err
		}
		r.report.Restart = seconds(time.Since(start))
	}
	return r.meter.begin()
}

// writers connects n publishers. Nobody waits for deliveries before all is
// published, so there is no end-to-end limit.
func (r *run) writers(ctx context.Context, n int, topic func(seq int) []byte) (*cast, error) {
	r.o.E2E = 0
	topo := &topology{pubs: n, fan: once, topic: func(_, seq int) []byte { return topic(seq) }}
	c := newCast()
	for i := range n {
		pub, err := r.connect(ctx, fmt.Sprintf("pub-%d", i))
		if err != nil {
			c.close()
			return nil, err
		}
		pub.times = &ackTimes{start: time.Now()}
		c.pubs = append(c.pubs, newPublisher(r, pub.serve(), topo, i))
	}
	return c, nil
}

// take connects, subscribes to filter if there is one, and receives what the
// publishers of from sent.
func (r *run) take(ctx context.Context, from *cast, rec *receiver, hello *packet.Connect, filter string) error {
	c, err := r.dialer().connect(ctx, hello)
	if err != nil {
		return err
	}
	defer c.close()
	rec.attach(c)
	c.serve()
	start := r.now()
	if filter != "" {
		if err := c.subscribe(ctx, []string{filter}, r.o.QoS, r.o.Timeout); err != nil {
			return err
		}
	} else {
		r.report.SessionPresent = &c.ack.sessionPresent
	}
	r.settle(ctx, from.delivered, r.report.Sent) // it may give more than it owes
	pause(ctx, 100*time.Millisecond)             // late duplicates
	err = r.meter.charge(from.delivered())
	r.report.connections([]*conn{c})
	c.close()
	r.report.delivered(start, []*receiver{rec})
	r.report.Latency = nil // they waited on purpose
	return err
}
