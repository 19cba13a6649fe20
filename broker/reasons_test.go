package broker

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/broker/auth"
	"tidegate/internal/client"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// wantReason wants the answer to a publication at QoS 1 or 2.
func (w *wire) wantReason(typ packet.Type, id uint16, reason packet.Reason) packet.Ack {
	w.t.Helper()
	var a packet.Ack
	f := w.next()
	f.Version, f.FromServer = packet.V5, true
	if err := a.Decode(f); err != nil || a.Type != typ || a.ID != id || a.Reason != reason {
		w.t.Fatalf("got %s %+v, %v, want %s %d with reason 0x%02x", f.Type(), a, err, typ, id, byte(reason))
	}
	return a
}

func (w *wire) publish5(topic string, q mqtt.QoS, id uint16, retain bool) {
	w.t.Helper()
	p := packet.Publish{Version: packet.V5, Topic: []byte(topic), Payload: []byte("x"), QoS: q, ID: id, Retain: retain}
	w.send(p.Append(nil))
}

// connected5 is wire5 whose CONNECT was accepted.
func (d *bed) connected5(props packet.Properties) *wire {
	d.t.Helper()
	w := d.wire5(props)
	w.connack5(packet.ReasonSuccess)
	return w
}

func (w *wire) subscribe5(sub mqtt.Subscription) {
	w.t.Helper()
	s := packet.Subscribe{Version: packet.V5, ID: 9, Subscriptions: []mqtt.Subscription{sub}}
	w.send(s.Append(nil))
	if f := w.next(); f.Type() != packet.TypeSuback {
		w.t.Fatalf("got %s, want SUBACK", f.Type())
	}
}

// A client that never heard how an exchange ended repeats its part of it, and must not
// learn that it has failed.
func TestRepetitionIsNoUnknownIdentifier(t *testing.T) { // sections 3.6.2.1 and 3.7.2.1
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		k := five5("pub", packet.Properties(nil).AppendUint(packet.PropSessionExpiry, 1000))
		k.CleanSession = false
		w := d.wire(k)
		w.connack5(packet.ReasonSuccess)
		w.subscribe5(mqtt.Subscription{Filter: "own"}) // SUBACK says that the session is on disk
		w.publish5("a", 2, 7, false)
		w.wantReason(packet.TypePubrec, 7, packet.ReasonNoMatchingSubscribers)
		w.ack(packet.TypePubrel, 7)
		w.wantReason(packet.TypePubcomp, 7, packet.ReasonSuccess)
		w.ack(packet.TypePubrel, 7)
		w.wantReason(packet.TypePubcomp, 7, packet.ReasonPacketIDNotFound)
		w.c.Close()
		interrupt()
		w = d.wire(k)
		if !w.connack5(packet.ReasonSuccess).SessionPresent {
			t.Fatal("the session is gone")
		}
		w.publish5("a", 2, 8, false) // a program may publish while its client still repeats
		w.wantReason(packet.TypePubrec, 8, packet.ReasonNoMatchingSubscribers)
		w.ack(packet.TypePubrel, 7)
		w.wantReason(packet.TypePubcomp, 7, packet.ReasonSuccess)
		w.ack(packet.TypePubrec, 9)
		w.wantReason(packet.TypePubrel, 9, packet.ReasonSuccess)
	})
}

func TestNobodyTookTheMessage(t *testing.T) { // sections 3.4.2.1 and 3.5.2.1
	d := newBed(t, nil)
	w := d.connected5(nil)
	w.publish5("a", 1, 1, false)
	w.wantReason(packet.TypePuback, 1, packet.ReasonNoMatchingSubscribers)
	w.publish5("a", 2, 2, true) // kept for those who come later
	w.wantReason(packet.TypePubrec, 2, packet.ReasonNoMatchingSubscribers)
	w.ack(packet.TypePubrel, 2)
	w.wantReason(packet.TypePubcomp, 2, packet.ReasonSuccess)
	w.subscribe5(mqtt.Subscription{Filter: "own", QoS: 1, NoLocal: true})
	w.publish5("own", 1, 3, false)
	w.wantReason(packet.TypePuback, 3, packet.ReasonNoMatchingSubscribers)
	w.subscribe5(mqtt.Subscription{Filter: "b", QoS: 0})
	w.publish5("b", 1, 4, false)
	w.wantPublish5("b")
	w.wantReason(packet.TypePuback, 4, packet.ReasonSuccess)
	away := d.dial("away", durable)
	away.subscribe("c", 1)
	if err := away.Disconnect(); err != nil {
		t.Fatal(err)
	}
	w.publish5("c", 1, 5, false)
	w.wantReason(packet.TypePuback, 5, packet.ReasonSuccess)
}

