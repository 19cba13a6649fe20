package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestConnectBytes(t *testing.T) {
	cases := []struct {
		name    string
		options Options
		want    string
	}{
		{"a clean session without a client id", Options{CleanSession: true}, "10 0c 0004 'MQTT' 04 02 0000 0000"},
		{"MQTT 3.1", Options{ClientID: "c", Version: packet.V31}, "10 0f 0006 'MQIsdp' 03 00 0000 0001 'c'"},
		{"a keep alive is rounded up to seconds", Options{ClientID: "c", KeepAlive: 1500 * time.Millisecond}, "10 0d 0004 'MQTT' 04 00 0002 0001 'c'"},
		{
			"a password alone brings an empty user name [MQTT-3.1.2-22]",
			Options{ClientID: "c", Password: "p"},
			"10 12 0004 'MQTT' 04 c0 0000 0001 'c' 0000 0001 'p'",
		},
		{
			"will, user name and password",
			Options{ClientID: "c", Username: "u", Password: "p", Will: &mqtt.Message{Topic: "w", Payload: []byte("x"), QoS: 1, Retain: true}},
			"10 19 0004 'MQTT' 04 ec 0000 0001 'c' 0001 'w' 0001 'x' 0001 'u' 0001 'p'",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, open := dialPeer(t, t.Context(), c.options)
				p.expect(c.want)
				p.send("20 02 00 00")
				r := <-open
				if r.err != nil {
					t.Fatal(r.err)
				}
				if r.conn.SessionPresent() || r.conn.Err() != nil {
					t.Errorf("session %v, error %v", r.conn.SessionPresent(), r.conn.Err())
				}
				r.conn.Close()
				p.expectEnd()
			})
		})
	}
}

func TestSessionPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, open := dialPeer(t, t.Context(), Options{ClientID: "c"})
		p.expect("10 0d 0004 'MQTT' 04 00 0000 0001 'c'")
		p.send("20 02 01 00")
		r := <-open
		if r.err != nil || !r.conn.SessionPresent() {
			t.Fatalf("got %+v, want a session", r)
		}
		r.conn.Close()
	})
}

func TestConnectFails(t *testing.T) {
	cases := []struct {
		name   string
		answer string // empty: hang up
		want   string
	}{
		{"a refusal says what to check", "20 02 00 05", "not authorised: check user name and password"},
		{"a hang-up hints at TLS", "", "without TLS"},
		{"an answer other than CONNACK [MQTT-3.2.0-1]", "d0 00", "PINGRESP"},
		{"no MQTT", "'HTTP/1.1 400 Bad Request'", "MQTT"},
		{"a session in spite of a clean one [MQTT-3.2.2-1]", "20 02 01 00", "clean"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, open := dialPeer(t, t.Context(), Options{CleanSession: true})
				p.expect("10 0c 0004 'MQTT' 04 02 0000 0000")
				if c.answer != "" {
					p.send(c.answer)
					p.expectEnd()
				}
				_ = p.conn.Close()
				if r := <-open; r.err == nil || !strings.Contains(r.err.Error(), c.want) {
					t.Errorf("got %v, want something with %q", r.err, c.want)
				}
			})
		})
	}
}

func TestRefusalIsTyped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, open := dialPeer(t, t.Context(), Options{CleanSession: true})
		p.expect("10 0c 0004 'MQTT' 04 02 0000 0000")
		p.send("20 02 00 04")
		refused, ok := errors.AsType[*RefusedError]((<-open).err)
		if !ok || refused.Code != packet.RefusedCredentials {
			t.Errorf("got %v", refused)
		}
	})
}

func TestConnectEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p, open := dialPeer(t, ctx, Options{CleanSession: true})
		p.expect("10 0c 0004 'MQTT' 04 02 0000 0000")
		if r := <-open; !errors.Is(r.err, context.DeadlineExceeded) {
			t.Errorf("got %v", r.err)
		}
		p.expectEnd()
	})
}

