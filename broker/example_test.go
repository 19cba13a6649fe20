package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"tidegate/broker"
	"tidegate/broker/auth"
	"tidegate/mqtt"
	"tidegate/store"
)

// An embedded broker: fifteen lines between the program's start and its end.
func Example() {
	dir, _ := os.MkdirTemp("", "broker") // a real program keeps its folder
	defer os.RemoveAll(dir)
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		panic(err)
	}
	defer st.Close()
	cfg := broker.Config{Listeners: []broker.Listener{{Address: "tcp://127.0.0.1:0"}}}
	cfg.SetDefaults()
	b, err := broker.New(cfg, broker.Options{Store: st})
	if err != nil {
		panic(err)
	}
	if err := b.Listen(); err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- b.Serve(ctx) }()

	fmt.Println("listeners:", len(b.Addrs()))
	stop()
	fmt.Println("ended:", <-served)
	// Output:
	// listeners: 1
	// ended: <nil>
}

// embedded runs a broker without listeners for an example. stop ends it.
func embedded(h broker.Hooks) (b *broker.Broker, stop func()) {
	dir, err := os.MkdirTemp("", "broker")
	if err != nil {
		panic(err)
	}
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		panic(err)
	}
	var cfg broker.Config
	cfg.SetDefaults()
	b, err = broker.New(cfg, broker.Options{Store: st, Hooks: h})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- b.Serve(ctx) }()
	return b, func() {
		cancel()
		if err := errors.Join(<-served, st.Close(), os.RemoveAll(dir)); err != nil {
			panic(err)
		}
	}
}

// Publish returns once every durable session that the message matches has it
// safely: on disk, or acknowledged.
func ExampleBroker_Publish() {
	b, stop := embedded(broker.Hooks{})
	defer stop()
	err := b.Publish(context.Background(), mqtt.Message{Topic: "tank/level", Payload: []byte("21.4"), QoS: mqtt.AtLeastOnce})
	fmt.Println(err)
	// Output: <nil>
}

// PublishAsync returns at once, and calls back when the message is safe. Here a
// thousand messages share a few commits.
func ExampleBroker_PublishAsync() {
	b, stop := embedded(broker.Hooks{})
	defer stop()
	safe := make(chan error, 1000)
	for i := range 1000 {
		m := mqtt.Message{Topic: "tank/level", Payload: fmt.Append(nil, i), QoS: mqtt.AtLeastOnce}
		if err := b.PublishAsync(context.Background(), m, func(err error) { safe <- err }); err != nil {
			panic(err)
		}
	}
	for range 1000 {
		if err := <-safe; err != nil {
			panic(err)
		}
	}
	fmt.Println("all safe")
	// Output: all safe
}

// subscribe calls fn with every message that the subscriptions match, until ctx
// is done. A message is acknowledged when fn returns, so one that fn has not seen
// to its end comes again after a restart.
func subscribe(ctx context.Context, b *broker.Broker, name string, fn func(mqtt.Message), subs ...mqtt.Subscription) error {
	in, err := b.OpenInbox(ctx, name, mqtt.InboxOptions{}, subs...)
	if err != nil {
		return err
	}
	defer in.Close()
	for {
		d, err := in.Recv(ctx)
		if err != nil {
			return err
		}
		fn(d.Message)
		in.Ack(d.Seq)
	}
}

// A subscription with a callback is a loop over an inbox: a durable queue with a
// name, which holds what comes while nobody reads it.
func ExampleBroker_OpenInbox() {
	b, stop := embedded(broker.Hooks{})
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	level := mqtt.Subscription{Filter: "tank/+", QoS: mqtt.AtLeastOnce}
	in, err := b.OpenInbox(ctx, "control", mqtt.InboxOptions{}, level) // now, so that what is published next is owed
	if err != nil {
		panic(err)
	}
	in.Close()
	for _, payload := range []string{"21.4", "21.5"} {
		if err := b.Publish(ctx, mqtt.Message{Topic: "tank/level", Payload: []byte(payload), QoS: mqtt.AtLeastOnce}); err != nil {
			panic(err)
		}
	}
	err = subscribe(ctx, b, "control", func(m mqtt.Message) {
		fmt.Printf("%s = %s\n", m.Topic, m.Payload)
		if string(m.Payload) == "21.5" {
			cancel()
		}
	}, level)
	fmt.Println(err)
	// Output:
	// tank/level = 21.4
	// tank/level = 21.5
	// context canceled
}

// badges lets clients in that have a badge.
type badges map[string]string // secret by user

// Authenticate implements [auth.Authenticator].
func (b badges) Authenticate(_ context.Context, r auth.Request) (auth.Identity, error) {
	if secret, known := b[r.User]; !known || secret != string(r.Password) {
		return auth.Identity{}, auth.ErrBadCredentials
	}
	return auth.Identity{User: r.User, ClientID: r.ClientID}, nil
}

// ownTopics lets users do what they like below their own name.
type ownTopics struct{}

// Allowed implements [auth.Authorizer].
func (ownTopics) Allowed(id auth.Identity, _ auth.Action, topic string) bool {
	return mqtt.Match(id.User+"/#", topic)
}

// A program with users and rights of its own passes them as hooks; the broker
// then reads no password file and no ACL file.
func ExampleHooks() {
	_, stop := embedded(broker.Hooks{Authenticator: badges{"alice": "open sesame"}, Authorizer: ownTopics{}})
	defer stop()

	_, err := badges{"alice": "open sesame"}.Authenticate(context.Background(), auth.Request{User: "alice", Password: []byte("guess")})
	fmt.Println(err)
	// Output: wrong user name or password
}
