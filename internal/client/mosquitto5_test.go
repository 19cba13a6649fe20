package client

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/internal/testbed"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestMosquitto5PassesPropertiesOn(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	c, messages := dial(t, addr, Options{
		Version: packet.V5, CleanSession: true, KeepAlive: time.Minute,
		Properties: props.AppendUint(packet.PropTopicAliasMaximum, 10).AppendUint(packet.PropReceiveMaximum, 5),
	})
	if c.ClientID() == "" {
		t.Error("no client id was assigned [MQTT-3.1.3-6]")
	}
	sub := mqtt.Subscription{Filter: "a/+", QoS: 2, ID: 42, RetainAsPublished: true}
	if reasons, _, err := c.SubscribeReasons(deadline(t), sub); err != nil || !slices.Equal(reasons, []packet.Reason{packet.ReasonGrantedQoS2}) {
		t.Fatalf("granted %v, %v", reasons, err)
	}
	list := props.AppendUint(packet.PropPayloadFormat, 1).AppendUint(packet.PropMessageExpiry, 100).
		AppendText(packet.PropContentType, "text/plain").AppendText(packet.PropResponseTopic, "r").
		AppendText(packet.PropCorrelationData, "\xff").AppendUser("b", "2").AppendUser("a", "1")
	for q := range mqtt.QoS(3) {
		m := message("a/b", "hello", q)
		m.Retain = true
		if err := c.PublishWith(deadline(t), m, list); err != nil {
			t.Fatal(err)
		}
		got := receive(t, messages)
		if got.Topic != "a/b" || got.QoS != q || !got.Retain || string(got.Payload) != "hello" {
			t.Errorf("got %+v", got)
		}
		checkProperties(t, got.Properties)
	}
	if err := c.Unsubscribe(deadline(t), "a/+"); err != nil {
		t.Error(err)
	}
	if err := c.DisconnectWith(packet.Disconnect5{Reason: packet.ReasonDisconnectWithWill}); err != nil {
		t.Error(err)
	}
}

// checkProperties checks those that the test above sent, and what the broker adds.
func checkProperties(t *testing.T, p packet.Properties) {
	t.Helper()
	if expiry, ok := p.Uint(packet.PropMessageExpiry); !ok || expiry > 100 || expiry < 80 {
		t.Errorf("message expiry %d, %v", expiry, ok)
	}
	if format := p.UintOr(packet.PropPayloadFormat, 0); format != 1 {
		t.Errorf("payload format %d", format)
	}
	texts := []string{p.Text(packet.PropContentType), p.Text(packet.PropResponseTopic), p.Text(packet.PropCorrelationData)}
	for name, value := range p.User() {
		texts = append(texts, name+"="+value)
	}
	if want := []string{"text/plain", "r", "\xff", "b=2", "a=1"}; !slices.Equal(texts, want) {
		t.Errorf("got %q, want %q", texts, want)
	}
	if ids := slices.Collect(p.SubscriptionIDs()); !slices.Equal(ids, []uint32{42}) {
		t.Errorf("subscription identifiers %v", ids)
	}
}

