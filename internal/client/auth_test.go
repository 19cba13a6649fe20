package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt/packet"
)

const method = "15 0001 'm'"

// answering answers each challenge with itself in capitals.
func answering(t *testing.T) Options {
	return Options{
		Version: packet.V5, Properties: props.AppendText(packet.PropAuthMethod, "m"),
		Auth: func(a packet.Auth) (packet.Auth, error) {
			if a.Reason != packet.ReasonContinueAuthentication {
				t.Errorf("asked with %s", a.Reason)
			}
			answer := props.AppendText(packet.PropAuthMethod, a.Properties.Text(packet.PropAuthMethod))
			answer = answer.AppendText(packet.PropAuthData, strings.ToUpper(a.Properties.Text(packet.PropAuthData)))
			return packet.Auth{Reason: packet.ReasonContinueAuthentication, Properties: answer}, nil
		},
	}
}

func TestAuthWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, open := dialPeer(t, t.Context(), answering(t))
		p.expect("10 11 0004 'MQTT' 05 00 0000 04 " + method + " 0000")
		for _, step := range []string{"x", "y"} {
			p.send("f0 0a 18 08 " + method + " 16 0001 '" + step + "'")
			p.expect("f0 0a 18 08 " + method + " 16 0001 '" + strings.ToUpper(step) + "'")
		}
		p.send("20 07 00 00 04 " + method)
		r := <-open
		if r.err != nil {
			t.Fatal(r.err)
		}
		r.conn.Close()
	})
}

func TestAuthWhileConnectingFails(t *testing.T) {
	broken := errors.New("no key")
	failing := answering(t)
	failing.Auth = func(packet.Auth) (packet.Auth, error) { return packet.Auth{}, broken }
	silent := answering(t)
	silent.Auth = nil
	cases := []struct {
		name    string
		options Options
		sent    string
		want    string
	}{
		{"the client has no answer", failing, "f0 06 18 04 " + method, "no key"},
		{"the client did not offer it [MQTT-4.12.0-6]", silent, "f0 06 18 04 " + method, "did not offer"},
		{"success is a CONNACK [MQTT-4.12.0-5]", answering(t), "f0 00", "not with CONNACK"},
		{"a malformed AUTH", answering(t), "f0 01 18", "MQTT-4.13.1-1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, open := dialPeer(t, t.Context(), c.options)
				p.expect("10 11 0004 'MQTT' 05 00 0000 04 " + method + " 0000")
				p.send(c.sent)
				if r := <-open; r.err == nil || !strings.Contains(r.err.Error(), c.want) {
					t.Errorf("got %v, want something with %q", r.err, c.want)
				}
				p.expectEnd()
			})
		})
	}
}

// again opens a connection and begins to authenticate again.
func again(t *testing.T, ctx context.Context) (*Conn, *peer, <-chan error) {
	c, p := connect5(t, answering(t), "00 00")
	list := props.AppendText(packet.PropAuthMethod, "m")
	done := result(func() error { return c.Reauthenticate(ctx, list) })
	p.expect("f0 06 19 04 " + method)
	return c, p, done
}

func TestReauthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, done := again(t, t.Context())
		if err := c.Reauthenticate(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("a second one: %v", err)
		}
		p.send("f0 0a 18 08 " + method + " 16 0001 'x'")
		p.expect("f0 0a 18 08 " + method + " 16 0001 'X'")
		p.send("f0 06 00 04 " + method)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestReauthenticateFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, done := again(t, t.Context())
		p.send("e0 01 87")
		if refused, ok := errors.AsType[*ReasonError](<-done); !ok || refused.Reason != packet.ReasonNotAuthorized {
			t.Errorf("got %v", refused)
		}
	})
}

func TestReauthenticateEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, _, done := again(t, ctx)
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAuthThatNobodyAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect5(t, answering(t), "00 00")
		p.send("f0 06 18 04 " + method)
		<-c.Done()
		if err := c.Err(); err == nil || !strings.Contains(err.Error(), "MQTT-4.12.1-1") {
			t.Errorf("got %v", err)
		}
	})
}
