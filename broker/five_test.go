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
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// What MQTT 5 adds. The numbers in brackets are statements of MQTT 5.0.

// five makes a client speak MQTT 5 with these properties in its CONNECT.
func five(props packet.Properties) func(*client.Options) {
	return func(o *client.Options) { o.Version, o.Properties = packet.V5, props }
}

// kept5 makes it keep its session for so many seconds.
func kept5(seconds uint32) func(*client.Options) {
	return func(o *client.Options) {
		five(packet.Properties(nil).AppendUint(packet.PropSessionExpiry, seconds))(o)
		o.CleanSession = false
	}
}

// in5 connects a client in a synctest bubble.
func (d *bed) in5(id string, change func(*client.Options)) *peer {
	d.t.Helper()
	near, far := net.Pipe()
	go d.b.ServeConn(far)
	p := &peer{t: d.t, got: make(chan client.Message, 1000)}
	o := client.Options{ClientID: id, CleanSession: true, Version: packet.V5, Handler: func(m client.Message) { p.got <- m }}
	change(&o)
	c, err := client.Connect(d.t.Context(), near, o)
	if err != nil {
		d.t.Fatal(err)
	}
	p.Conn = c
	d.t.Cleanup(p.Close)
	return p
}

func (p *peer) with(m mqtt.Message, props packet.Properties) {
	p.t.Helper()
	if err := p.PublishWith(p.t.Context(), m, props); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) sub5(subs ...mqtt.Subscription) []packet.Reason {
	p.t.Helper()
	reasons, _, err := p.SubscribeReasons(p.t.Context(), subs...)
	if err != nil {
		p.t.Fatal(err)
	}
	return reasons
}

// wantEnd waits for the DISCONNECT that ends the connection.
func (p *peer) wantEnd(reason packet.Reason) {
	p.t.Helper()
	<-p.Done()
	var e *client.ReasonError
	if err := p.Err(); !errors.As(err, &e) || e.Reason != reason {
		p.t.Errorf("the connection ended with %v, want DISCONNECT %#x", err, byte(reason))
	}
}

func TestPropertiesAreForwarded(t *testing.T) { // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
	var props packet.Properties
	props = props.AppendUint(packet.PropPayloadFormat, 1).AppendText(packet.PropContentType, "text/plain")
	props = props.AppendText(packet.PropResponseTopic, "answers").AppendText(packet.PropCorrelationData, "\x00\x01")
	props = props.AppendUser("b", "1").AppendUser("a", "2").AppendUser("b", "3")
	d := newBed(t, nil)
	away := d.dial("away", kept5(1000))
	away.subscribe("#", 2)
	if err := away.Disconnect(); err != nil {
		t.Fatal(err)
	}
	here, old := d.dial("here", five(nil)), d.dial("old", nil)
	here.subscribe("#", 1)
	old.subscribe("#", 1)
	pub := d.dial("pub", five(nil))
	for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
		pub.with(mqtt.Message{Topic: "a", Payload: []byte("x"), QoS: q, Retain: true}, props)
		if m := here.want("a", "x", min(q, 1)); string(m.Properties) != string(props) {
			t.Errorf("QoS %d: got the properties %q, want %q", q, m.Properties, props)
		}
		old.want("a", "x", min(q, 1))
	}
	d.restart()
	away = d.dial("away", kept5(1000))
	for q := mqtt.AtLeastOnce; q <= mqtt.ExactlyOnce; q++ {
		if m := away.want("a", "x", q); string(m.Properties) != string(props) {
			t.Errorf("from the journal: got the properties %q, want %q", m.Properties, props)
		}
	}
	late := d.dial("late", five(nil))
	late.subscribe("a", 1)
	if m := late.want("a", "x", 1); string(m.Properties) != string(props) || !m.Retain {
		t.Errorf("retained: got the properties %q, want %q", m.Properties, props)
	}
}

