package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/broker/auth"
	"tidegate/internal/client"
	"tidegate/internal/units"
	"tidegate/mqtt/packet"
)

// method is an authentication method that is a function.
type method func(auth.Request) auth.Step

func (m method) Begin(r auth.Request) auth.Step { return m(r) }

// word asks the client for a word, and lets in as the user whose word it is.
func word(words map[string]string) method {
	return func(auth.Request) auth.Step {
		asked := false
		return func(_ context.Context, data []byte) (auth.Reply, error) {
			if !asked {
				asked = true
				return auth.Reply{Data: []byte("word?")}, nil
			}
			if user, known := words[string(data)]; known {
				return auth.Reply{Done: true, User: user, Data: []byte("hello " + user)}, nil
			}
			return auth.Reply{}, fmt.Errorf("book 7: %w", auth.ErrBadCredentials)
		}
	}
}

// offers makes the broker know the method under the name "m".
func offers(m method) func(*bed) {
	return func(d *bed) { d.opts.Hooks.Methods = map[string]auth.Method{"m": m} }
}

// named are the properties of a client that asks for a method.
func named(name string) packet.Properties {
	return packet.Properties(nil).AppendText(packet.PropAuthMethod, name)
}

// says makes a client answer each step with the next of some words.
func says(words ...string) func(*client.Options) {
	return func(o *client.Options) {
		o.Version, o.Properties = packet.V5, named("m")
		o.Auth = func(packet.Auth) (packet.Auth, error) {
			if len(words) == 0 {
				return packet.Auth{}, errors.New("the broker asks too often")
			}
			a := answerWith(words[0])
			words = words[1:]
			return a, nil
		}
	}
}

// wire5 sends the CONNECT of MQTT 5 with these properties, and reads what comes
// as MQTT 5.
func (d *bed) wire5(props packet.Properties) *wire {
	d.t.Helper()
	w := d.wire(packet.Connect{Version: packet.V5, ClientID: "x", CleanSession: true, Properties: props})
	w.r.Version = packet.V5
	return w
}

// asks sends a CONNECT that names a method.
func (d *bed) asks(name string) *wire {
	d.t.Helper()
	return d.wire5(named(name))
}

func answerWith(data string) packet.Auth {
	return packet.Auth{Reason: packet.ReasonContinueAuthentication, Properties: named("m").AppendText(packet.PropAuthData, data)}
}

func TestAuthenticationInSteps(t *testing.T) { // [MQTT-4.12.0-2] [MQTT-4.12.0-5]
	d := newBed(t, func(d *bed) {
		offers(word(map[string]string{"sesame": "alice"}))(d)
		d.opts.Hooks.Authorizer = authorize(func(id auth.Identity, _ auth.Action, topic string) bool {
			return id == auth.Identity{User: "alice", ClientID: "x"} && topic == "a"
		})
	})
	alice := d.dial("x", says("sesame"))
	alice.subscribe("a", 1)
	alice.publish("a", "hello", 1)
	alice.want("a", "hello", 1)
	k := d.asks("m")
	k.wantAuth(packet.ReasonContinueAuthentication, "word?")
	a := answerWith("sesame")
	k.send(a.Append(nil))
	got := k.connack5(packet.ReasonSuccess)
	if data, _ := got.Properties.Bytes(packet.PropAuthData); got.Properties.Text(packet.PropAuthMethod) != "m" || string(data) != "hello alice" {
		t.Errorf("CONNACK has the properties %q", got.Properties)
	}
}

func (w *wire) connack5(reason packet.Reason) packet.Connack {
	w.t.Helper()
	var k packet.Connack
	f := w.next()
	f.Version, f.FromServer = packet.V5, true
	if err := k.Decode(f); err != nil || f.Type() != packet.TypeConnack || k.Reason != reason {
		w.t.Fatalf("got %s %+v, %v, want CONNACK with reason 0x%02x", f.Type(), k, err, byte(reason))
	}
	return k
}

func (w *wire) wantAuth(reason packet.Reason, data string) {
	w.t.Helper()
	var a packet.Auth
	f := w.next()
	f.Version, f.FromServer = packet.V5, true
	err := a.Decode(f)
	got, _ := a.Properties.Bytes(packet.PropAuthData)
	if err != nil || f.Type() != packet.TypeAuth || a.Reason != reason || string(got) != data || a.Properties.Text(packet.PropAuthMethod) != "m" {
		w.t.Fatalf("got %s %+v, %v, want AUTH 0x%02x with %q", f.Type(), a, err, byte(reason), data)
	}
}

