package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"tidegate/broker/auth"
	"tidegate/mqtt"
)

// Hooks are where a program that embeds the broker takes part in its decisions
// and sees what happens. A nil hook costs nothing.
//
// Hooks are called from the goroutines of the connections, several at a time.
// They are about network clients: what is published in the process, and inboxes,
// are the program's own. A hook that panics ends the connection that it was
// called for.
type Hooks struct {
	Authenticator auth.Authenticator // says who a client is; nil: the password file does
	Authorizer    auth.Authorizer    // says what it may do; nil: the ACL file does. It must not call the broker

	// Methods are the authentication methods by name that clients of MQTT 5 may
	// ask for, instead of the Authenticator. Any other name is refused. The map
	// must not change any more.
	Methods map[string]auth.Method

	Publish PublishHook
	Deliver DeliverHook
	Event   EventHook
}

// Client is who a hook is called about.
type Client struct {
	ID     string // client identifier
	User   string // as authenticated; "": anonymous
	Remote string // where it comes from, as "192.0.2.7:49152"; "": it is not connected
}

func (c Client) identity() auth.Identity { return auth.Identity{User: c.User, ClientID: c.ID} }

// PublishHook sees every message that a client publishes, and every will, once
// the client is known to have the right to. It may take its time: only this
// client waits.
type PublishHook interface {
	// OnPublish returns the message that is passed on: m, or another one with
	// the same QoS. An error that wraps [ErrDropped] drops it and lets the
	// client believe that all is well. Any other refuses it: an MQTT 5 client is
	// told so, with "not authorized" if the error wraps [auth.ErrNotAuthorized]
	// and the first 200 bytes of the error's text as the reason string; older
	// versions have no words for it and get the usual acknowledgement.
	// When ctx is done, the connection is at its end.
	OnPublish(ctx context.Context, from Client, m mqtt.Message) (mqtt.Message, error)
}

// ErrDropped means that a [PublishHook] wants a message to vanish.
var ErrDropped = errors.New("dropped by a hook")

// DeliverHook sees every message that is handed to a client's connection, also
// one that is sent again.
type DeliverHook interface {
	// OnDeliver is called with a lock held: it must be quick and must not call
	// the broker. m.Payload is shared; it must not be written, nor kept at QoS 0.
	OnDeliver(to Client, m mqtt.Message)
}

// EventHook sees what happens to clients.
type EventHook interface {
	// OnEvent may be called with a lock held: it must be quick and must not call
	// the broker. A channel with room is a good place to put e.
	OnEvent(e Event)
}

// Event is something that happened to a client.
type Event struct {
	Kind   EventKind
	Client Client
	Topic  string // the filter of a subscription, the topic of what was denied; else empty
	Count  uint64 // Dropped: how many messages
	Reason error  // Refused, Disconnected, Denied: why
}

// EventKind is what happened.
type EventKind uint8

// The kinds of event.
const (
	Connected    EventKind = iota + 1 // the client's CONNECT was accepted
	Refused                           // a connection ended without an accepted CONNECT
	Disconnected                      // the client is gone
	Subscribed
	Unsubscribed
	Denied  // a message or a subscription that the client has no right to, or that a hook refused, or a message whose payload is not the text that it promises
	Dropped // messages that a bound has cost the client; or a shared subscription, whose filter is in place of the ID
)

// String returns the name of k in lower case.
func (k EventKind) String() string {
	names := [...]string{"", "connected", "refused", "disconnected", "subscribed", "unsubscribed", "denied", "dropped"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("event %d", byte(k))
	}
	return names[k]
}

// errHook is why a connection ends whose hook panicked.
var errHook = errors.New("a hook of the program failed: its log has the stack")

// caught turns a panic into an error. It is deferred around every call of a hook.
func caught(log func() *slog.Logger, hook string, err *error) {
	if v := recover(); v != nil {
		*err = errHook
		log().Error("a hook panicked", "hook", hook, "panic", v, "stack", string(debug.Stack()))
	}
}

// event tells the program, if it listens.
func (c *conn) event(kind EventKind, topic string, why error) {
	if c.b.hooks.Event == nil {
		return
	}
	if err := c.b.tell(Event{Kind: kind, Client: c.client, Topic: topic, Reason: why}); err != nil {
		c.end(err)
	}
}

func (b *Broker) tell(e Event) (err error) {
	defer caught(func() *slog.Logger { return b.log }, "OnEvent", &err)
	b.hooks.Event.OnEvent(e)
	return nil
}

// lost tells the program that s had no room for n messages. The caller holds mu.
func (s *session) lost(n uint64) {
	if s.b.hooks.Event == nil || s.inbox {
		return
	}
	e := Event{Kind: Dropped, Client: Client{ID: s.id, User: s.identity.User}, Count: n}
	if err := s.b.tell(e); err != nil && s.link != nil {
		s.link.end(err)
	}
}

// show lets the program see what is handed to the client.
func (c *conn) show(it *item) {
	if c.b.hooks.Deliver == nil {
		return
	}
	m := mqtt.Message{Topic: string(it.body.topic()), Payload: it.body.payload(), QoS: it.qos, Retain: it.retain}
	if err := c.callDeliver(m); err != nil {
		c.end(err)
	}
}

func (c *conn) callDeliver(m mqtt.Message) (err error) {
	defer caught(c.log, "OnDeliver", &err)
	c.b.hooks.Deliver.OnDeliver(c.client, m)
	return nil
}

// change asks the hook what becomes of a publication.
func (c *conn) change(ctx context.Context, p *publication) (verdict, error) {
	m, err := c.callPublish(ctx, mqtt.Message{
		Topic: string(p.topic), Payload: append([]byte(nil), p.payload...), QoS: p.qos, Retain: p.retain,
	})
	switch {
	case errors.Is(err, errHook):
		return verdict{}, err
	case err != nil && ctx.Err() != nil: // the client sends it again
		return verdict{}, fmt.Errorf("ask the hook about a message to %q: %w", p.topic, ctx.Err())
	case errors.Is(err, ErrDropped):
		return verdict{drop: true}, nil
	case err != nil:
		return c.deny(string(p.topic), err), nil
	}
	if size := len(m.Topic) + len(m.Payload); size > int(c.b.cfg.Limits.MaxPacketSize) {
		return c.deny(m.Topic, fmt.Errorf("a hook has made %d bytes of it: %w", size, mqtt.ErrTooLarge)), nil
	}
	if err := m.Validate(); err != nil {
		return c.deny(m.Topic, fmt.Errorf("a hook has made a message of it that cannot be published: %w", err)), nil
	}
	p.topic, p.payload, p.retain = []byte(m.Topic), m.Payload, m.Retain
	return verdict{}, nil
}

func (c *conn) callPublish(ctx context.Context, m mqtt.Message) (_ mqtt.Message, err error) {
	defer caught(c.log, "OnPublish", &err)
	return c.b.hooks.Publish.OnPublish(ctx, c.client, m)
}
