package broker

import (
	"context"
	"errors"
	"fmt"
	"math"

	"tidegate/mqtt"
)

// A bridge takes messages of QoS 2 as the broker takes them from its clients: with a
// receipt, which is on disk with the message before the server upstream is answered.

var errUnderWay = errors.New("a message with the same identifier is not yet through; it comes again")

// PublishOnce publishes unless there is a receipt, see [mqtt.Inbox].
func (in *inbox) PublishOnce(ctx context.Context, id uint16, m mqtt.Message, done func(error)) (known bool, err error) {
	s := in.s
	r, known, err := s.receive(id, math.MaxInt)
	switch {
	case err != nil:
		return false, err
	case known:
		return true, s.repeat(r, waiter{done: done})
	}
	p := publication{waiter: waiter{done: done}, from: s, relay: true, mark: s.receiptKey(id), receipt: r, once: true}
	if err := s.b.publishAs(ctx, m, p); err != nil {
		s.takeReceipt(id, r)
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.routed = true
	return false, nil
}

// repeat tells w when the message of r is safe, which came once more. Somebody whose
// connection is lost may still be at work on it, and fail.
func (s *session) repeat(r *receipt, w waiter) error {
	s.mu.Lock()
	routed := r.routed
	s.mu.Unlock()
	if !routed {
		return errUnderWay
	}
	if r.rec == nil || !s.b.commit.wait(r.rec, w) {
		w.done(nil)
	}
	return nil
}

// Release ends a receipt, see [mqtt.Inbox].
func (in *inbox) Release(id uint16, done func(error)) {
	s := in.s
	s.mu.Lock()
	r := s.received[id]
	under := r != nil && !r.routed
	s.mu.Unlock()
	switch {
	case r == nil:
		done(nil)
	case under:
		done(errUnderWay)
	default:
		s.unmark(r, s.b.now()+s.b.commit.interval, done)
	}
}

// unmark has the store forget r, and then the session.
func (s *session) unmark(r *receipt, due int64, done func(error)) {
	s.b.commit.mark(s.receiptKey(r.id), nil, due, func(_ *turn, err error) {
		if err == nil {
			s.takeReceipt(r.id, r)
		}
		done(err)
	})
}

// ReleaseAll ends all receipts, see [mqtt.Inbox].
func (in *inbox) ReleaseAll(ctx context.Context) error {
	list, err := in.s.receipts()
	if err != nil {
		return err
	}
	ended := make(chan error, len(list))
	for _, r := range list {
		in.s.unmark(r, in.s.b.now(), func(err error) { ended <- err })
	}
	for range list {
		select {
		case err = <-ended:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("forget what was received of an earlier session: %w", err)
		}
	}
	return nil
}

// receipts returns those of an inbox.
func (s *session) receipts() (list []*receipt, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.received {
		if !r.routed {
			return nil, errUnderWay
		}
		list = append(list, r)
	}
	return list, nil
}
