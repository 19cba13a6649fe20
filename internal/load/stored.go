package load

import (
	"context"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// retained: n retained topics are published, then one subscriber takes them all.
// Times and rates are those of the taking.
func (r *run) retained(ctx context.Context) error {
	list := topics("ret/%d/value", r.o.N)
	p, err := r.lone(ctx, func(seq int) []byte { return list[seq] })
	if err != nil {
		return err
	}
	defer p.c.close()
	p.retain = true
	start := r.now()
	p.publish(ctx, r.o.N)
	r.report.published(r.now()-start, []*publisher{p})
	if r.o.QoS == mqtt.AtMostOnce {
		pause(ctx, time.Second) // nothing tells when the broker has them
	}
	if err := r.take(ctx, p, newReceiver(r, []*publisher{p}, 0), r.hello("sub-0"), "ret/#"); err != nil {
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
	p, err := r.lone(ctx, func(seq int) []byte { return list[seq%absentTopics] })
	if err != nil {
		return err
	}
	defer p.c.close()
	if err := r.meter.begin(); err != nil {
		return err
	}
	start := r.now()
	p.publish(ctx, r.o.Count)
	r.report.published(r.now()-start, []*publisher{p})
	if r.o.QoS != mqtt.AtMostOnce {
		// What the broker took it owes, the rest may be lost. It acknowledges in
		// order, so these are the first messages.
		r.report.Expected = r.report.Acked - r.report.Refused
	}
	if err := r.interrupt(ctx); err != nil {
		return err
	}
	rec := newReceiver(r, []*publisher{p}, absentTopics)
	if err := r.take(ctx, p, rec, away, ""); err != nil {
		return err
	}
	r.report.Lost = r.report.Expected - rec.among(r.report.Expected)
	return r.dissolve(ctx, away)
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
	if r.o.Kill != "" {
		start := time.Now()
		if err := r.broker.restart(ctx); err != nil {
			return err
		}
		r.report.Restart = seconds(time.Since(start))
	}
	return r.meter.begin()
}

// lone connects the only publisher. Nobody waits for deliveries before all is
// published, so there is no end-to-end limit.
func (r *run) lone(ctx context.Context, topic func(seq int) []byte) (*publisher, error) {
	r.o.E2E = 0
	c, err := r.connect(ctx, "pub-0")
	if err != nil {
		return nil, err
	}
	c.times = &ackTimes{start: time.Now()}
	topo := &topology{pubs: 1, fan: once, topic: func(_, seq int) []byte { return topic(seq) }}
	return newPublisher(r, c.serve(), topo, 0), nil
}

// take connects, subscribes to filter if there is one, and receives what p sent.
func (r *run) take(ctx context.Context, p *publisher, rec *receiver, hello *packet.Connect, filter string) error {
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
	r.settle(ctx, p.delivered.Load, p.sent) // it may give more than it owes
	pause(ctx, 100*time.Millisecond)        // late duplicates
	err = r.meter.charge(p.delivered.Load())
	r.report.connections([]*conn{c})
	c.close()
	r.report.delivered(start, []*receiver{rec})
	r.report.Latency = nil // they waited on purpose
	return err
}
