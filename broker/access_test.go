package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tidegate/broker/auth"
	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// guarded makes a bed with the users alice and bob, whose passwords are their
// names backwards, and the rules acl; empty: no ACL file.
func guarded(acl string) func(*bed) {
	return func(d *bed) {
		dir := d.t.TempDir()
		d.cfg.PasswordFile = filepath.Join(dir, "passwd")
		for _, user := range []string{"alice", "bob"} {
			if err := auth.SetPassword(d.cfg.PasswordFile, user, []byte(passwordOf(user))); err != nil {
				d.t.Fatal(err)
			}
		}
		if acl != "" {
			d.cfg.ACLFile = filepath.Join(dir, "acl")
			d.rules(acl)
		}
	}
}

func (d *bed) rules(acl string) {
	d.t.Helper()
	if err := os.WriteFile(d.cfg.ACLFile, []byte(acl), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *bed) reload(acl string) {
	d.t.Helper()
	d.rules(acl)
	if err := d.b.Reload(); err != nil {
		d.t.Fatal(err)
	}
}

func passwordOf(user string) string { return "of-" + user }

// as makes a client log in as user.
func as(user string, also ...func(*client.Options)) func(*client.Options) {
	return func(o *client.Options) {
		o.Username, o.Password = user, passwordOf(user)
		for _, change := range also {
			change(o)
		}
	}
}

func v5(o *client.Options) { o.Version = packet.V5 }

// refused wants the broker to refuse the CONNECT.
func (d *bed) refused(o client.Options, code packet.ConnackCode, reason packet.Reason) {
	d.t.Helper()
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		o.Version, o.CleanSession = version, true
		c, err := client.Dial(d.ctx(), d.b.Addrs()[0].String(), o)
		var refusal *client.RefusedError
		switch {
		case err == nil:
			c.Close()
			d.t.Errorf("MQTT %s: let in", version)
		case !errors.As(err, &refusal):
			d.t.Errorf("MQTT %s: %v", version, err)
		case version == packet.V5 && refusal.Reason != reason, version != packet.V5 && refusal.Code != code:
			d.t.Errorf("MQTT %s: code %d, reason 0x%02x, want %d, 0x%02x", version, refusal.Code, refusal.Reason, code, reason)
		}
	}
}

func TestWhoIsLetIn(t *testing.T) {
	no, yes := false, true
	for _, anonymous := range []*bool{&no, &yes} {
		t.Run(fmt.Sprintf("allow_anonymous %v", *anonymous), func(t *testing.T) {
			d := newBed(t, func(d *bed) {
				guarded("")(d)
				d.cfg.AllowAnonymous = anonymous
			})
			d.dial("a", as("alice")).Disconnect()
			d.dial("b", as("bob", v5)).Disconnect()
			d.refused(client.Options{ClientID: "x", Username: "alice", Password: "wrong"}, packet.RefusedCredentials, packet.ReasonBadUsernameOrPassword)
			d.refused(client.Options{ClientID: "x", Username: "alice"}, packet.RefusedCredentials, packet.ReasonBadUsernameOrPassword)
			d.refused(client.Options{ClientID: "x", Username: "eve", Password: "x"}, packet.RefusedCredentials, packet.ReasonBadUsernameOrPassword)
			if n := d.b.Status().BadCredentials; n != 6 {
				t.Errorf("counted %d wrong passwords, want 6", n)
			}
			if *anonymous {
				d.dial("nobody", nil).Disconnect()
				return
			}
			d.refused(client.Options{ClientID: "x"}, packet.RefusedNotAuthorized, packet.ReasonNotAuthorized)
			if n := d.b.Status().NotAuthorized; n != 2 {
				t.Errorf("counted %d that were not authorized, want 2", n)
			}
		})
	}
}

func TestRefusalIsLoggedWithoutThePassword(t *testing.T) {
	var log logged
	d := newBed(t, func(d *bed) {
		guarded("")(d)
		d.handler = log.handler()
	})
	user := strings.Repeat("u", 5000)
	d.refused(client.Options{ClientID: "pump", Username: user, Password: "s3cret"}, packet.RefusedCredentials, packet.ReasonBadUsernameOrPassword)
	d.stop()
	text := log.String()
	for _, want := range []string{"remote=127.0.0.1:", "client=pump", auth.ErrBadCredentials.Error()} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "s3cret") || len(text) > 2000 {
		t.Errorf("the log has the password, or too much:\n%s", text)
	}
}

