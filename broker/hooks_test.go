package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/broker/auth"
	"tidegate/internal/client"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// The hooks of these tests are functions.
type (
	authenticate func(context.Context, auth.Request) (auth.Identity, error)
	authorize    func(auth.Identity, auth.Action, string) bool
	onPublish    func(context.Context, Client, mqtt.Message) (mqtt.Message, error)
	onDeliver    func(Client, mqtt.Message)
	onEvent      func(Event)
	events       chan Event
)

func (f authenticate) Authenticate(ctx context.Context, r auth.Request) (auth.Identity, error) {
	return f(ctx, r)
}

func (f authorize) Allowed(id auth.Identity, a auth.Action, topic string) bool {
	return f(id, a, topic)
}

func (f onPublish) OnPublish(ctx context.Context, from Client, m mqtt.Message) (mqtt.Message, error) {
	return f(ctx, from, m)
}

func (f onDeliver) OnDeliver(to Client, m mqtt.Message) { f(to, m) }
func (f onEvent) OnEvent(e Event)                       { f(e) }
func (c events) OnEvent(e Event)                        { c <- e }

func TestAuthenticatorDecides(t *testing.T) {
	requests := make(chan auth.Request, 10)
	d := newBed(t, func(d *bed) {
		d.opts.Hooks.Authenticator = authenticate(func(ctx context.Context, r auth.Request) (auth.Identity, error) {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("the context has no end")
			}
			requests <- r
			switch r.User {
			case "good":
				return auth.Identity{User: "known"}, nil
			case "bad":
				return auth.Identity{}, fmt.Errorf("card 7: %w", auth.ErrBadCredentials)
			case "blocked":
				return auth.Identity{}, auth.ErrNotAuthorized
			}
			return auth.Identity{}, errors.New("the directory does not answer")
		})
		d.opts.Hooks.Authorizer = authorize(func(id auth.Identity, _ auth.Action, topic string) bool {
			return id == auth.Identity{User: "known", ClientID: "x"} && topic == "a"
		})
	})
	good := d.dial("x", func(o *client.Options) { o.Username, o.Password = "good", "secret" })
	good.subscribe("a", 1)
	good.publish("a", "hello", 1)
	good.want("a", "hello", 1)
	r := <-requests
	if r.ClientID != "x" || !r.HasUser || string(r.Password) != "secret" || !strings.HasPrefix(r.Remote, "127.0.0.1:") {
		t.Errorf("asked about %+v", r)
	}
	d.refused(client.Options{ClientID: "x", Username: "bad"}, packet.RefusedCredentials, packet.ReasonBadUsernameOrPassword)
	d.refused(client.Options{ClientID: "x", Username: "blocked"}, packet.RefusedNotAuthorized, packet.ReasonNotAuthorized)
	d.refused(client.Options{ClientID: "x", Username: "else"}, packet.RefusedUnavailable, packet.ReasonServerUnavailable)
}

// However long an authenticator takes, only its client waits, and neither longer
// than connect_timeout nor beyond the end of the broker.
func TestSlowAuthenticator(t *testing.T) {
	for _, stop := range []bool{false, true} {
		t.Run(fmt.Sprintf("the broker stops %v", stop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newBed(t, func(d *bed) {
					d.cfg.Listeners = nil
					d.cfg.Limits.ConnectTimeout = units.Duration(5 * time.Second)
					d.opts.Hooks.Authenticator = authenticate(func(ctx context.Context, r auth.Request) (auth.Identity, error) {
						if r.ClientID == "quick" {
							return auth.Identity{}, nil
						}
						<-ctx.Done()
						return auth.Identity{}, ctx.Err()
					})
				})
				start := time.Now()
				slow := d.piped(clean("slow"))
				quick := d.piped(clean("quick"))
				quick.connack(packet.Accepted, false)
				quick.fence()
				synctest.Wait()
				if stop {
					go d.stop()
				} else {
					slow.connack(packet.RefusedUnavailable, false)
				}
				slow.drain()
				want := 5 * time.Second
				if stop {
					want = 0
				}
				if took := time.Since(start); took != want {
					t.Errorf("ended after %v, want %v", took, want)
				}
			})
		})
	}
}

