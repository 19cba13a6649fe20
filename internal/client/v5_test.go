package client

import (
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// props begins a list of properties.
var props packet.Properties

// connect5 opens a clean session of MQTT 5 with the client id "c". connack are
// the bytes behind the CONNACK's fixed header and flags.
func connect5(t *testing.T, o Options, connack string) (*Conn, *peer) {
	t.Helper()
	o.Version, o.ClientID, o.CleanSession = packet.V5, "c", true
	p, open := dialPeer(t, t.Context(), o)
	o.setDefaults()
	want, err := o.connect()
	if err != nil {
		t.Fatal(err)
	}
	p.expect(hex.EncodeToString(want.Append(nil)))
	body := unhex(t, connack)
	p.send(hex.EncodeToString(append([]byte{0x20, byte(1 + len(body)), 0}, body...)))
	r := <-open
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(r.conn.Close)
	return r.conn, p
}

func TestConnect5Bytes(t *testing.T) {
	cases := []struct {
		name    string
		options Options
		want    string
	}{
		{"no properties and no client id, for a session to keep", Options{}, "10 0d 0004 'MQTT' 05 00 0000 00 0000"},
		{"a password alone", Options{ClientID: "c", Password: "p"}, "10 11 0004 'MQTT' 05 40 0000 00 0001 'c' 0001 'p'"},
		{
			"properties, and those of the will",
			Options{
				ClientID: "c", CleanSession: true, Will: &mqtt.Message{Topic: "w", Payload: []byte("x")},
				Properties:     props.AppendUint(packet.PropSessionExpiry, 60).AppendUint(packet.PropReceiveMaximum, 5),
				WillProperties: props.AppendUint(packet.PropWillDelay, 10),
			},
			"10 22 0004 'MQTT' 05 06 0000 08 11 0000003c 21 0005 0001 'c' 05 18 0000000a 0001 'w' 0001 'x'",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.options.Version = packet.V5
				p, open := dialPeer(t, t.Context(), c.options)
				p.expect(c.want)
				p.send("20 03 00 00 00")
				r := <-open
				if r.err != nil {
					t.Fatal(r.err)
				}
				r.conn.Close()
			})
		})
	}
}

func TestOptionsAreChecked5(t *testing.T) {
	session := props.AppendUint(packet.PropSessionExpiry, 60)
	will := &mqtt.Message{Topic: "w"}
	for name, o := range map[string]Options{
		"properties before MQTT 5":           {CleanSession: true, Properties: session},
		"will properties before MQTT 5":      {CleanSession: true, Will: will, WillProperties: session},
		"will properties without a will":     {Version: packet.V5, WillProperties: props.AppendUint(packet.PropWillDelay, 1)},
		"a property of others":               {Version: packet.V5, Properties: props.AppendUint(packet.PropTopicAlias, 1)},
		"a property of others in the will":   {Version: packet.V5, Will: will, WillProperties: session},
		"a receive maximum of 0":             {Version: packet.V5, Properties: props.AppendUint(packet.PropReceiveMaximum, 0)},
		"bytes that are no properties":       {Version: packet.V5, Properties: packet.Properties{0x11, 0}},
		"authentication data, but no method": {Version: packet.V5, Properties: props.AppendText(packet.PropAuthData, "d")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, open := dialPeer(t, t.Context(), o)
				if r := <-open; r.err == nil || !strings.HasPrefix(r.err.Error(), "client options: ") {
					t.Errorf("got %v", r.err)
				}
			})
		})
	}
}