func TestOptionsAreChecked(t *testing.T) {
	long := strings.Repeat("x", 65536)
	for name, o := range map[string]Options{
		"a version to come":                 {CleanSession: true, Version: 6},
		"a negative window":                 {CleanSession: true, Window: -1},
		"a window over the identifiers":     {CleanSession: true, Window: 65535},
		"a keep alive of a day":             {CleanSession: true, KeepAlive: 24 * time.Hour},
		"no client id for a session":        {},
		"a client id that is not UTF-8":     {ClientID: "\xff"},
		"a client id with a zero character": {ClientID: "a\x00"},
		"a long client id":                  {ClientID: long},
		"a long user name":                  {ClientID: "c", Username: long},
		"a long password":                   {ClientID: "c", Password: long},
		"a will with a wildcard":            {ClientID: "c", Will: &mqtt.Message{Topic: "#"}},
		"a will of QoS 3":                   {ClientID: "c", Will: &mqtt.Message{Topic: "w", QoS: 3}},
		"a will with a long payload":        {ClientID: "c", Will: &mqtt.Message{Topic: "w", Payload: []byte(long)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				if _, err := Connect(t.Context(), near, o); err == nil || !strings.HasPrefix(err.Error(), "client options: ") {
					t.Errorf("got %v", err)
				}
				(&peer{t, far}).expectEnd()
			})
		})
	}
}

func TestDisconnectFollowsWhatWasPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		if err := c.PublishAsync(t.Context(), message("a", "1", 0), nil); err != nil {
			t.Fatal(err)
		}
		ended := result(c.Disconnect)
		p.expect("30 04 0001 'a' '1' e0 00")
		p.expectEnd()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		<-c.Done()
		if err := c.Publish(t.Context(), message("a", "1", 0)); !errors.Is(err, mqtt.ErrClosed) {
			t.Errorf("publish after the end: %v", err)
		}
	})
}

// Behind a DISCONNECT nothing is sent, and so nothing is acknowledged
// [MQTT-3.14.4-2].
func TestNothingFollowsDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, messages := collect(t, Options{})
		ended := result(c.Disconnect)
		synctest.Wait() // the DISCONNECT now waits for its reader
		p.send("32 06 0001 'a' 0001 '1' 62 02 0002")
		if err := c.Publish(t.Context(), message("a", "1", 1)); !errors.Is(err, mqtt.ErrClosed) {
			t.Errorf("publish: %v", err)
		}
		p.expect("e0 00")
		p.expectEnd()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(messages) > 0 {
			t.Error("a message was handed out that could not be acknowledged")
		}
	})
}

// A broker that reads nothing cannot hold Disconnect up for ever.
func TestDisconnectIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connect(t, Options{KeepAlive: time.Second})
		before := time.Now()
		if err := c.Disconnect(); err == nil {
			t.Error("a DISCONNECT that nobody read was reported as sent")
		}
		if took := time.Since(before); took != leaveTimeout {
			t.Errorf("took %s", took)
		}
	})
}

func TestLostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		published := result(func() error { return c.Publish(t.Context(), message("a", "1", 1)) })
		p.expect("32 06 0001 'a' 0001 '1'")
		_ = p.conn.Close()
		if err := <-published; err == nil || errors.Is(err, mqtt.ErrClosed) {
			t.Errorf("publish: %v, want why the connection was lost", err)
		}
		<-c.Done()
		if err := c.Err(); err == nil || !strings.Contains(err.Error(), `client id "c"`) {
			t.Errorf("Err is %v, want a hint at the client id", err)
		}
		if err := c.Disconnect(); err == nil {
			t.Error("Disconnect reports no error on a lost connection")
		}
	})
}

func TestProtocolErrorsEndTheConnection(t *testing.T) {
	cases := []struct {
		name string
		sent string
		want string
	}{
		{"PUBACK for nothing", "40 02 0007", "PUBACK for the packet identifier 7"},
		{"UNSUBACK for nothing", "b0 02 0007", "UNSUBACK for the packet identifier 7"},
		{"SUBACK for nothing", "90 03 0007 00", "SUBACK for the packet identifier 7"},
		{"a packet of clients", "c0 00", "PINGREQ"},
		{"a second CONNACK", "20 02 00 00", "CONNACK"},
		{"PUBLISH with QoS 3", "36 05 0001 'a' 0001", "MQTT-3.3.1-4"},
		{"PUBREL with the packet identifier 0", "62 02 0000", "MQTT-2.3.1-1"},
		{"PUBACK with the packet identifier 0", "40 02 0000", "MQTT-2.3.1-1"},
		{"SUBACK with a reserved code", "90 03 0001 03", "MQTT-3.9.3-2"},
		{"PINGRESP with a body", "d0 01 00", "MQTT-4.8.0-1"},
		{"a forbidden packet type", "00 00", "MQTT-4.8.0-1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, p := connect(t, Options{})
				p.send(c.sent)
				<-conn.Done()
				if err := conn.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want something with %q", err, c.want)
				}
				p.expectEnd()
			})
		})
	}
}