func TestMosquitto5NoLocalAndRetainHandling(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	c, messages := dial(t, addr, Options{Version: packet.V5, ClientID: "c", CleanSession: true})
	retained := message("a", "kept", 1)
	retained.Retain = true
	if err := c.Publish(deadline(t), retained); err != nil {
		t.Fatal(err)
	}
	for _, s := range []mqtt.Subscription{{Filter: "a", QoS: 1, NoLocal: true, RetainHandling: 2}, {Filter: "b", QoS: 1}} {
		if _, err := c.Subscribe(deadline(t), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range []string{"a", "b"} {
		if err := c.Publish(deadline(t), message(topic, "own", 1)); err != nil {
			t.Fatal(err)
		}
	}
	if m := receive(t, messages); m.Topic != "b" {
		t.Errorf("got %+v, want neither the retained nor the own message", m)
	}
}

func TestMosquitto5SaysWhatItsLimitsAre(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true", "max_qos 1", "retain_available false", "max_keepalive 30", "max_packet_size 200", "max_inflight_messages 7", "max_topic_alias 3").Addr
	c, messages := dial(t, addr, Options{Version: packet.V5, ClientID: "c", CleanSession: true, KeepAlive: time.Minute})
	if cap(c.slots) != 7 || c.options.KeepAlive != 30*time.Second {
		t.Errorf("window %d, keep alive %s; the broker asked for 7 and 30s", cap(c.slots), c.options.KeepAlive)
	}
	for name, m := range map[string]mqtt.Message{
		"QoS 2":           message("a", "1", 2),
		"a retained":      {Topic: "a", Retain: true},
		"a large message": message("a", strings.Repeat("x", 200), 1),
	} {
		if err := c.Publish(deadline(t), m); err == nil {
			t.Errorf("%s was sent", name)
		}
	}
	if _, err := c.Subscribe(deadline(t), mqtt.Subscription{Filter: "a", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	alias := props.AppendUint(packet.PropTopicAlias, 3)
	for _, topic := range []string{"a", ""} { // the second by its alias alone
		if err := c.PublishWith(deadline(t), message(topic, "aliased", 1), alias); err != nil {
			t.Fatal(err)
		}
		if m := receive(t, messages); m.Topic != "a" {
			t.Errorf("got %+v", m)
		}
	}
}

func TestMosquitto5KeepsASessionByItsExpiry(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	o := Options{Version: packet.V5, ClientID: "c", Properties: props.AppendUint(packet.PropSessionExpiry, 60)}
	first, _ := dial(t, addr, o)
	second, _ := dial(t, addr, o) // takes the session over
	<-first.Done()
	if first.SessionPresent() || !second.SessionPresent() {
		t.Error("the session was not kept")
	}
}

func TestMosquitto5SaysWhyItDisconnects(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	c, _ := dial(t, addr, Options{Version: packet.V5, ClientID: "c", CleanSession: true})
	unlawful := props.AppendUint(packet.PropServerKeepAlive, 1)
	err := c.PublishWith(deadline(t), message("a", "1", 1), unlawful)
	ended, ok := errors.AsType[*ReasonError](err)
	if !ok || ended.Packet != packet.TypeDisconnect || !ended.Reason.Failed() {
		t.Errorf("got %v", err)
	}
}

func TestMosquitto5Will(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous true").Addr
	watcher, wills := dial(t, addr, Options{Version: packet.V5, ClientID: "watcher", CleanSession: true})
	if _, err := watcher.Subscribe(deadline(t), mqtt.Subscription{Filter: "will", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	will := message("will", "gone", 1)
	c, _ := dial(t, addr, Options{
		Version: packet.V5, ClientID: "mortal", CleanSession: true, Will: &will,
		WillProperties: props.AppendUint(packet.PropWillDelay, 0).AppendText(packet.PropContentType, "obituary"),
	})
	if err := c.DisconnectWith(packet.Disconnect5{Reason: packet.ReasonDisconnectWithWill}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, wills); string(m.Payload) != "gone" || m.Properties.Text(packet.PropContentType) != "obituary" {
		t.Errorf("got %+v", m)
	}
}

func TestMosquitto5RefusesStrangers(t *testing.T) {
	addr := testbed.StartMosquitto(t, "allow_anonymous false").Addr
	_, err := Dial(deadline(t), addr, Options{Version: packet.V5, ClientID: "c", Username: "nobody", Password: "wrong"})
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || refused.Reason != packet.ReasonNotAuthorized {
		t.Errorf("got %v", err)
	}
	addr = testbed.StartMosquitto(t, "allow_anonymous true").Addr
	_, err = Dial(deadline(t), addr, Options{Version: packet.V5, Properties: props.AppendText(packet.PropAuthMethod, "unheard of")})
	refused, ok = errors.AsType[*RefusedError](err)
	if !ok || refused.Reason != packet.ReasonBadAuthenticationMethod {
		t.Errorf("got %v", err)
	}
}