func TestExpiryIsCountedDown(t *testing.T) { // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		sub := d.in5("sub", kept5(1000))
		sub.subscribe("a", 1)
		sub.Disconnect()
		synctest.Wait() // else the broker may still send to it, and what was sent is sent again
		pub := d.in5("pub", five(nil))
		expires := func(s uint32) packet.Properties {
			return packet.Properties(nil).AppendUint(packet.PropMessageExpiry, s)
		}
		pub.with(mqtt.Message{Topic: "a", Payload: []byte("short"), QoS: 1, Retain: true}, expires(5))
		pub.with(mqtt.Message{Topic: "a", Payload: []byte("long"), QoS: 1, Retain: true}, expires(50))
		pub.Disconnect()
		time.Sleep(10 * time.Second)
		d.restart()
		sub = d.in5("sub", kept5(1000))
		m := sub.want("a", "long", 1)
		if left, _ := m.Properties.Uint(packet.PropMessageExpiry); left != 40 {
			t.Errorf("50 s that waited 10 s have %d s left", left)
		}
		time.Sleep(30 * time.Second)
		sub.sub5(mqtt.Subscription{Filter: "a", QoS: 1})
		m = sub.want("a", "long", 1)
		if left, _ := m.Properties.Uint(packet.PropMessageExpiry); left != 10 || !m.Retain {
			t.Errorf("the retained message has %d s left, want 10", left)
		}
		time.Sleep(11 * time.Second)
		sub.sub5(mqtt.Subscription{Filter: "a", QoS: 1})
		sub.wantNothing()
	})
}

func TestSessionExpiry(t *testing.T) { // [MQTT-3.1.2-23]
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) {
			d.cfg.Listeners = nil
			d.cfg.Limits.SessionExpiry = units.Duration(time.Hour)
		})
		for _, c := range []struct {
			ask, away time.Duration
			present   bool
		}{
			{0, time.Millisecond, false},
			{10 * time.Second, 9 * time.Second, true},
			{10 * time.Second, 11 * time.Second, false},
			{1 << 31 * time.Second, 59 * time.Minute, true}, // asks for more than the limit
			{1 << 31 * time.Second, 61 * time.Minute, false},
		} {
			id := fmt.Sprint(c.ask, c.away)
			first := d.in5(id, kept5(uint32(c.ask/time.Second)))
			granted, ok := first.Connack().Properties.Uint(packet.PropSessionExpiry)
			if ok != (c.ask > time.Hour) || ok && granted != 3600 {
				t.Errorf("asked for %v, granted %d, %v", c.ask, granted, ok)
			}
			first.Close()
			time.Sleep(c.away)
			if again := d.in5(id, kept5(0)); again.SessionPresent() != c.present {
				t.Errorf("expiry %v, away for %v: session present %v", c.ask, c.away, again.SessionPresent())
			}
		}
		a := d.in5("shorter", kept5(100))
		a.DisconnectWith(packet.Disconnect5{Properties: packet.Properties(nil).AppendUint(packet.PropSessionExpiry, 1)})
		time.Sleep(2 * time.Second)
		if d.in5("shorter", kept5(0)).SessionPresent() {
			t.Error("the expiry in DISCONNECT is not obeyed")
		}
	})
}