// drain reads until the connection has ended.
func (w *wire) drain() {
	_ = w.c.SetReadDeadline(time.Time{})
	for {
		if _, err := w.r.Next(); err != nil {
			return
		}
	}
}

func TestPublishHook(t *testing.T) {
	reason := errors.New("not while the pump runs")
	var asked atomic.Int32
	hook := onPublish(func(ctx context.Context, from Client, m mqtt.Message) (mqtt.Message, error) {
		asked.Add(1)
		if from.ID != "pub" || from.User != "" || !strings.HasPrefix(from.Remote, "127.0.0.1:") || ctx.Err() != nil {
			t.Errorf("asked for %+v, %v", from, ctx.Err())
		}
		switch m.Topic {
		case "change":
			m.Topic, m.Payload, m.Retain, m.QoS = "changed", append(m.Payload, '!'), false, 2-m.QoS
			return m, nil
		case "vanish":
			return m, fmt.Errorf("a copy: %w", ErrDropped)
		case "refuse":
			return m, reason
		case "forbid":
			return m, auth.ErrNotAuthorized
		case "break":
			m.Topic = "a/#"
		case "swell":
			m.Payload = make([]byte, 2<<20)
		}
		return m, nil
	})
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
			t.Run(fmt.Sprintf("MQTT %s, QoS %d", version, q), func(t *testing.T) {
				asked.Store(0)
				d := newBed(t, func(d *bed) { d.opts.Hooks.Publish = hook })
				sub := d.dial("sub", nil)
				sub.subscribe("#", 2)
				pub := d.dial("pub", func(o *client.Options) { o.Version = version })
				for topic, want := range map[string]packet.Reason{
					"vanish": packet.ReasonSuccess, "refuse": packet.ReasonImplementationError, "forbid": packet.ReasonNotAuthorized,
					"break": packet.ReasonImplementationError, "swell": packet.ReasonImplementationError,
				} {
					words := map[string]string{"refuse": reason.Error(), "forbid": "not authorized", "break": "a/#", "swell": "2097157 bytes"}[topic]
					err := pub.Publish(d.ctx(), mqtt.Message{Topic: topic, QoS: q, Retain: true})
					var told *client.ReasonError
					if version == packet.V5 && q > 0 && want.Failed() {
						if !errors.As(err, &told) || told.Reason != want || !strings.Contains(told.Properties.Text(packet.PropReasonString), words) {
							t.Errorf("%s: %v, want reason 0x%02x and %q", topic, err, byte(want), words)
						}
					} else if err != nil {
						t.Errorf("%s: %v", topic, err)
					}
				}
				pub.retain("change", "hello", q)
				sub.want("changed", "hello!", q)
				pub.publish("same", "x", q)
				sub.want("same", "x", q)
				if n := asked.Load(); n != 7 {
					t.Errorf("asked %d times for 7 messages", n)
				}
				if n := d.b.Status().Retained; n != 0 {
					t.Errorf("%d messages are kept", n)
				}
			})
		}
	}
}

