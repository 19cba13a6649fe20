package client

import (
	"context"
	"errors"
	"fmt"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// Subscribe asks for messages and waits for the answer: for each subscription
// the QoS that was granted, or [mqtt.QoSFailure], which is no error here.
func (c *Conn) Subscribe(ctx context.Context, subs ...mqtt.Subscription) ([]mqtt.QoS, error) {
	for _, s := range subs {
		if !s.QoS.Valid() {
			return nil, fmt.Errorf("subscribe to %q: QoS %d is not 0, 1 or 2", s.Filter, s.QoS)
		}
		if err := mqtt.ValidFilter(s.Filter); err != nil {
			return nil, fmt.Errorf("subscribe: %w", err)
		}
	}
	var codes []mqtt.QoS
	err := c.request(ctx, len(subs), call{await: packet.TypeSuback, codes: &codes}, func(dst []byte, id uint16) []byte {
		return (&packet.Subscribe{ID: id, Subscriptions: subs}).Append(dst)
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("subscribe: %w", err)
	case len(codes) != len(subs):
		return nil, fmt.Errorf("subscribe: the broker answers %d filters with %d return codes [MQTT-3.8.4-5]", len(subs), len(codes))
	}
	return codes, nil
}

// Unsubscribe gives subscriptions back and waits for the answer.
func (c *Conn) Unsubscribe(ctx context.Context, filters ...string) error {
	for _, f := range filters {
		if err := mqtt.ValidFilter(f); err != nil {
			return fmt.Errorf("unsubscribe: %w", err)
		}
	}
	err := c.request(ctx, len(filters), call{await: packet.TypeUnsuback}, func(dst []byte, id uint16) []byte {
		return (&packet.Unsubscribe{ID: id, Filters: filters}).Append(dst)
	})
	if err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return nil
}

// request sends the packet of n filters that appendTo builds and waits for its
// answer.
func (c *Conn) request(ctx context.Context, n int, call call, appendTo func(dst []byte, id uint16) []byte) error {
	if n == 0 {
		return errors.New("at least one filter is needed")
	}
	result := make(chan error, 1)
	call.done = func(err error) { result <- err }
	if err := c.sendRequest(ctx, call, appendTo); err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Conn) sendRequest(ctx context.Context, call call, appendTo func(dst []byte, id uint16) []byte) error {
	if err := c.lockToSend(ctx); err != nil {
		return err
	}
	defer c.unlockAndWake()
	id, err := c.addCallLocked(call)
	if err != nil {
		return err
	}
	c.out.bytes = appendTo(c.out.bytes, id)
	return nil
}