func TestWhoFailsToAuthenticateIsRefused(t *testing.T) {
	wrong := answerWith("guess")
	again := packet.Auth{Reason: packet.ReasonReauthenticate, Properties: named("m")}
	other := packet.Auth{Reason: packet.ReasonContinueAuthentication, Properties: named("n")}
	publish := packet.Publish{Version: packet.V5, Topic: []byte("a")}
	cases := []struct {
		name   string
		sends  []byte
		reason packet.Reason
	}{
		{"a wrong word", wrong.Append(nil), packet.ReasonBadUsernameOrPassword},
		{"a PUBLISH before CONNACK [MQTT-3.1.2-30]", publish.Append(nil), packet.ReasonProtocolError},
		{"a PINGREQ before CONNACK [MQTT-3.1.2-30]", packet.Pingreq{}.Append(nil), packet.ReasonProtocolError},
		{"AUTH that begins once more", again.Append(nil), packet.ReasonProtocolError},
		{"AUTH with another method [MQTT-4.12.0-5]", other.Append(nil), packet.ReasonProtocolError},
		{"AUTH without a method", []byte{0xf0, 2, 0x18, 0}, packet.ReasonProtocolError},
		{"AUTH without a body, which says success [MQTT-3.15.2-1]", []byte{0xf0, 0}, packet.ReasonProtocolError},
		{"AUTH with a reserved flag [MQTT-3.15.1-1]", []byte{0xf1, 0}, 0},
		{"DISCONNECT", []byte{0xe0, 0}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := newBed(t, offers(word(nil)))
			w := d.asks("m")
			w.wantAuth(packet.ReasonContinueAuthentication, "word?")
			w.send(c.sends)
			if c.reason != 0 {
				k := w.connack5(c.reason)
				if bytes.Contains(k.Properties, []byte("book 7")) {
					t.Error("a stranger sees what the program says about it")
				}
			}
			w.wantEnd()
			if n := len(d.b.Sessions()); n != 0 {
				t.Errorf("%d sessions are left", n)
			}
		})
	}
}

func TestUnknownMethod(t *testing.T) { // [MQTT-4.12.0-1]
	for _, name := range []string{"n", ""} {
		d := newBed(t, offers(word(nil)))
		w := d.asks(name)
		w.connack5(packet.ReasonBadAuthenticationMethod)
		w.wantEnd()
	}
}

func TestAuthWithoutMethod(t *testing.T) { // [MQTT-4.12.0-7]
	d := newBed(t, offers(word(nil)))
	w := d.wire5(nil)
	w.connack5(packet.ReasonSuccess)
	a := answerWith("x")
	w.send(a.Append(nil))
	w.wantDisconnect5(packet.ReasonProtocolError)
}

func (w *wire) wantDisconnect5(reason packet.Reason) {
	w.t.Helper()
	f := w.next()
	var p packet.Disconnect5
	f.Version, f.FromServer = packet.V5, true
	if err := p.Decode(f); err != nil || f.Type() != packet.TypeDisconnect || p.Reason != reason {
		w.t.Fatalf("got %s %+v, %v, want DISCONNECT 0x%02x", f.Type(), p, err, byte(reason))
	}
	w.wantEnd()
}

func TestReauthentication(t *testing.T) { // section 4.12.1
	words := map[string]string{"one": "alice", "two": "alice", "three": "ben"}
	for answer, want := range map[string]packet.Reason{"two": 0, "three": packet.ReasonNotAuthorized, "four": packet.ReasonNotAuthorized} {
		t.Run(answer, func(t *testing.T) {
			d := newBed(t, offers(word(words)))
			c := d.dial("x", says("one", answer))
			c.subscribe("a", 1)
			err := c.Reauthenticate(d.ctx(), named("m"))
			if want == 0 {
				if err != nil {
					t.Fatal(err)
				}
				c.publish("a", "still here", 1)
				c.want("a", "still here", 1)
				return
			}
			if err == nil {
				t.Error("authenticated")
			}
			c.wantEnd(want)
		})
	}
}