// A QoS 2 message that comes twice is one message to the hook.
func TestPublishHookIsAskedOncePerMessage(t *testing.T) {
	var asked atomic.Int32
	d := newBed(t, func(d *bed) {
		d.opts.Hooks.Publish = onPublish(func(_ context.Context, _ Client, m mqtt.Message) (mqtt.Message, error) {
			asked.Add(1)
			return m, ErrDropped
		})
	})
	w := d.connect("x", false)
	for range 3 {
		w.publish("a", "x", 2, 7, false)
		w.wantAck(packet.TypePubrec, 7)
	}
	w.ack(packet.TypePubrel, 7)
	w.wantAck(packet.TypePubcomp, 7)
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestPublishHookSeesWills(t *testing.T) {
	d := newBed(t, func(d *bed) {
		d.opts.Hooks.Publish = onPublish(func(_ context.Context, from Client, m mqtt.Message) (mqtt.Message, error) {
			if from.ID == "quiet" {
				return m, ErrDropped
			}
			m.Payload = []byte(from.ID)
			return m, nil
		})
	})
	sub := d.dial("sub", nil)
	sub.subscribe("will", 1)
	for _, id := range []string{"quiet", "loud"} {
		d.dial(id, func(o *client.Options) { o.Will = &mqtt.Message{Topic: "will", Payload: []byte("gone"), QoS: 1} }).Close()
	}
	sub.want("will", "loud", 1)
}

func TestDeliverHookSeesWhatClientsGet(t *testing.T) {
	type delivery struct {
		to Client
		m  mqtt.Message
	}
	seen := make(chan delivery, 10)
	d := newBed(t, func(d *bed) {
		d.opts.Hooks.Deliver = onDeliver(func(to Client, m mqtt.Message) {
			m.Payload = slices.Clone(m.Payload)
			seen <- delivery{to, m}
		})
	})
	sub := d.dial("sub", nil)
	sub.subscribe("a", 1)
	for q := range mqtt.QoS(2) {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: []byte("x"), QoS: q}); err != nil {
			t.Fatal(err)
		}
		sub.want("a", "x", q)
		if got := <-seen; got.to.ID != "sub" || got.m.Topic != "a" || string(got.m.Payload) != "x" || got.m.QoS != q {
			t.Errorf("saw %+v", got)
		}
	}
}

func TestEvents(t *testing.T) {
	seen := make(events, 100)
	d := newBed(t, func(d *bed) {
		guarded(rules)(d)
		d.opts.Hooks.Event = seen
	})
	want := func(kind EventKind, id, user, topic string, reason error) {
		t.Helper()
		e := <-seen
		if e.Kind != kind || e.Client.ID != id || e.Client.User != user || e.Topic != topic || !errors.Is(e.Reason, reason) {
			t.Fatalf("got %s %+v, want %s of %q, %q, topic %q, %v", e.Kind, e, kind, id, user, topic, reason)
		}
	}
	_, err := client.Dial(d.ctx(), d.b.Addrs()[0].String(), client.Options{ClientID: "x", CleanSession: true, Username: "alice", Password: "wrong"})
	if err == nil {
		t.Fatal("let in")
	}
	want(Refused, "x", "", "", auth.ErrBadCredentials)
	p := d.dial("x", as("alice"))
	want(Connected, "x", "alice", "", nil)
	p.subscribe("home/#", 1)
	want(Subscribed, "x", "alice", "home/#", nil)
	if _, err := p.Subscribe(d.ctx(), mqtt.Subscription{Filter: "outbox"}); err != nil {
		t.Fatal(err)
	}
	want(Denied, "x", "alice", "outbox", auth.ErrNotAuthorized)
	p.publish("elsewhere", "", 1)
	want(Denied, "x", "alice", "elsewhere", auth.ErrNotAuthorized)
	if err := p.Unsubscribe(d.ctx(), "home/#", "never"); err != nil {
		t.Fatal(err)
	}
	want(Unsubscribed, "x", "alice", "home/#", nil)
	p.Disconnect()
	want(Disconnected, "x", "alice", "", errDisconnected)
}