func TestWillDelay(t *testing.T) { // [MQTT-3.1.3-9] [MQTT-3.1.2-8]
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		sub := d.in5("sub", five(nil))
		sub.subscribe("will/#", 1)
		connect := func(id string, expiry, delay uint32) *peer {
			return d.in5(id, func(o *client.Options) {
				kept5(expiry)(o)
				o.Will = &mqtt.Message{Topic: "will/" + id, Payload: []byte("gone"), QoS: 1}
				o.WillProperties = packet.Properties(nil).AppendUint(packet.PropWillDelay, delay).AppendUser("k", "v")
			})
		}
		start := time.Now()
		connect("back", 100, 10).Close()
		connect("late", 100, 10).Close()
		connect("expired", 5, 60).Close()
		connect("asked", 100, 0).DisconnectWith(packet.Disconnect5{Reason: packet.ReasonDisconnectWithWill})
		sub.want("will/asked", "gone", 1)
		connect("back", 100, 10)
		if m := sub.want("will/expired", "gone", 1); time.Since(start).Round(time.Second) != 5*time.Second || m.Properties.Text(packet.PropWillDelay) != "" {
			t.Errorf("the will of a session that expired came after %v with %q", time.Since(start), m.Properties)
		}
		sub.want("will/late", "gone", 1)
		if after := time.Since(start).Round(time.Second); after != 10*time.Second {
			t.Errorf("the will came after %v, want 10 s", after)
		}
		sub.wantNothing()
	})
}

func TestLimitsOfTheClient(t *testing.T) {
	d := newBed(t, nil)
	var props packet.Properties
	props = props.AppendUint(packet.PropReceiveMaximum, 2).AppendUint(packet.PropMaximumPacketSize, 200)
	sub := d.dial("sub", func(o *client.Options) { five(props)(o); o.ManualAck = true })
	sub.subscribe("a", 1)
	pub := d.dial("pub", nil)
	pub.publish("a", strings.Repeat("x", 300), 1) // [MQTT-3.1.2-24]: dropped
	for i := range 5 {
		pub.publish("a", fmt.Sprint(i), 1)
	}
	for i := range 5 { // [MQTT-3.3.4-9]
		m := sub.want("a", fmt.Sprint(i), 1)
		if i == 1 && len(sub.got) > 0 {
			t.Error("a third message came before one of two was acknowledged")
		}
		if err := sub.Ack(m); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.b.Status().MessagesDropped; n != 1 {
		t.Errorf("%d messages count as dropped, want the one that is too large", n)
	}
}

func TestLimitsOfTheBroker(t *testing.T) {
	connack := func(w *wire) packet.Connack {
		f := w.next()
		f.Version, f.FromServer = packet.V5, true
		var k packet.Connack
		if err := k.Decode(f); err != nil {
			t.Fatal(err)
		}
		return k
	}
	wantEnd := func(w *wire, reason packet.Reason) {
		t.Helper()
		for {
			f := w.next()
			f.Version, f.FromServer = packet.V5, true
			if f.Type() != packet.TypeDisconnect {
				continue
			}
			var e packet.Disconnect5
			if err := e.Decode(f); err != nil || e.Reason != reason || e.Properties.Text(packet.PropReasonString) == "" {
				t.Errorf("got DISCONNECT %#x %q, %v, want %#x with words", byte(e.Reason), e.Properties, err, byte(reason))
			}
			return
		}
	}
	d := newBed(t, func(d *bed) {
		d.cfg.Limits.ReceiveMaximum, d.cfg.Limits.MaxPacketSize, d.cfg.Limits.MaxTopicAlias = 3, 1000, 2
	})
	k := packet.Connect{Version: packet.V5, CleanSession: true}
	pub := func(topic string, q mqtt.QoS, id uint16, props packet.Properties) []byte {
		p := packet.Publish{Version: packet.V5, Topic: []byte(topic), QoS: q, ID: id, Properties: props}
		return p.Append(nil)
	}
	alias := func(n uint32) packet.Properties { return packet.Properties(nil).AppendUint(packet.PropTopicAlias, n) }
	for name, c := range map[string]struct {
		send   [][]byte
		reason packet.Reason
	}{
		"more QoS 2 than the receive maximum [MQTT-3.3.4-7]": {
			[][]byte{pub("a", 2, 1, nil), pub("a", 2, 2, nil), pub("a", 2, 3, nil), pub("a", 2, 4, nil)}, packet.ReasonReceiveMaximumExceeded,
		},
		"a packet over the maximum [MQTT-3.2.2-15]":      {[][]byte{pub(strings.Repeat("x", 1000), 0, 0, nil)}, packet.ReasonPacketTooLarge},
		"an alias over the maximum [MQTT-3.2.2-17]":      {[][]byte{pub("a", 0, 0, alias(3))}, packet.ReasonTopicAliasInvalid},
		"an alias that stands for nothing":               {[][]byte{pub("", 0, 0, alias(1))}, packet.ReasonProtocolError},
		"a second CONNECT [MQTT-3.1.0-2]":                {[][]byte{k.Append(nil)}, packet.ReasonProtocolError},
		"a malformed packet [MQTT-4.13.1-1]":             {[][]byte{{0x82, 5, 0, 1, 0, 0, 0}}, packet.ReasonMalformedPacket},
		"DISCONNECT keeps what was to end [MQTT-3.14.2]": {[][]byte{{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 1}}, packet.ReasonProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			w := d.wire(k)
			got := connack(w)
			if id := got.Properties.Text(packet.PropAssignedClientID); got.Reason != 0 || id == "" { // [MQTT-3.2.2-16]
				t.Errorf("CONNACK %#x with the client id %q", byte(got.Reason), id)
			}
			for prop, want := range map[packet.Property]uint32{packet.PropReceiveMaximum: 3, packet.PropMaximumPacketSize: 1000, packet.PropTopicAliasMaximum: 2} {
				if n, ok := got.Properties.Uint(prop); !ok || n != want {
					t.Errorf("CONNACK says %v = %d, %v, want %d", prop, n, ok, want)
				}
			}
			w.send(c.send...)
			wantEnd(w, c.reason)
		})
	}
}