const rules = `
topic read public/#
user alice
topic readwrite home/#
topic deny home/safe/#
topic read inbox
topic write outbox
user bob
topic read home/#
pattern readwrite own/%u/#
pattern readwrite fence/#
`

func TestWhatAClientMayPublish(t *testing.T) {
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
			t.Run(fmt.Sprintf("MQTT %s, QoS %d", version, q), func(t *testing.T) {
				d := newBed(t, guarded(rules+"user spy\ntopic read #\n"))
				if err := auth.SetPassword(d.cfg.PasswordFile, "spy", []byte(passwordOf("spy"))); err != nil {
					t.Fatal(err)
				}
				if err := d.b.Reload(); err != nil {
					t.Fatal(err)
				}
				spy := d.dial("spy", as("spy"))
				spy.subscribe("#", 2)
				pub := d.dial("pub", as("alice", func(o *client.Options) { o.Version = version }))
				for _, topic := range []string{"inbox", "home/safe/key", "own/bob/x", "elsewhere"} {
					err := pub.Publish(d.ctx(), mqtt.Message{Topic: topic, Payload: []byte("no"), QoS: q, Retain: true})
					var told *client.ReasonError
					if version == packet.V5 && q > 0 {
						if !errors.As(err, &told) || told.Reason != packet.ReasonNotAuthorized {
							t.Errorf("%s: %v, want not authorized", topic, err)
						}
					} else if err != nil {
						t.Errorf("%s: %v, want the usual acknowledgement", topic, err)
					}
				}
				for _, topic := range []string{"outbox", "home/kitchen", "own/alice/x"} {
					pub.publish(topic, "yes", q)
					spy.want(topic, "yes", q)
				}
				if n := d.b.Status(); n.PublicationsDenied != 4 || n.Retained != 0 {
					t.Errorf("%d denied and %d kept, want 4 and 0", n.PublicationsDenied, n.Retained)
				}
			})
		}
	}
}

// A client of MQTT 5 may use the packet identifier of a refused QoS 2 message
// again at once, and as many refused messages as it likes are not under way.
func TestRefusedMessagesAreNotUnderWay(t *testing.T) {
	d := newBed(t, func(d *bed) {
		guarded(rules)(d)
		d.cfg.Limits.ReceiveMaximum = 2
	})
	pub := d.dial("pub", as("alice", v5))
	for range 10 {
		for q := mqtt.AtLeastOnce; q <= mqtt.ExactlyOnce; q++ {
			if err := pub.Publish(d.ctx(), mqtt.Message{Topic: "elsewhere", QoS: q}); err == nil {
				t.Fatal("not refused")
			}
		}
	}
	pub.publish("outbox", "yes", 2)
}

func TestDenialsAreLoggedOncePerTopic(t *testing.T) {
	var log logged
	d := newBed(t, func(d *bed) {
		guarded(rules)(d)
		d.handler = log.handler()
	})
	pub := d.dial("pub", as("alice"))
	for range 5 {
		for i := range 2 * maxTold {
			pub.publish(fmt.Sprintf("elsewhere/%d", i), "x", 1)
		}
	}
	d.stop()
	if n := strings.Count(log.String(), "refused a message"); n != maxTold {
		t.Errorf("%d lines, want %d", n, maxTold)
	}
}

func TestWhatAClientMaySubscribeTo(t *testing.T) {
	d := newBed(t, guarded(rules))
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		sub := d.dial("sub", as("alice", func(o *client.Options) { o.Version = version }))
		for filter, want := range map[string]bool{
			"#": true, "home/+": true, "inbox": true, "own/alice/x": true,
			"outbox": false, "home/safe/#": false, "own/bob/#": false, "public/x": false,
		} {
			codes, err := sub.Subscribe(d.ctx(), mqtt.Subscription{Filter: filter, QoS: 1})
			granted := err == nil && codes[0] == 1
			if granted != want {
				t.Errorf("MQTT %s: %s: granted %v, %v, want %v", version, filter, codes, err, want)
			}
		}
		sub.Disconnect()
	}
	if n := d.b.Status().SubscriptionsDenied; n != 8 {
		t.Errorf("counted %d, want 8", n)
	}
}

