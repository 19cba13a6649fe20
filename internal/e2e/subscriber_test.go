//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"

	"tidegate/internal/client"
	"tidegate/mqtt"
)

// subscriber is a local client of the gateway that connects again at once.
type subscriber struct {
	watched
	t          testing.TB
	g          *gateway
	options    client.Options
	wants      mqtt.Subscription
	shown      *ledger // what it was shown, which is at least what it has confirmed
	connects   int
	subscribed bool
}

// subscribe starts a subscriber and returns when it has subscribed.
func subscribe(t testing.TB, g *gateway, wants mqtt.Subscription, clean bool) *subscriber {
	t.Helper()
	s := &subscriber{t: t, g: g, wants: wants, shown: newLedger()}
	s.options = client.Options{ClientID: "watcher", CleanSession: clean, Handler: s.show}
	background(t, s.run)
	s.await(t, "a local subscription", func() bool { return s.subscribed })
	return s
}

func (s *subscriber) show(m client.Message) {
	if _, ours := number(m.Payload); ours && m.QoS != s.wants.QoS {
		s.t.Errorf("%s came at QoS %d", m.Topic, m.QoS)
	}
	s.shown.add(m.Topic, m.Payload)
}

func (s *subscriber) run(ctx context.Context) {
	for {
		conn, err := s.g.dial(ctx, s.options)
		if err != nil {
			return
		}
		if err := s.request(ctx, conn); err == nil {
			s.update(func() { s.connects++; s.subscribed = true })
		}
		select {
		case <-conn.Done():
		case <-ctx.Done():
		}
		conn.Close()
		s.update(func() { s.subscribed = false })
	}
}

// request subscribes. If it fails, the connection has ended or is made to.
func (s *subscriber) request(ctx context.Context, conn *client.Conn) error {
	codes, err := conn.Subscribe(ctx, s.wants)
	if err == nil && codes[0] != s.wants.QoS {
		err = fmt.Errorf("subscribed to %s at QoS %d, granted %d", s.wants.Filter, s.wants.QoS, codes[0])
		s.t.Error(err)
	}
	if err != nil {
		conn.Close()
	}
	return err
}