func TestTopicAliases(t *testing.T) { // [MQTT-3.3.2-12]
	d := newBed(t, nil)
	sub := d.dial("sub", five(packet.Properties(nil).AppendUint(packet.PropTopicAliasMaximum, 1)))
	sub.subscribe("#", 1)
	pub := d.dial("pub", five(nil))
	alias := packet.Properties(nil).AppendUint(packet.PropTopicAlias, 1)
	pub.with(mqtt.Message{Topic: "long/topic", Payload: []byte("1"), QoS: 1}, alias)
	pub.with(mqtt.Message{Topic: "other", Payload: []byte("2"), QoS: 1}, nil)
	pub.with(mqtt.Message{Topic: "long/topic", Payload: []byte("3")}, alias)
	for i, topic := range []string{"long/topic", "other", "long/topic"} {
		m := sub.want(topic, fmt.Sprint(i+1), mqtt.QoS(1-i/2))
		if n, ok := m.Properties.Uint(packet.PropTopicAlias); ok && (n != 1 || topic == "other") {
			t.Errorf("%s came with the alias %d, the client knows one at most", topic, n)
		}
	}
}

func TestSubscriptionOptions(t *testing.T) {
	d := newBed(t, nil)
	c := d.dial("c", five(nil))
	other := d.dial("other", nil)
	other.retain("kept", "old", 1)
	got := c.sub5(
		mqtt.Subscription{Filter: "own", QoS: 1, NoLocal: true, ID: 5},
		mqtt.Subscription{Filter: "kept", QoS: 1, RetainAsPublished: true, RetainHandling: 2, ID: 5},
		mqtt.Subscription{Filter: "$share//x", QoS: 1, ID: 5},
	)
	if want := []packet.Reason{1, 1, packet.ReasonTopicFilterInvalid}; !slices.Equal(got, want) {
		t.Errorf("SUBACK %v, want %v", got, want)
	}
	c.publish("own", "mine", 1) // [MQTT-3.8.3-3]: does not come back
	other.publish("own", "theirs", 1)
	c.want("own", "theirs", 1)
	c.sub5(mqtt.Subscription{Filter: "mix/#", QoS: 1, NoLocal: true, ID: 7})
	c.sub5(mqtt.Subscription{Filter: "mix/a", ID: 8})
	c.publish("mix/a", "mine", 1) // only one of the two wants it
	if ids := slices.Sorted(c.want("mix/a", "mine", 0).Properties.SubscriptionIDs()); !slices.Equal(ids, []uint32{8}) {
		t.Errorf("its own message came with the identifiers %v, want 8", ids)
	}
	other.publish("mix/a", "theirs", 1)
	if ids := slices.Sorted(c.want("mix/a", "theirs", 1).Properties.SubscriptionIDs()); !slices.Equal(ids, []uint32{7, 8}) {
		t.Errorf("another's message came with the identifiers %v, want 7 and 8", ids)
	}
	other.retain("kept", "new", 1)
	if m := c.want("kept", "new", 1); !m.Retain { // [MQTT-3.3.1-13]
		t.Error("retain as published is not kept")
	}
	c.sub5(mqtt.Subscription{Filter: "kept", QoS: 1, RetainHandling: 1}) // [MQTT-3.3.1-10]: it existed
	c.wantNothing()
	c.sub5(mqtt.Subscription{Filter: "kept", QoS: 1})
	c.want("kept", "new", 1)
}