func TestRefusals5(t *testing.T) {
	cases := []struct {
		name   string
		answer string
		want   RefusedError
		words  string
	}{
		{
			"a reason and words of the broker", "20 0a 00 87 07 1f 0004 'nope'",
			RefusedError{Reason: packet.ReasonNotAuthorized, Properties: props.AppendText(packet.PropReasonString, "nope")},
			"not authorised: check user name and password, and what this client may do (nope)",
		},
		{
			"another server", "20 08 00 9c 05 1c 0002 'b2'",
			RefusedError{Reason: packet.ReasonUseAnotherServer, Properties: props.AppendText(packet.PropServerReference, "b2")},
			"use another server for now: b2",
		},
		{
			"a broker that does not know MQTT 5", "20 02 00 01",
			RefusedError{Code: packet.RefusedVersion},
			"protocol version not supported: try another MQTT version",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, open := dialPeer(t, t.Context(), Options{Version: packet.V5})
				p.expect("10 0d 0004 'MQTT' 05 00 0000 00 0000")
				p.send(c.answer)
				err := (<-open).err
				refused, ok := errors.AsType[*RefusedError](err)
				if !ok || !reflect.DeepEqual(*refused, c.want) || !strings.HasSuffix(err.Error(), ": "+c.words) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// What the broker's CONNACK asks for is kept.
func TestLimitsOfTheBroker(t *testing.T) {
	cases := []struct {
		name    string
		connack string
		message mqtt.Message
		props   packet.Properties
		want    string
	}{
		{"maximum QoS [MQTT-3.2.2-11]", "00 02 24 01", message("a", "1", 2), nil, "at most QoS 1"},
		{"retain [MQTT-3.2.2-14]", "00 02 25 00", mqtt.Message{Topic: "a", Retain: true}, nil, "retains no messages"},
		{"maximum packet size [MQTT-3.2.2-15]", "00 05 27 0000000a", message("a", "1234", 1), nil, "12 bytes, the broker takes at most 10"},
		{"maximum packet size at QoS 0", "00 05 27 00000008", message("a", "1234", 0), nil, "10 bytes, the broker takes at most 8"},
		{"topic alias maximum [MQTT-3.2.2-17]", "00 03 22 0005", message("a", "1", 0), props.AppendUint(packet.PropTopicAlias, 6), "maximum of 5"},
		{"no topic aliases [MQTT-3.2.2-18]", "00 00", message("a", "1", 0), props.AppendUint(packet.PropTopicAlias, 1), "maximum of 0"},
		{"no topic without an alias", "00 00", message("", "1", 0), nil, "topic"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, p := connect5(t, Options{}, c.connack)
				err := conn.PublishWith(t.Context(), c.message, c.props)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want something with %q", err, c.want)
				}
				p.expectNothing()
				if len(conn.slots) != 0 || len(conn.calls) != 0 {
					t.Error("the publish that failed counts as under way")
				}
			})
		})
	}
}

func TestReceiveMaximumBoundsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect5(t, Options{Window: 10}, "00 03 21 0001")
		if err := c.PublishAsync(t.Context(), message("a", "1", 1), nil); err != nil {
			t.Fatal(err)
		}
		second := result(func() error { return c.PublishAsync(t.Context(), message("a", "2", 1), nil) })
		p.expect("32 07 0001 'a' 0001 00 '1'")
		p.expectNothing()
		p.send("40 02 0001")
		p.expect("32 07 0001 'a' 0002 00 '2'")
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

func TestServerKeepAliveAndClientID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect5(t, Options{KeepAlive: time.Minute}, "00 07 13 000a 12 0001 'x'")
		start := time.Now()
		p.expect("c0 00")
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("PINGREQ after %s, the broker asked for 10s [MQTT-3.2.2-21]", took)
		}
		if k := c.Connack(); c.ClientID() != "x" || k.Properties.Text(packet.PropAssignedClientID) != "x" {
			t.Errorf("client id %q, CONNACK %+v", c.ClientID(), k)
		}
	})
}