func TestWhatAClientMayRead(t *testing.T) {
	d := newBed(t, guarded(rules))
	ctx := d.ctx()
	for _, topic := range []string{"home/safe/key", "home/door"} {
		if err := d.b.Publish(ctx, mqtt.Message{Topic: topic, Payload: []byte("kept"), QoS: 1, Retain: true}); err != nil {
			t.Fatal(err)
		}
	}
	alice, bob, nobody := d.dial("a", as("alice", durable)), d.dial("b", as("bob")), d.dial("n", nil)
	for _, p := range []*peer{alice, bob, nobody} {
		p.subscribe("#", 1)
	}
	alice.want("home/door", "kept", 1)
	first, second := bob.next(), bob.next()
	if first == second || !strings.HasPrefix(first, "home/") || !strings.HasPrefix(second, "home/") {
		t.Errorf("bob got %s and %s, want both retained messages", first, second)
	}
	for range 2 { // the second time from the cache
		for _, topic := range []string{"home/safe/key", "home/door", "public/x", "inbox", "outbox"} {
			if err := d.b.Publish(ctx, mqtt.Message{Topic: topic, Payload: []byte(topic), QoS: 1}); err != nil {
				t.Fatal(err)
			}
		}
		for p, topics := range map[*peer][]string{alice: {"home/door", "inbox"}, bob: {"home/safe/key", "home/door"}, nobody: {"public/x"}} {
			for _, topic := range topics {
				p.want(topic, topic, 1)
			}
		}
	}
}

// next returns the topic of the next message.
func (p *peer) next() string {
	p.t.Helper()
	select {
	case m := <-p.got:
		return m.Topic
	case <-p.Done():
		p.t.Fatal("the connection has ended")
	}
	panic("unreachable")
}