func TestSubscriptionIdentifiers(t *testing.T) { // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
	d := newBed(t, nil)
	c := d.dial("c", kept5(1000))
	for id, filter := range []string{"a/#", "a/b", "+/b", "c"} {
		c.sub5(mqtt.Subscription{Filter: filter, QoS: 1, ID: uint32(id + 1)})
	}
	check := func(m client.Message) {
		t.Helper()
		if ids := slices.Sorted(m.Properties.SubscriptionIDs()); !slices.Equal(ids, []uint32{1, 2, 3}) {
			t.Errorf("got the identifiers %v, want 1, 2 and 3", ids)
		}
	}
	pub := d.dial("pub", nil)
	pub.publish("a/b", "now", 1)
	check(c.want("a/b", "now", 1))
	c.Disconnect()
	pub.publish("a/b", "later", 1)
	d.restart()
	c = d.dial("c", kept5(1000))
	check(c.want("a/b", "later", 1))
	c.wantNothing()
}

func TestGoodbyes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		a := d.in5("a", five(nil))
		b := d.in5("a", five(nil))
		a.wantEnd(packet.ReasonSessionTakenOver) // [MQTT-3.1.4-3]
		go d.stop()
		b.wantEnd(packet.ReasonServerShuttingDown)
	})
	d := newBed(t, nil)
	w := d.wire(packet.Connect{Version: packet.V5, CleanSession: true, Properties: packet.Properties(nil).AppendText(packet.PropAuthMethod, "GS2")})
	f := w.next()
	f.Version, f.FromServer = packet.V5, true
	var k packet.Connack
	if err := k.Decode(f); err != nil || k.Reason != packet.ReasonBadAuthenticationMethod {
		t.Errorf("an unknown authentication method is answered with %#x, %v", byte(k.Reason), err)
	}
}

func TestAliasesAreBounded(t *testing.T) {
	f := newClient5(&packet.Connect{}, &Broker{cfg: Config{Limits: Limits{MaxTopicAlias: 32}}, memory: budget{limit: 1 << 20}})
	long := []byte(strings.Repeat("x", 60000))
	p := packet.Publish{Topic: long, Properties: packet.Properties(nil).AppendUint(packet.PropTopicAlias, 1)}
	for range 10 { // the same alias again and again takes no more
		if _, err := f.topic(&p); err != nil {
			t.Fatal(err)
		}
	}
	p.Properties = packet.Properties(nil).AppendUint(packet.PropTopicAlias, 2)
	var e *packet.Error
	if _, err := f.topic(&p); !errors.As(err, &e) || e.Reason != packet.ReasonQuotaExceeded {
		t.Errorf("120 kB of topics for one client: %v", err)
	}
}
