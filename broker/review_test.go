package broker

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// five5 is a CONNECT of MQTT 5.
func five5(id string, props packet.Properties) packet.Connect {
	return packet.Connect{Version: packet.V5, ClientID: id, CleanSession: true, Properties: props}
}

// next5 is next for a client of MQTT 5.
func (w *wire) next5() packet.Frame {
	w.t.Helper()
	f := w.next()
	f.Version, f.FromServer = packet.V5, true
	return f
}

func (w *wire) next5Publish() (p packet.Publish) {
	w.t.Helper()
	if f := w.next5(); f.Type() != packet.TypePublish {
		w.t.Fatalf("got %s, want PUBLISH", f.Type())
	} else if err := p.Decode(f); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// A DISCONNECT that cannot be written any more must not keep the connection from
// ending.
func TestGoodbyeToNobody(t *testing.T) {
	d := newBed(t, nil)
	for range 50 {
		w := d.wire(five5("same", nil)) // waits until the one before has ended
		w.next()
		if err := w.c.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		w.send([]byte{0x82, 5, 0, 1, 0, 0, 0})
		w.c.Close()
	}
}

func TestTooManyConnectionsAreClosed(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxConnections = 1 })
	d.dial("a", nil)
	c, err := net.Dial("tcp", d.b.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, c, clean("b"))
	w.wantEnd()
}

func TestWillAfterDisconnectWithAFailure(t *testing.T) { // [MQTT-3.1.2-8] [MQTT-3.14.4-3]
	d := newBed(t, nil)
	sub := d.dial("sub", five(nil))
	sub.subscribe("will", 1)
	for _, r := range []packet.Reason{packet.ReasonUnspecifiedError, packet.ReasonSuccess} {
		c := d.dial("c", func(o *client.Options) {
			five(nil)(o)
			o.Will = &mqtt.Message{Topic: "will", Payload: []byte("gone"), QoS: 1}
		})
		if err := c.DisconnectWith(packet.Disconnect5{Reason: r}); err != nil {
			t.Fatal(err)
		}
	}
	sub.want("will", "gone", 1)
	d.dial("c", nil) // waits for the end of the one before
	sub.wantNothing()
}

// What was sent before must be sent again even if it has expired meanwhile: the
// client may have it, and its identifier must not go to another message.
func TestExpiredIsSentAgain(t *testing.T) { // [MQTT-4.4.0-1]
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		k := five5("sub", packet.Properties(nil).AppendUint(packet.PropSessionExpiry, 1000))
		k.CleanSession = false
		w := d.piped(k)
		w.next()
		s := packet.Subscribe{Version: packet.V5, ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 2}}}
		w.send(s.Append(nil))
		w.next()
		pub := d.in5("pub", five(nil))
		pub.with(mqtt.Message{Topic: "a", Payload: []byte("x"), QoS: 2}, packet.Properties(nil).AppendUint(packet.PropMessageExpiry, 5))
		first := w.next5Publish()
		w.c.Close()
		time.Sleep(10 * time.Second)
		pub.publish("a", "y", 2)
		w = d.piped(k)
		w.next()
		if again := w.next5Publish(); !again.Dup || again.ID != first.ID || string(again.Payload) != "x" {
			t.Errorf("got %q with id %d, dup %v; want %q with id %d again", again.Payload, again.ID, again.Dup, first.Payload, first.ID)
		}
	})
}

// A clean start ends the session before, and with it the delay of its will.
func TestCleanStartPublishesTheWill(t *testing.T) { // [MQTT-3.1.2-8]
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		sub := d.in5("sub", five(nil))
		sub.subscribe("will", 1)
		for range 3 {
			c := d.in5("c", func(o *client.Options) {
				kept5(1000)(o)
				o.CleanSession = true
				o.Will = &mqtt.Message{Topic: "will", Payload: []byte("gone"), QoS: 1}
				o.WillProperties = packet.Properties(nil).AppendUint(packet.PropWillDelay, 500)
			})
			c.Close()
			synctest.Wait()
			sub.wantNothing()
			start := time.Now()
			c = d.in5("c", func(o *client.Options) { kept5(1000)(o); o.CleanSession = true })
			sub.want("will", "gone", 1)
			if after := time.Since(start); after > time.Second {
				t.Errorf("the will came %v after the end of its session", after)
			}
			c.Disconnect()
			synctest.Wait()
		}
		d.b.alarms.mu.Lock()
		defer d.b.alarms.mu.Unlock()
		if n := len(d.b.alarms.set); n != 1 {
			t.Errorf("%d alarms are set for one session that is away", n)
		}
	})
}

func TestRetainedHasTheSubscriptionIdentifier(t *testing.T) { // [MQTT-3.3.4-3]
	d := newBed(t, nil)
	d.dial("pub", nil).retain("a", "x", 1)
	for name, change := range map[string]func(*client.Options){"transient": five(nil), "durable": kept5(1000)} {
		for q := range mqtt.QoS(2) {
			c := d.dial(fmt.Sprint(name, q), change)
			c.sub5(mqtt.Subscription{Filter: "a", QoS: q, ID: 7})
			if ids := slices.Collect(c.want("a", "x", q).Properties.SubscriptionIDs()); !slices.Equal(ids, []uint32{7}) {
				t.Errorf("%s at QoS %d: a retained message came with the identifiers %v", name, q, ids)
			}
		}
	}
}

