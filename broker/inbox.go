package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"tidegate/mqtt"
)

// standardInflight is the window of an inbox that asks for none.
const standardInflight = 100

// inbox is the consumer of a session that is inside the process. The session
// treats it like a connection.
type inbox struct {
	s      *session
	before traffic // what had come before it was opened

	lanes bool // live messages pass the backlog, see lane

	mu    sync.Mutex
	box   box
	live  box // with lanes: live messages, and those at QoS 0
	names *names
	loose int // bytes of the QoS 0 messages in both
	ended sync.Once
	done  chan struct{}
}

// box holds what can be received at once. At QoS 1 and 2 it is bounded by the
// window, at QoS 0 by loose.
type box struct {
	ready queue[mqtt.Delivery]
	wake  chan struct{} // holds one token while ready may not be empty
}

func newBox() box { return box{wake: make(chan struct{}, 1)} }

func (b *box) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// traffic is a number of messages with the bytes of their topics and payloads.
type traffic struct{ messages, bytes uint64 }

func (n *traffic) add(it *item) {
	n.messages++
	n.bytes += uint64(len(it.body.topic()) + len(it.body.payload()))
}

func (s *session) arrivals() traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.came
}

var errSharedInbox = errors.New("only network clients can share a subscription; use the filter behind the group's name")

// OpenInbox opens the durable queue called name, see [mqtt.Subscriber].
func (b *Broker) OpenInbox(ctx context.Context, name string, o mqtt.InboxOptions, subs ...mqtt.Subscription) (mqtt.Inbox, error) {
	for _, sub := range subs {
		if err := mqtt.ValidFilter(sub.Filter); err != nil {
			return nil, err
		}
		if isShared(sub.Filter) {
			return nil, fmt.Errorf("open the inbox %q with %q: %w", name, sub.Filter, errSharedInbox)
		}
	}
	if o.MaxInflight == 0 {
		o.MaxInflight = standardInflight
	}
	t := b.newTurn(ctx.Done())
	defer b.endTurn(t)
	s := b.openInbox(name)
	in := &inbox{s: s, lanes: o.LiveFirst, before: s.arrivals(), box: newBox(), live: newBox(), names: newNames(), done: make(chan struct{})}
	if err := b.resubscribe(t, s, subs); err != nil {
		return nil, err
	}
	if o.Queue.MaxAge > 0 {
		b.stamps.Store(true)
	}
	s.bound(t, b.withDefaults(o.Queue))
	s.attach(t, in, o.MaxInflight)
	return in, nil
}

// resubscribe gives s exactly the subscriptions subs and waits until they are on
// disk.
func (b *Broker) resubscribe(t *turn, s *session, subs []mqtt.Subscription) error {
	if !s.replaceSubs(subs) {
		return nil
	}
	saved := make(chan error, 1)
	s.save(t.now, func(_ *turn, err error) { saved <- err })
	t.end()
	select {
	case err := <-saved:
		return err
	case <-t.done:
		return mqtt.ErrClosed
	case <-b.stopped:
		return mqtt.ErrClosed
	}
}

// Publish and PublishAsync publish as the inbox's session, see [mqtt.Inbox].

func (in *inbox) Publish(ctx context.Context, m mqtt.Message) error {
	return in.s.b.publishWait(ctx, m, in.s)
}

func (in *inbox) PublishAsync(ctx context.Context, m mqtt.Message, done func(error)) error {
	return in.s.b.publish(ctx, m, in.s, done)
}

func (in *inbox) Recv(ctx context.Context) (mqtt.Delivery, error) { return in.recv(ctx, &in.box) }

func (in *inbox) RecvLive(ctx context.Context) (mqtt.Delivery, error) { return in.recv(ctx, &in.live) }

func (in *inbox) recv(ctx context.Context, b *box) (mqtt.Delivery, error) {
	for {
		select {
		case <-in.done: // what is still here comes again to whoever has the inbox now
			return mqtt.Delivery{}, mqtt.ErrClosed
		default:
		}
		if d, ok := in.next(b); ok {
			if in.lanes {
				in.more()
			}
			return d, nil
		}
		select {
		case <-b.wake:
		case <-in.done:
			return mqtt.Delivery{}, mqtt.ErrClosed
		case <-ctx.Done():
			return mqtt.Delivery{}, ctx.Err()
		}
	}
}

func (in *inbox) next(b *box) (mqtt.Delivery, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if b.ready.len() == 0 {
		return mqtt.Delivery{}, false
	}
	d := b.ready.pop()
	if d.QoS == mqtt.AtMostOnce {
		in.loose -= 2 + len(d.Topic) + len(d.Payload) + itemOverhead
	}
	return d, true
}

// more has the session hand over the next message. With lanes that is one at a
// time, so that a backlog which keeps to a rate does not fill the window.
func (in *inbox) more() {
	t := in.s.b.newTurn(in.done)
	in.s.mu.Lock()
	if in.s.link == in {
		in.s.pump(t)
	}
	in.s.mu.Unlock()
	in.s.b.endTurn(t)
}

// wants reports whether the box for live messages, or the other one, is empty.
func (in *inbox) wants(live bool) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if live {
		return in.live.ready.len() == 0
	}
	return in.box.ready.len() == 0
}

func (in *inbox) Ack(seq uint64) {
	select {
	case <-in.done:
		return // the message comes again
	default:
	}
	t := in.s.b.newTurn(in.done)
	in.s.ackSeq(t, seq)
	in.s.b.endTurn(t)
}

func (in *inbox) Drop(d mqtt.Delivery, reason string) {
	select {
	case <-in.done:
		return // the message comes again
	default:
	}
	t := in.s.b.newTurn(in.done)
	in.s.dropSeq(t, d.Seq, d.Topic, reason)
	in.s.b.endTurn(t)
}

func (in *inbox) Arrived() (messages, bytes uint64) {
	now := in.s.arrivals()
	return now.messages - in.before.messages, now.bytes - in.before.bytes
}

func (in *inbox) Close() {
	in.end(mqtt.ErrClosed)
	t := in.s.b.newTurn(in.done)
	in.s.detach(t, in)
	in.s.b.endTurn(t)
}

// The methods of a consumer.

func (in *inbox) takes(int) bool { return true }

func (in *inbox) deliver(it item, now int64, _ bool) (flush bool) {
	payload := it.body.payload()
	if it.qos == mqtt.AtMostOnce {
		payload = bytes.Clone(payload) // its body may be scratch
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if it.qos == mqtt.AtMostOnce {
		if in.loose+it.size() > in.s.bounds.MaxMemory {
			in.s.drop(1)
			return false
		}
		in.loose += it.size()
	}
	d := in.s.b.deliveryOf(&it, in.names.of(it.body.topic()), now, in.s.b.line())
	d.Payload = payload
	if it.live || in.lanes && it.qos == mqtt.AtMostOnce {
		in.live.ready.push(d)
	} else {
		in.box.ready.push(d)
	}
	return true
}

// release is never needed: an inbox acknowledges at once.
func (in *inbox) release(uint16) bool { return false }

func (in *inbox) full(int) bool { return false }

// flush wakes whoever waits for what was delivered, and nobody who waits for the other
// kind.
func (in *inbox) flush(*turn) {
	in.mu.Lock()
	backlog, live := in.box.ready.len() > 0, in.live.ready.len() > 0
	in.mu.Unlock()
	if backlog {
		in.box.poke()
	}
	if live {
		in.live.poke()
	}
}

func (in *inbox) end(error) { in.ended.Do(func() { close(in.done) }) }