func TestDroppedMessagesAreAnEvent(t *testing.T) {
	dropped := make(events, 1)
	d := newBed(t, func(d *bed) {
		d.opts.Hooks.Event = onEvent(func(e Event) {
			if e.Kind == Dropped {
				select {
				case dropped <- e:
				default:
				}
			}
		})
	})
	slow := d.wire(clean("slow"))
	slow.connack(packet.Accepted, false)
	slow.subscribe("a", 0)
	for len(dropped) == 0 {
		if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "a", Payload: make([]byte, 64<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if e := <-dropped; e.Client.ID != "slow" || e.Count != 1 {
		t.Errorf("got %+v", e)
	}
}

// A panic ends the connection that the hook was called for, and nothing else.
func TestPanickingHooksEndTheirConnection(t *testing.T) {
	for name, hooks := range map[string]Hooks{
		"Authenticator": {Authenticator: authenticate(func(_ context.Context, r auth.Request) (auth.Identity, error) {
			if r.ClientID == "victim" {
				panic("boom")
			}
			return auth.Identity{}, nil
		})},
		"Authorizer": {Authorizer: authorize(func(id auth.Identity, a auth.Action, topic string) bool {
			if id.ClientID == "victim" && topic == "bang" {
				panic("boom")
			}
			return true
		})},
		"OnPublish": {Publish: onPublish(func(_ context.Context, _ Client, m mqtt.Message) (mqtt.Message, error) {
			if m.Topic == "bang" {
				panic("boom")
			}
			return m, nil
		})},
		"OnDeliver": {Deliver: onDeliver(func(to Client, m mqtt.Message) {
			if to.ID == "victim" && m.Topic == "bang" {
				panic("boom")
			}
		})},
		"OnEvent": {Event: onEvent(func(e Event) {
			if e.Kind == Subscribed && e.Topic == "bang" {
				panic("boom")
			}
		})},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			d := newBed(t, func(d *bed) {
				d.opts.Hooks = hooks
				d.handler = log.handler()
			})
			other := d.dial("other", nil)
			other.subscribe("#", 1)
			w := d.wire(clean("victim"))
			if name == "Authenticator" {
				w.connack(packet.RefusedUnavailable, false)
			} else {
				w.connack(packet.Accepted, false)
				s := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "bang", QoS: 1}}}
				p := packet.Publish{Topic: []byte("bang"), QoS: 1, ID: 2}
				_, _ = w.c.Write(p.Append(s.Append(nil)))
			}
			w.drain()
			d.dial("victim2", nil).Disconnect()
			other.publish("after", "still here", 1)
			for other.next() != "after" { // the others may have got bang
			}
			d.stop()
			if text := log.String(); !strings.Contains(text, "a hook panicked") || !strings.Contains(text, "boom") || !strings.Contains(text, name) {
				t.Errorf("the log does not tell:\n%s", text)
			}
		})
	}
}

// An authorizer that panics while the readers of a message are found says no.
func TestPanickingAuthorizerIsNoPermission(t *testing.T) {
	d := newBed(t, func(d *bed) {
		d.handler = new(logged).handler()
		d.opts.Hooks.Authorizer = authorize(func(_ auth.Identity, a auth.Action, topic string) bool {
			if a == auth.Read && topic == "bang" {
				panic("boom")
			}
			return true
		})
	})
	sub := d.dial("sub", nil)
	sub.subscribe("#", 1)
	if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "bang", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	sub.publish("after", "", 1)
	sub.want("after", "", 1)
}

func TestReloadForgetsWhatTheAuthorizerSaid(t *testing.T) {
	var yes atomic.Bool
	d := newBed(t, func(d *bed) {
		d.opts.Hooks.Authorizer = authorize(func(_ auth.Identity, a auth.Action, _ string) bool { return a != auth.Read || yes.Load() })
	})
	sub := d.dial("sub", nil)
	sub.subscribe("a", 1)
	sub.publish("a", "1", 1)
	yes.Store(true)
	if err := d.b.Reload(); err != nil {
		t.Fatal(err)
	}
	sub.publish("a", "2", 1)
	sub.want("a", "2", 1)
}

func TestEventKindsHaveNames(t *testing.T) {
	for kind, want := range map[EventKind]string{Connected: "connected", Dropped: "dropped", 0: "event 0", 99: "event 99"} {
		if kind.String() != want {
			t.Errorf("%d is called %q, want %q", byte(kind), kind, want)
		}
	}
}

// What nobody hooks into costs a publication nothing.
func TestJudgingCostsNothingWithoutHooks(t *testing.T) {
	b := benchBroker(t)
	ours, theirs := net.Pipe()
	defer ours.Close()
	c := newConn(b, theirs)
	defer c.endNow(errShutdown)
	p := publication{topic: []byte("a/b"), payload: []byte("x")}
	if n := testing.AllocsPerRun(100, func() {
		if v, err := c.judge(&c.turn, &p); v.drop || err != nil {
			t.Error(v, err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
