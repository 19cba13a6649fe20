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
	reasons, _, err := c.SubscribeReasons(ctx, subs...)
	if err != nil {
		return nil, err
	}
	codes := make([]mqtt.QoS, len(reasons))
	for i, reason := range reasons {
		codes[i] = mqtt.QoS(reason)
		if reason.Failed() {
			codes[i] = mqtt.QoSFailure
		}
	}
	return codes, nil
}

// SubscribeReasons is Subscribe with the answers of MQTT 5, which say why the
// broker refuses, and the properties of the SUBACK. All subscriptions must have the
// same identifier.
func (c *Conn) SubscribeReasons(ctx context.Context, subs ...mqtt.Subscription) ([]packet.Reason, packet.Properties, error) {
	s := packet.Subscribe{Version: c.options.Version, Subscriptions: subs}
	for _, sub := range subs {
		if err := c.checkSubscription(sub); err != nil {
			return nil, nil, fmt.Errorf("subscribe to %q: %w", sub.Filter, err)
		}
		if sub.ID != subs[0].ID {
			return nil, nil, errors.New("subscribe: one SUBSCRIBE has one subscription identifier")
		}
	}
	if len(subs) > 0 && subs[0].ID != 0 {
		s.Properties = s.Properties.AppendUint(packet.PropSubscriptionID, subs[0].ID)
	}
	a, err := c.request(ctx, len(subs), packet.TypeSuback, func(dst []byte, id uint16) []byte {
		s.ID = id
		return s.Append(dst)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe: %w", err)
	}
	return a.reasons, a.properties, nil
}

func (c *Conn) checkSubscription(s mqtt.Subscription) error {
	const maxID = 1<<28 - 1
	switch {
	case !s.QoS.Valid():
		return fmt.Errorf("QoS %d is not 0, 1 or 2", s.QoS)
	case s.RetainHandling > 2:
		return fmt.Errorf("retain handling %d is not 0, 1 or 2", s.RetainHandling)
	case s.ID > maxID:
		return fmt.Errorf("the subscription identifier %d is over %d", s.ID, maxID)
	}
	if plain := (mqtt.Subscription{Filter: s.Filter, QoS: s.QoS}); s != plain {
		if err := c.only5("subscription options"); err != nil {
			return err
		}
	}
	return mqtt.ValidFilter(s.Filter)
}

// Unsubscribe gives subscriptions back and waits for the answer. A broker of
// MQTT 5 may refuse, which is a [*ReasonError].
func (c *Conn) Unsubscribe(ctx context.Context, filters ...string) error {
	for _, f := range filters {
		if err := mqtt.ValidFilter(f); err != nil {
			return fmt.Errorf("unsubscribe: %w", err)
		}
	}
	u := packet.Unsubscribe{Version: c.options.Version, Filters: filters}
	a, err := c.request(ctx, len(filters), packet.TypeUnsuback, func(dst []byte, id uint16) []byte {
		u.ID = id
		return u.Append(dst)
	})
	if err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	for i, reason := range a.reasons {
		if err := failure(packet.TypeUnsuback, reason, a.properties); err != nil {
			return fmt.Errorf("unsubscribe from %q: %w", filters[i], err)
		}
	}
	return nil
}

// answer is what a SUBACK or UNSUBACK says.
type answer struct {
	reasons    []packet.Reason
	properties packet.Properties
}

// request sends the packet of n filters that appendTo builds and waits for its
// answer, which has n reasons except for an UNSUBACK before MQTT 5.
func (c *Conn) request(ctx context.Context, n int, await packet.Type, appendTo func(dst []byte, id uint16) []byte) (answer, error) {
	if n == 0 {
		return answer{}, errors.New("at least one filter is needed")
	}
	var a answer
	result := make(chan error, 1)
	call := call{await: await, done: func(err error) { result <- err }, answer: &a}
	if err := c.sendRequest(ctx, call, appendTo); err != nil {
		return answer{}, err
	}
	select {
	case err := <-result:
		if err != nil {
			return answer{}, err
		}
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
	if len(a.reasons) != n && (await == packet.TypeSuback || c.options.Version == packet.V5) {
		return answer{}, fmt.Errorf("the broker answers %d filters with %d return codes [MQTT-3.8.4-5]", n, len(a.reasons))
	}
	return a, nil
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
	return c.keepCallLocked(id, appendTo(c.out.bytes, id))
}