// Whoever a client was at its CONNECT it remains, or its session would change hands:
// also one that was nobody, and one whose certificate names it.
func TestNobodyBecomesAnotherUser(t *testing.T) {
	words := word(map[string]string{"none": "", "pump's": "pump", "eve's": "eve"})
	p := newPKI(t)
	for _, c := range []struct {
		name, first, next string
		certificate       bool
		refused, ended    packet.Reason
	}{
		{name: "a user stays", first: "pump's", next: "pump's"},
		{name: "a user who becomes another", first: "pump's", next: "eve's", ended: packet.ReasonNotAuthorized},
		{name: "a user who becomes nobody", first: "pump's", next: "none", ended: packet.ReasonNotAuthorized},
		{name: "nobody stays", first: "none", next: "none"},
		{name: "nobody who becomes a user", first: "none", next: "eve's", ended: packet.ReasonNotAuthorized},
		{name: "the user of the certificate stays", certificate: true, first: "pump's", next: "pump's"},
		{name: "the user of the certificate who becomes another", certificate: true, first: "pump's", next: "eve's", ended: packet.ReasonNotAuthorized},
		{name: "another user than the certificate's", certificate: true, first: "eve's", refused: packet.ReasonNotAuthorized},
		{name: "nobody with a certificate", certificate: true, first: "none", refused: packet.ReasonNotAuthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newBed(t, func(d *bed) {
				offers(words)(d)
				d.handler = new(logged).handler()
				if c.certificate {
					d.cfg.Listeners = []Listener{p.mutual()}
				}
			})
			w := d.asksOver(c.certificate, p)
			w.wantAuth(packet.ReasonContinueAuthentication, "word?")
			a := answerWith(c.first)
			w.send(a.Append(nil))
			w.connack5(c.refused)
			if c.refused != 0 {
				w.wantEnd()
				if n := len(d.b.Sessions()); n > 0 {
					t.Errorf("there are %d sessions", n)
				}
				return
			}
			before := d.owner("x")
			again := packet.Auth{Reason: packet.ReasonReauthenticate, Properties: named("m")}
			w.send(again.Append(nil))
			w.wantAuth(packet.ReasonContinueAuthentication, "word?")
			a = answerWith(c.next)
			w.send(a.Append(nil))
			if c.ended != 0 {
				w.wantDisconnect5(c.ended)
				return
			}
			w.wantAuth(packet.ReasonSuccess, "hello "+before.User)
			if after := d.owner("x"); after != before {
				t.Errorf("the session is that of %+v, and was that of %+v", after, before)
			}
		})
	}
}

// owner returns whose the session of a client is.
func (d *bed) owner(id string) auth.Identity {
	d.b.mu.Lock()
	s := d.b.sessions[id]
	d.b.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// asksOver is asks, over TLS with the certificate of pump if certificate is set.
func (d *bed) asksOver(certificate bool, p *pki) *wire {
	d.t.Helper()
	if !certificate {
		return d.asks("m")
	}
	c, err := tls.Dial("tcp", d.b.Addrs()[0].String(), p.client("pump"))
	if err != nil {
		d.t.Fatal(err)
	}
	w := newWire(d.t, c, packet.Connect{Version: packet.V5, ClientID: "x", CleanSession: true, Properties: named("m")})
	w.r.Version = packet.V5
	return w
}

func TestOtherPacketsGoOnDuringReauthentication(t *testing.T) {
	d := newBed(t, offers(word(map[string]string{"one": "alice"})))
	w := d.asks("m")
	w.wantAuth(packet.ReasonContinueAuthentication, "word?")
	a := answerWith("one")
	w.send(a.Append(nil))
	w.connack5(packet.ReasonSuccess)
	again := packet.Auth{Reason: packet.ReasonReauthenticate, Properties: named("m")}
	w.send(again.Append(nil))
	w.wantAuth(packet.ReasonContinueAuthentication, "word?")
	w.fence()
	w.send(a.Append(nil))
	w.wantAuth(packet.ReasonSuccess, "hello alice")
	w.send(a.Append(nil)) // goes on with what has ended
	w.wantDisconnect5(packet.ReasonProtocolError)
}

// An authentication ends after connect_timeout, whether the client or the program
// takes too long.
func TestAuthenticationTakesTooLong(t *testing.T) {
	hangs := method(func(auth.Request) auth.Step {
		return func(ctx context.Context, _ []byte) (auth.Reply, error) {
			<-ctx.Done()
			return auth.Reply{}, ctx.Err()
		}
	})
	for name, m := range map[string]method{"the client": word(nil), "the program": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newBed(t, func(d *bed) {
					d.cfg.Listeners = nil
					d.cfg.Limits.ConnectTimeout = units.Duration(5 * time.Second)
					offers(m)(d)
				})
				start := time.Now()
				w := d.piped(packet.Connect{Version: packet.V5, CleanSession: true, Properties: named("m")})
				w.r.Version = packet.V5
				w.drain()
				if took := time.Since(start); took != 5*time.Second {
					t.Errorf("ended after %v", took)
				}
			})
		})
	}
}

func TestReauthenticationTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) {
			d.cfg.Listeners = nil
			d.cfg.Limits.ConnectTimeout = units.Duration(5 * time.Second)
			offers(word(map[string]string{"one": "alice"}))(d)
		})
		w := d.piped(packet.Connect{Version: packet.V5, CleanSession: true, Properties: named("m")})
		w.r.Version = packet.V5
		w.wantAuth(packet.ReasonContinueAuthentication, "word?")
		a := answerWith("one")
		w.send(a.Append(nil))
		w.connack5(packet.ReasonSuccess)
		start := time.Now()
		again := packet.Auth{Reason: packet.ReasonReauthenticate, Properties: named("m")}
		w.send(again.Append(nil))
		w.wantAuth(packet.ReasonContinueAuthentication, "word?")
		w.wantDisconnect5(packet.ReasonNotAuthorized)
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestAuthenticationIsBounded(t *testing.T) {
	endless := method(func(auth.Request) auth.Step {
		return func(context.Context, []byte) (auth.Reply, error) { return auth.Reply{Data: []byte("more?")}, nil }
	})
	for name, size := range map[string]int{"steps": 1, "bytes": 60000} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, offers(endless))
			w := d.asks("m")
			a := answerWith(string(make([]byte, size)))
			for range map[string]int{"steps": maxSteps, "bytes": maxStepBytes/60000 + 1}[name] {
				w.wantAuth(packet.ReasonContinueAuthentication, "more?")
				w.send(a.Append(nil))
			}
			w.connack5(packet.ReasonQuotaExceeded)
			w.wantEnd()
		})
	}
}

func TestMethodPanics(t *testing.T) {
	at := func(step int) method {
		return func(auth.Request) auth.Step {
			if step == 0 {
				panic("begin")
			}
			return func(context.Context, []byte) (auth.Reply, error) {
				if step--; step == 0 {
					panic("step")
				}
				return auth.Reply{}, nil
			}
		}
	}
	for step := range 3 {
		d := newBed(t, func(d *bed) {
			offers(at(step))(d)
			d.handler = new(logged).handler()
		})
		w := d.asks("m")
		if step == 2 {
			w.wantAuth(packet.ReasonContinueAuthentication, "")
			a := answerWith("x")
			w.send(a.Append(nil))
		}
		w.connack5(packet.ReasonServerUnavailable)
		w.wantEnd()
		d.dial("other", nil).wantNothing()
	}
}

func TestReplyThatCannotBeSent(t *testing.T) { // [MQTT-3.1.2-24]
	long := method(func(auth.Request) auth.Step {
		return func(_ context.Context, data []byte) (auth.Reply, error) {
			return auth.Reply{Data: make([]byte, 200), Done: data != nil}, nil
		}
	})
	d := newBed(t, offers(long))
	for _, data := range []string{"", "at once"} {
		props := named("m").AppendUint(packet.PropMaximumPacketSize, 100)
		if data != "" {
			props = props.AppendText(packet.PropAuthData, data)
		}
		w := d.wire5(props)
		w.connack5(packet.ReasonPacketTooLarge)
		w.wantEnd()
	}
	huge := method(func(auth.Request) auth.Step {
		return func(context.Context, []byte) (auth.Reply, error) {
			return auth.Reply{Data: make([]byte, 1<<16)}, nil
		}
	})
	d = newBed(t, offers(huge))
	w := d.asks("m")
	w.connack5(packet.ReasonServerUnavailable)
	w.wantEnd()
}