func (w *wire) wantPublish5(topic string) {
	w.t.Helper()
	var p packet.Publish
	f := w.next()
	f.Version, f.FromServer = packet.V5, true
	if err := p.Decode(f); err != nil || f.Type() != packet.TypePublish || string(p.Topic) != topic {
		w.t.Fatalf("got %s %+v, %v, want PUBLISH to %s", f.Type(), p, err, topic)
	}
}

// Where no retained message has room a publisher of MQTT 5 is refused the message:
// nobody gets it. Who cannot be told has it delivered, and not kept.
func TestNoRoomForRetainedMessages(t *testing.T) {
	for name, limit := range map[string]func(*Limits){
		"count": func(l *Limits) { l.MaxRetained = 1 },
		"bytes": func(l *Limits) { l.MaxRetainedSize = 50 },
	} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, func(d *bed) { limit(&d.cfg.Limits) })
			sub := d.dial("sub", nil)
			sub.subscribe("#", 2)
			w := d.connected5(nil)
			first, next := "first", strings.Repeat("n", 50)
			w.publish5(first, 1, 1, true)
			w.wantReason(packet.TypePuback, 1, packet.ReasonSuccess)
			sub.want(first, "x", 1)
			w.publish5(next, 1, 2, true)
			w.wantReason(packet.TypePuback, 2, packet.ReasonQuotaExceeded)
			for range 2 { // the identifier is free again [MQTT-4.3.3-9]
				w.publish5(next, 2, 3, true)
				w.wantReason(packet.TypePubrec, 3, packet.ReasonQuotaExceeded)
			}
			w.publish5(next, 0, 0, true)
			sub.want(next, "x", 0)
			old := d.dial("old", nil)
			for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
				old.retain(next, "old", q)
				sub.want(next, "old", q)
			}
			sub.wantNothing()
			if st := d.b.Status(); st.Retained != 1 || st.RetainedRefused != 7 {
				t.Errorf("%d are retained, %d refused, want 1 and 7", st.Retained, st.RetainedRefused)
			}
		})
	}
}

// What the client does not take is not sent [MQTT-3.1.2-24] [MQTT-3.1.2-25].
func TestAnswersAreNotTooLargeForTheClient(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxSubscriptions = 1000 })
	size := func(n uint32) packet.Properties {
		return packet.Properties(nil).AppendUint(packet.PropMaximumPacketSize, n)
	}
	w := d.wire5(size(4)) // CONNACK has five bytes at least
	w.wantEnd()
	w = d.wire5(size(10)) // it cannot say what the client has to know
	w.connack5(packet.ReasonPacketTooLarge)
	w.wantEnd()
	w = d.connected5(size(30))
	var s packet.Subscribe
	s.Version, s.ID = packet.V5, 1
	u := packet.Unsubscribe{Version: packet.V5, ID: 2}
	for i := range 100 {
		filter := strings.Repeat("f", i+1)
		s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: filter, QoS: 1})
		u.Filters = append(u.Filters, filter)
	}
	w.send(s.Append(nil))
	w.fence()
	w.publish5("f", 1, 3, false)
	w.wantPublish5("f")
	w.wantReason(packet.TypePuback, 3, packet.ReasonSuccess)
	w.send(u.Append(nil))
	w.fence()
	w.publish5("f", 1, 4, false)
	w.wantReason(packet.TypePuback, 4, packet.ReasonNoMatchingSubscribers)
}

