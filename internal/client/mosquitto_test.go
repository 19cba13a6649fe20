package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tidegate/internal/testbed"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// dial opens a connection that hands its messages to a channel.
func dial(t *testing.T, addr string, o Options) (*Conn, <-chan Message) {
	t.Helper()
	messages := make(chan Message, 10000)
	o.Handler = func(m Message) { messages <- m }
	c, err := Dial(deadline(t), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, messages
}

// deadline bounds a step with a real broker.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func receive(t *testing.T, messages <-chan Message) Message {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-deadline(t).Done():
		t.Fatal("no message came")
		return Message{}
	}
}

func TestMosquittoEveryQoSAndVersion(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		for q := range mqtt.QoS(3) {
			t.Run(fmt.Sprintf("MQTT %s QoS %d", v, q), func(t *testing.T) {
				topic := fmt.Sprintf("t/%s/%d", v, q)
				c, messages := dial(t, addr, Options{ClientID: "c", CleanSession: true, Version: v, KeepAlive: time.Minute})
				codes, err := c.Subscribe(deadline(t), mqtt.Subscription{Filter: topic, QoS: 2})
				if err != nil || codes[0] != 2 {
					t.Fatalf("granted %v, %v", codes, err)
				}
				if err := c.Publish(deadline(t), message(topic, "hello", q)); err != nil {
					t.Fatal(err)
				}
				m := receive(t, messages)
				if m.Topic != topic || string(m.Payload) != "hello" || m.QoS != q || m.Dup || m.Retain || (m.ID == 0) != (q == 0) {
					t.Errorf("got %+v", m)
				}
				if err := c.Unsubscribe(deadline(t), topic); err != nil {
					t.Error(err)
				}
				if err := c.Disconnect(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Thousands of pipelined messages arrive, in order, each once.
func TestMosquittoPipelining(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 0").Addr
	for q := range mqtt.QoS(3) {
		t.Run(fmt.Sprintf("QoS %d", q), func(t *testing.T) {
			const count = 3000
			sub, messages := dial(t, addr, Options{ClientID: "sub", CleanSession: true})
			if _, err := sub.Subscribe(deadline(t), mqtt.Subscription{Filter: "n", QoS: 2}); err != nil {
				t.Fatal(err)
			}
			pub, _ := dial(t, addr, Options{ClientID: "pub", CleanSession: true, Window: 100})
			acknowledged, ctx := make(chan error, count), deadline(t)
			for i := range count {
				m := message("n", fmt.Sprint(i), q)
				if err := pub.PublishAsync(ctx, m, func(err error) { acknowledged <- err }); err != nil {
					t.Fatal(err)
				}
			}
			for i := range count {
				if m := receive(t, messages); string(m.Payload) != fmt.Sprint(i) {
					t.Fatalf("message %d is %q", i, m.Payload)
				}
				if err := <-acknowledged; err != nil {
					t.Fatal(err)
				}
			}
			if len(messages) > 0 {
				t.Errorf("%d messages too many", len(messages))
			}
		})
	}
}

func TestMosquittoKeepsASession(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	c, _ := dial(t, addr, Options{ClientID: "sleeper"})
	if c.SessionPresent() {
		t.Error("a new session is said to be present")
	}
	if _, err := c.Subscribe(deadline(t), mqtt.Subscription{Filter: "a", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}

	other, _ := dial(t, addr, Options{ClientID: "other", CleanSession: true})
	if err := other.Publish(deadline(t), message("a", "while away", 1)); err != nil {
		t.Fatal(err)
	}

	// Not acknowledged, the message comes again with the next connection.
	c, messages := dial(t, addr, Options{ClientID: "sleeper", ManualAck: true})
	if !c.SessionPresent() {
		t.Error("the session is gone")
	}
	if m := receive(t, messages); string(m.Payload) != "while away" || m.Dup {
		t.Errorf("got %+v", m)
	}
	c.Close()
	c, messages = dial(t, addr, Options{ClientID: "sleeper", ManualAck: true})
	m := receive(t, messages)
	if string(m.Payload) != "while away" || !m.Dup {
		t.Errorf("got %+v, want it marked as sent again", m)
	}
	if err := c.Ack(m); err != nil {
		t.Error(err)
	}
	if err := c.Disconnect(); err != nil {
		t.Error(err)
	}
}

func TestMosquittoPublishesTheWillUnlessDisconnected(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	watcher, messages := dial(t, addr, Options{ClientID: "watcher", CleanSession: true})
	if _, err := watcher.Subscribe(deadline(t), mqtt.Subscription{Filter: "will/+", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name string
		with func(*Conn)
	}{
		{"orderly", func(c *Conn) {
			if err := c.Disconnect(); err != nil {
				t.Error(err)
			}
		}},
		{"closed", (*Conn).Close},
	} {
		will := message("will/"+end.name, "gone", 1)
		c, _ := dial(t, addr, Options{ClientID: "mortal", CleanSession: true, Will: &will})
		end.with(c)
	}
	if m := receive(t, messages); m.Topic != "will/closed" || string(m.Payload) != "gone" {
		t.Errorf("got %s %q, want the will of the closed connection only", m.Topic, m.Payload)
	}
}

// Unread bytes of the broker must not turn the end into a reset that swallows the
// DISCONNECT: the will would be published.
func TestMosquittoDisconnectWithMessagesUnderWay(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true", "max_queued_messages 0").Addr
	watcher, wills := dial(t, addr, Options{ClientID: "watcher", CleanSession: true})
	if _, err := watcher.Subscribe(deadline(t), mqtt.Subscription{Filter: "will"}, mqtt.Subscription{Filter: "end"}); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	for range 20 {
		will := message("will", "gone", 0)
		c, _ := dial(t, addr, Options{ClientID: "busy", CleanSession: true, Will: &will})
		if _, err := c.Subscribe(deadline(t), mqtt.Subscription{Filter: "flood"}); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			if err := watcher.PublishAsync(ctx, message("flood", strings.Repeat("x", 1000), 0), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
	}
	if err := watcher.Publish(deadline(t), message("end", "", 0)); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, wills); m.Topic != "end" {
		t.Errorf("got %s, want no will", m.Topic)
	}
}

func TestMosquittoRefusesStrangers(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous false").Addr
	_, err := Dial(deadline(t), addr, Options{ClientID: "c", Username: "nobody", Password: "wrong"})
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || refused.Code != packet.RefusedNotAuthorized {
		t.Errorf("got %v", err)
	}
}

func TestMosquittoAnswersPings(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	c, _ := dial(t, addr, Options{ClientID: "c", CleanSession: true})
	if err := c.ping(); err != nil {
		t.Fatal(err)
	}
	// The answer to the SUBSCRIBE comes behind the PINGRESP.
	if _, err := c.Subscribe(deadline(t), mqtt.Subscription{Filter: "a"}); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pinging {
		t.Error("no PINGRESP came")
	}
}

func TestDialNobody(t *testing.T) {
	if _, err := Dial(deadline(t), testbed.ReserveAddr(t), Options{CleanSession: true}); err == nil || !strings.Contains(err.Error(), "connect to the broker") {
		t.Errorf("got %v", err)
	}
}