// Who a session is for is not forgotten when the gateway starts again, and the
// rules of that time count for what is published while its client is away.
func TestAbsentSessionsAreOwedOnlyWhatTheyMayRead(t *testing.T) {
	d := newBed(t, guarded(rules))
	alice := d.dial("a", as("alice", durable))
	alice.subscribe("#", 1)
	alice.Disconnect()
	publish := func(payload string) {
		t.Helper()
		for _, topic := range []string{"home/safe/key", "home/door", "public/x"} {
			if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish("before")
	d.restart()
	publish("after")
	d.reload(rules + "topic deny home/door\nuser alice\ntopic read public/#\n")
	publish("under new rules")
	alice = d.dial("a", as("alice", durable))
	alice.want("home/door", "before", 1)
	alice.want("home/door", "after", 1)
	alice.want("home/door", "under new rules", 1) // it is bob to whom the door is denied
	alice.want("public/x", "under new rules", 1)
}

func TestWillsNeedTheRightToPublish(t *testing.T) {
	seen := make(events, 100)
	d := newBed(t, func(d *bed) {
		guarded(rules)(d)
		d.opts.Hooks.Event = seen
	})
	will := func(topic string) func(*client.Options) {
		return func(o *client.Options) { o.Will = &mqtt.Message{Topic: topic, Payload: []byte("gone"), QoS: 1} }
	}
	o := client.Options{ClientID: "x"}
	as("alice", will("home/safe/key"))(&o)
	d.refused(o, packet.RefusedNotAuthorized, packet.ReasonNotAuthorized)

	bob := d.dial("b", as("bob"))
	bob.subscribe("home/#", 1)
	d.dial("a", as("alice", will("home/door"))).Close()
	bob.want("home/door", "gone", 1)

	alice := d.dial("a2", as("alice", will("home/door")))
	d.reload("user bob\ntopic read home/#\ntopic readwrite fence/#\n")
	alice.Close()
	for e := range seen {
		if e.Kind == Disconnected && e.Client.ID == "a2" {
			break
		}
	}
	if n := d.b.Status().PublicationsDenied; n != 1 {
		t.Errorf("%d wills were denied, want 1", n)
	}
	bob.wantNothing()
}

// A session holds what its user was allowed to read, so another user who comes
// with its client id gets a new one.
func TestSessionsAreNotHandedToOtherUsers(t *testing.T) {
	d := newBed(t, guarded(rules))
	session := func(change func(*client.Options)) (present bool) {
		p := d.dial("same", change)
		defer p.Disconnect()
		p.subscribe("home/#", 1)
		return p.SessionPresent()
	}
	for i, step := range []struct {
		user    string
		restart bool
		present bool
	}{{"alice", false, false}, {"alice", false, true}, {"alice", true, true}, {"bob", false, false}, {"bob", true, true}, {"alice", true, false}} {
		if step.restart {
			d.restart()
		}
		if present := session(as(step.user, durable)); present != step.present {
			t.Errorf("step %d, %s: session present %v, want %v", i, step.user, present, step.present)
		}
	}
}

func TestInProcessPublishingAndInboxesNeedNoRights(t *testing.T) {
	d := newBed(t, guarded("user alice\ntopic write x\n"))
	ctx := d.ctx()
	in, err := d.b.OpenInbox(ctx, "uplink", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "#", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := d.b.Publish(ctx, mqtt.Message{Topic: "sensor/1", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	d.dial("a", as("alice")).publish("x", "", 1)
	for _, want := range []string{"sensor/1", "x"} {
		if m, err := in.Recv(ctx); err != nil || m.Topic != want {
			t.Fatalf("got %s, %v, want %s", m.Topic, err, want)
		}
	}
}

func TestNewFailsWithWrongFiles(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{PasswordFile: filepath.Join(dir, "passwd"), ACLFile: filepath.Join(dir, "acl")}
	cfg.SetDefaults()
	if err := os.WriteFile(cfg.PasswordFile, []byte("alice:plain\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(cfg, Options{Store: openStore(t)})
	if err == nil || !strings.Contains(err.Error(), "passwd:1: ") || !strings.Contains(err.Error(), cfg.ACLFile) {
		t.Errorf("New says %v, want both files", err)
	}
}

func TestListenersNeedToKnowWhoMayConnect(t *testing.T) {
	no, yes := false, true
	const local, v6, name, everywhere, lan = "tcp://127.0.0.1:1883", "tcp://[::1]:1883", "tcp://localhost:1883", "tcp://0.0.0.0:1883", "tcp://192.0.2.1:1883"
	for _, c := range []struct {
		listeners []string
		anonymous *bool
		passwords string
		default_  bool
		problems  []string
	}{
		{[]string{local, v6, name}, nil, "", true, nil},
		{[]string{local}, nil, "p", true, nil},
		{[]string{local}, &no, "p", false, nil},
		{[]string{local}, &no, "", false, []string{"allow_anonymous"}},
		{[]string{everywhere}, nil, "", false, []string{"listeners[0].address"}},
		{[]string{local, lan}, nil, "", false, []string{"listeners[1].address"}},
		{[]string{everywhere, lan}, &no, "", false, []string{"listeners[0].address", "listeners[1].address"}},
		{[]string{local, lan}, nil, "p", false, nil},
		{[]string{everywhere}, &yes, "", true, nil},
		{[]string{everywhere}, &yes, "p", true, nil},
		{[]string{"nonsense"}, nil, "", false, []string{"listeners[0].address"}},
	} {
		cfg := Config{AllowAnonymous: c.anonymous, PasswordFile: c.passwords}
		for _, address := range c.listeners {
			cfg.Listeners = append(cfg.Listeners, Listener{Address: address})
		}
		cfg.SetDefaults()
		var paths []string
		for _, p := range cfg.Check() {
			paths = append(paths, p.Path)
		}
		if *cfg.AllowAnonymous != c.default_ || fmt.Sprint(paths) != fmt.Sprint(c.problems) {
			t.Errorf("%v, allow_anonymous %v, passwords %q: effective %v, problems at %v; want %v, %v",
				c.listeners, c.anonymous, c.passwords, *cfg.AllowAnonymous, paths, c.default_, c.problems)
		}
	}
}

func TestUnshared(t *testing.T) {
	for filter, want := range map[string]string{"a/#": "a/#", "$share/g/a/#": "a/#", "$share/g": "$share/g", "$shared/g/a": "$shared/g/a"} {
		if got := unshared(filter); got != want {
			t.Errorf("unshared(%q) is %q, want %q", filter, got, want)
		}
	}
}

// logged is a log in memory.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) handler() slog.Handler { return slog.NewTextHandler(l, nil) }