func TestRefusalsSayWhy(t *testing.T) {
	d := newBed(t, nil)
	w := d.wire5(named("GS2"))
	if k := w.connack5(packet.ReasonBadAuthenticationMethod); !strings.Contains(k.Properties.Text(packet.PropReasonString), "GS2") {
		t.Errorf("the reason string is %q", k.Properties.Text(packet.PropReasonString))
	}
	w = d.wire5(named("GS2").AppendUint(packet.PropMaximumPacketSize, 20))
	if k := w.connack5(packet.ReasonBadAuthenticationMethod); len(k.Properties) > 0 {
		t.Errorf("CONNACK has the properties %q, and the client takes 20 bytes", k.Properties)
	}
}

// Refusals that wait behind an answer that is not due take no more memory than some
// reason strings: those further back have their code alone.
func TestFewRefusalsKeepTheirWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) {
			d.cfg.Listeners = nil
			d.opts.Hooks.Authorizer = authorize(func(_ auth.Identity, _ auth.Action, topic string) bool { return topic != "secret" })
		})
		away := d.piped(kept("away"))
		away.connack(packet.Accepted, false)
		away.subscribe("t", 1)
		away.disconnect()
		w := d.piped(five5("x", nil))
		w.connack5(packet.ReasonSuccess)
		first := packet.Publish{Version: packet.V5, Topic: []byte("t"), QoS: 1, ID: 100} // waits for the disk
		raw := first.Append(nil)
		for id := range uint16(20) {
			p := packet.Publish{Version: packet.V5, Topic: []byte("secret"), QoS: 1, ID: 1 + id}
			raw = p.Append(raw)
		}
		w.send(raw)
		w.wantReason(packet.TypePuback, 100, packet.ReasonSuccess)
		for id := range uint16(20) {
			a := w.wantReason(packet.TypePuback, 1+id, packet.ReasonNotAuthorized)
			if text := a.Properties.Text(packet.PropReasonString); (text != "") != (id < maxExplained-1) {
				t.Errorf("refusal %d says %q", 1+id, text)
			}
		}
	})
}

// A SUBSCRIBE with many filters that are refused is answered with few words.
func TestComplaintsAreSaidOnceAndShort(t *testing.T) {
	var c complaints
	for _, text := range []string{"first", "second", "first", strings.Repeat("x", 300), "last"} {
		c.add(errors.New(text))
	}
	if want := "first; second; " + strings.Repeat("x", 300); c.text != want {
		t.Errorf("got %q", c.text)
	}
	p := (*client5)(nil).because(packet.ReasonUnspecifiedError, errors.New(strings.Repeat("x", 199)+"é\x00"))
	if text := p.Text(packet.PropReasonString); text != strings.Repeat("x", 199) {
		t.Errorf("a reason string of %d bytes: %q", len(text), text)
	}
}

// Each reason that the table gives may stand where it is used.
func TestReasonsAreFound(t *testing.T) {
	for _, r := range reasons {
		if got := reasonFor(refusal{r.err}, 0); got != r.reason {
			t.Errorf("%v: 0x%02x, want 0x%02x", r.err, byte(got), byte(r.reason))
		}
	}
	if got := reasonFor(auth.ErrBadCredentials, 0); got != packet.ReasonBadUsernameOrPassword {
		t.Errorf("0x%02x", byte(got))
	}
}

// A will is a message of the client that has left it, so its own subscription
// without local messages does not get it [MQTT-3.8.3-3].
func TestWillIsLocal(t *testing.T) {
	for _, noLocal := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := newBed(t, func(d *bed) {
				d.cfg.Listeners = nil
				d.cfg.Limits.SessionExpiry = units.Duration(time.Hour)
			})
			other := d.in5("other", five(nil))
			other.subscribe("will", 1)
			c := d.in5("x", func(o *client.Options) {
				kept5(1000)(o)
				o.Will = &mqtt.Message{Topic: "will", Payload: []byte("gone"), QoS: 1}
			})
			c.sub5(mqtt.Subscription{Filter: "will", QoS: 1, NoLocal: noLocal})
			c.Close() // without DISCONNECT
			other.want("will", "gone", 1)
			synctest.Wait()
			again := d.in5("x", kept5(1000))
			if !noLocal {
				again.want("will", "gone", 1)
			}
			again.wantNothing()
		})
	}
}