func TestPublish5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect5(t, Options{}, "00 03 22 0005")
		publish := func(m mqtt.Message, list packet.Properties) <-chan error {
			return result(func() error { return c.PublishWith(t.Context(), m, list) })
		}
		done := publish(message("a", "1", 0), props.AppendUint(packet.PropTopicAlias, 5))
		p.expect("30 08 0001 'a' 03 23 0005 '1'")
		done2 := publish(message("", "2", 0), props.AppendUint(packet.PropTopicAlias, 5))
		p.expect("30 07 0000 03 23 0005 '2'")
		done3 := publish(message("a", "3", 1), props.AppendUser("k", "v"))
		p.expect("32 0e 0001 'a' 0001 07 26 0001 'k' 0001 'v' '3'")
		p.send("40 03 0001 10") // no matching subscribers is no failure
		for _, d := range []<-chan error{done, done2, done3} {
			if err := <-d; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestPublishIsRefused(t *testing.T) {
	cases := []struct {
		name   string
		qos    mqtt.QoS
		answer string
		packet packet.Type
	}{
		{"with PUBACK", 1, "40 0b 0001 97 07 1f 0004 'full'", packet.TypePuback},
		{"with PUBREC, and no PUBREL follows [MQTT-4.3.3-4]", 2, "50 0b 0001 97 07 1f 0004 'full'", packet.TypePubrec},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, p := connect5(t, Options{}, "00 00")
				published := result(func() error { return conn.Publish(t.Context(), message("a", "1", c.qos)) })
				p.expect([]string{1: "32", 2: "34"}[c.qos] + "07 0001 'a' 0001 00 '1'")
				p.send(c.answer)
				err := <-published
				refused, ok := errors.AsType[*ReasonError](err)
				if !ok || refused.Packet != c.packet || refused.Reason != packet.ReasonQuotaExceeded || !strings.HasSuffix(err.Error(), "quota exceeded (full)") {
					t.Errorf("got %v", err)
				}
				p.expectNothing()
				if len(conn.slots) != 0 {
					t.Error("the window is not free again")
				}
			})
		})
	}
}

func TestSubscribe5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect5(t, Options{}, "00 00")
		subs := []mqtt.Subscription{
			{Filter: "a", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, ID: 300},
			{Filter: "b", ID: 300},
		}
		var reasons []packet.Reason
		var said packet.Properties
		done := result(func() (err error) { reasons, said, err = c.SubscribeReasons(t.Context(), subs...); return err })
		p.expect("82 0e 0001 03 0b ac02 0001 'a' 2d 0001 'b' 00")
		p.send("90 0a 0001 05 1f 0002 'no' 01 87")
		if err := <-done; err != nil || !slices.Equal(reasons, []packet.Reason{1, packet.ReasonNotAuthorized}) || said.Text(packet.PropReasonString) != "no" {
			t.Errorf("got %v, %q, %v", reasons, said, err)
		}
		var codes []mqtt.QoS
		done = result(func() (err error) { codes, err = c.Subscribe(t.Context(), subs...); return err })
		p.expect("82 0e 0002 03 0b ac02 0001 'a' 2d 0001 'b' 00")
		p.send("90 05 0002 00 02 87")
		if err := <-done; err != nil || !slices.Equal(codes, []mqtt.QoS{2, mqtt.QoSFailure}) {
			t.Errorf("got %v, %v", codes, err)
		}
		done = result(func() error { return c.Unsubscribe(t.Context(), "a", "b") })
		p.expect("a2 09 0003 00 0001 'a' 0001 'b'")
		p.send("b0 0a 0003 05 1f 0002 'no' 11 87")
		err := <-done
		if refused, ok := errors.AsType[*ReasonError](err); !ok || refused.Reason != packet.ReasonNotAuthorized || !strings.Contains(err.Error(), `"b"`) || !strings.HasSuffix(err.Error(), "(no)") {
			t.Errorf("got %v", err)
		}
	})
}

func TestSubscriptionsAreChecked5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connect5(t, Options{}, "00 00")
		for name, subs := range map[string][]mqtt.Subscription{
			"a retain handling of 3": {{Filter: "a", RetainHandling: 3}},
			"a large identifier":     {{Filter: "a", ID: 1 << 28}},
			"two identifiers":        {{Filter: "a", ID: 1}, {Filter: "b", ID: 2}},
		} {
			if _, err := c.Subscribe(t.Context(), subs...); err == nil {
				t.Errorf("%s was let pass", name)
			}
		}
	})
}