func TestReasonsAreLawful(t *testing.T) {
	d := newBed(t, nil)
	for name, props := range map[string]packet.Properties{
		"cut between characters [MQTT-1.5.4-1]":                 nil,
		"over the client's maximum packet size [MQTT-3.14.2-3]": packet.Properties(nil).AppendUint(packet.PropMaximumPacketSize, 40),
	} {
		for lead := range 2 {
			w := d.wire(five5("x", props)) // a name of the broker would make CONNACK too large
			w.next()
			p := packet.Publish{Version: packet.V5, Topic: []byte(strings.Repeat("x", lead) + strings.Repeat("ü", 300) + "#")}
			w.send(p.Append(nil))
			f := w.next5()
			var e packet.Disconnect5
			if err := e.Decode(f); f.Type() != packet.TypeDisconnect || err != nil {
				t.Errorf("%s: got %s, %v", name, f.Type(), err)
			}
			if props != nil && len(f.Body) > 38 {
				t.Errorf("%s: DISCONNECT has %d bytes", name, len(f.Body))
			}
		}
	}
}

// A message that is just small enough for the client is not lost.
func TestMaximumPacketSizeIsExact(t *testing.T) { // [MQTT-3.1.2-24]
	d := newBed(t, nil)
	for _, q := range []mqtt.QoS{0, 1} {
		for _, topic := range []string{"t", "topic"} {
			const most = 120
			props := packet.Properties(nil).AppendUint(packet.PropMaximumPacketSize, most).AppendUint(packet.PropTopicAliasMaximum, 5)
			w := d.wire(five5("x", props)) // a name of the broker would make CONNACK too large
			w.next()
			s := packet.Subscribe{Version: packet.V5, ID: 1, Subscriptions: []mqtt.Subscription{{Filter: topic, QoS: q}}}
			w.send(s.Append(nil))
			w.next()
			pub := d.dial("pub", five(nil))
			fits := most - 2 - 2 - len(topic) - 2*int(q) - 1
			for _, size := range []int{fits + 1, fits, fits - 1, fits - 2, fits - 3, fits - 4, fits} {
				pub.publish(topic, strings.Repeat("x", size), q)
			}
			for _, want := range []int{fits, fits - 1, fits - 2, fits - 3, fits - 4, fits} {
				f := w.next5()
				var p packet.Publish
				if err := p.Decode(f); err != nil || len(p.Payload) != want || len(f.Body)+2 > most {
					t.Fatalf("QoS %d, topic %s: got %d bytes of payload in %d, want %d in at most %d, %v", q, topic, len(p.Payload), len(f.Body)+2, want, most, err)
				}
			}
		}
	}
}

// Retained messages that have expired do not keep others out.
func TestExpiredRetainedMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil; d.cfg.Limits.MaxRetained = 2 })
		pub := d.in5("pub", five(nil))
		for i := range 2 {
			pub.with(mqtt.Message{Topic: fmt.Sprint(i), Payload: []byte("x"), QoS: 1, Retain: true}, packet.Properties(nil).AppendUint(packet.PropMessageExpiry, 5))
		}
		var refused *client.ReasonError
		full := pub.Publish(t.Context(), mqtt.Message{Topic: "refused", Payload: []byte("x"), QoS: 1, Retain: true})
		if !errors.As(full, &refused) || refused.Reason != packet.ReasonQuotaExceeded {
			t.Errorf("there was no room, and the answer is %v", full)
		}
		time.Sleep(10 * time.Second)
		pub.retain("kept", "x", 1)
		d.restart()
		sub := d.in5("sub", five(nil))
		sub.subscribe("#", 1)
		sub.want("kept", "x", 1)
		if n := d.b.retained.count(); n != 1 {
			t.Errorf("%d retained messages are kept, want 1", n)
		}
	})
}

func TestExpiryOfDisconnectSurvivesARestart(t *testing.T) { // MQTT 5.0, section 3.14.2.2.2
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		c := d.in5("c", kept5(1000))
		time.Sleep(2 * time.Second) // its row is on disk
		c.DisconnectWith(packet.Disconnect5{Properties: packet.Properties(nil).AppendUint(packet.PropSessionExpiry, 5)})
		synctest.Wait()
		d.restart()
		time.Sleep(6 * time.Second)
		if d.in5("c", kept5(0)).SessionPresent() {
			t.Error("after a restart the session is kept for longer than its client wants")
		}
	})
}

// A PUBREL for nothing does not make room for another message.
func TestReceiveMaximumCannotBeTalkedDown(t *testing.T) { // [MQTT-3.3.4-7]
	d := newBed(t, func(d *bed) { d.cfg.Limits.ReceiveMaximum = 1 })
	w := d.wire(five5("", nil))
	w.next()
	pub := func(id uint16) []byte {
		p := packet.Publish{Version: packet.V5, Topic: []byte("a"), QoS: 2, ID: id}
		return p.Append(nil)
	}
	w.send(pub(1))
	w.wantReason(packet.TypePubrec, 1, packet.ReasonNoMatchingSubscribers)
	w.ack(packet.TypePubrel, 99)
	w.wantReason(packet.TypePubcomp, 99, packet.ReasonPacketIDNotFound)
	w.send(pub(2))
	var e packet.Disconnect5
	if f := w.next5(); f.Type() != packet.TypeDisconnect {
		t.Errorf("got %s, want DISCONNECT", f.Type())
	} else if err := e.Decode(f); err != nil || e.Reason != packet.ReasonReceiveMaximumExceeded {
		t.Errorf("got the reason %#x, %v", byte(e.Reason), err)
	}
}