func TestReceive5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		messages := make(chan Message, 10)
		o := Options{ManualAck: true, Handler: func(m Message) { messages <- m }}
		o.Properties = props.AppendUint(packet.PropTopicAliasMaximum, 2)
		c, p := connect5(t, o, "00 00")
		p.send("30 0d 0001 'a' 08 23 0002 02 0000000a '1'")
		p.send("30 09 0000 05 23 0002 0b 07 '2'")
		p.send("32 07 0001 'b' 0007 00 '3'")
		p.send("34 07 0001 'b' 0008 00 '4'")
		for _, want := range []Message{
			{Message: message("a", "1", 0), Properties: props.AppendUint(packet.PropTopicAlias, 2).AppendUint(packet.PropMessageExpiry, 10)},
			{Message: message("a", "2", 0), Properties: props.AppendUint(packet.PropTopicAlias, 2).AppendUint(packet.PropSubscriptionID, 7)},
			{Message: message("b", "3", 1), ID: 7},
			{Message: message("b", "4", 2), ID: 8},
		} {
			if got := <-messages; !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		if err := c.AckWith(Message{Message: message("b", "3", 1), ID: 7}, packet.ReasonQuotaExceeded, nil); err != nil {
			t.Error(err)
		}
		p.expect("40 03 0007 97")
		if err := c.AckWith(Message{Message: message("b", "4", 2), ID: 8}, packet.ReasonQuotaExceeded, props.AppendUser("", "")); err != nil {
			t.Error(err)
		}
		p.expect("50 09 0008 97 05 26 0000 0000")
		p.send("34 07 0001 'b' 0008 00 '5'") // the identifier is free again
		if m := <-messages; string(m.Payload) != "5" {
			t.Errorf("got %+v", m)
		}
	})
}

func TestBrokerDisconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect5(t, Options{}, "00 00")
		p.send("e0 01 8e")
		<-c.Done()
		ended, ok := errors.AsType[*ReasonError](c.Err())
		if !ok || ended.Packet != packet.TypeDisconnect || ended.Reason != packet.ReasonSessionTakenOver || !strings.Contains(ended.Error(), "another connection uses the same client id") {
			t.Errorf("got %v", c.Err())
		}
		p.expectEnd()
	})
}

// A broker that breaks the protocol learns why the client leaves [MQTT-4.13.1-1].
func TestProtocolErrorsAreAnswered(t *testing.T) {
	cases := []struct {
		name, sent, want, id string
	}{
		{"a malformed packet", "36 06 0001 'a' 0001 00", "e0 01 81", "MQTT-3.3.1-4"},
		{"a protocol error", "30 03 0000 00", "e0 01 82", "MQTT-4.7.3-1"},
		{"an alias over the maximum", "30 07 0001 'a' 03 23 0003", "e0 01 94", "MQTT-3.1.2-26"},
		{"an alias that was never set", "30 06 0000 03 23 0002", "e0 01 82", "MQTT-3.3.2-7"},
		{"a packet over the maximum", "30 7f", "e0 01 95", "MQTT-3.1.2-24"},
		{"a malformed DISCONNECT", "e0 01 04", "e0 01 82", "MQTT-3.14.2-1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := Options{Properties: props.AppendUint(packet.PropTopicAliasMaximum, 2).AppendUint(packet.PropMaximumPacketSize, 100)}
				conn, p := connect5(t, o, "00 00")
				p.send(c.sent)
				p.expect(c.want)
				p.expectEnd()
				<-conn.Done()
				if err := conn.Err(); err == nil || !strings.Contains(err.Error(), c.id) {
					t.Errorf("got %v, want %s", err, c.id)
				}
			})
		})
	}
}

func TestDisconnectWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect5(t, Options{}, "00 00")
		d := packet.Disconnect5{Reason: packet.ReasonDisconnectWithWill, Properties: props.AppendUint(packet.PropSessionExpiry, 5)}
		ended := result(func() error { return c.DisconnectWith(d) })
		p.expect("e0 07 04 05 11 00000005")
		p.expectEnd()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Nothing of MQTT 5 goes out on a connection of 3.1.1.
func TestOnly5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, Options{})
		_, subscribe := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a", NoLocal: true})
		for name, err := range map[string]error{
			"properties":   c.PublishWith(t.Context(), message("a", "1", 0), props.AppendUser("k", "v")),
			"options":      subscribe,
			"AUTH":         c.Reauthenticate(t.Context(), nil),
			"a reason":     c.AckWith(Message{Message: message("a", "1", 1), ID: 1}, packet.ReasonQuotaExceeded, nil),
			"a disconnect": c.DisconnectWith(packet.Disconnect5{Reason: packet.ReasonDisconnectWithWill}),
		} {
			if err == nil || !strings.Contains(err.Error(), "use 5.0") {
				t.Errorf("%s: %v", name, err)
			}
		}
		p.expectNothing()
	})
}
