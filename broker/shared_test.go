package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// What a shared subscription promises. The numbers in brackets are statements of
// MQTT 5.0; its section 4.8.2 is about shared subscriptions.
// joins connects a client that keeps its session and takes part in a share.
func (d *bed) joins(id, filter string, q mqtt.QoS) *wire {
	d.t.Helper()
	w := d.connect(id, false)
	w.subscribe(filter, q)
	return w
}

// passes connects a client that keeps nothing.
func (d *bed) passes(id string) *wire {
	d.t.Helper()
	w := d.wire(clean(id))
	w.connack(packet.Accepted, false)
	return w
}

// five connects a client of MQTT 5 that keeps nothing and subscribes to sub.
func (d *bed) five(id string, sub mqtt.Subscription) *wire {
	d.t.Helper()
	w := d.wire(five5(id, nil))
	w.next()
	p := packet.Subscribe{Version: packet.V5, ID: 9, Subscriptions: []mqtt.Subscription{sub}}
	if sub.ID != 0 {
		p.Properties = p.Properties.AppendUint(packet.PropSubscriptionID, sub.ID)
	}
	w.send(p.Append(nil))
	var k packet.Suback
	if err := k.Decode(w.next5()); err != nil || k.Reasons[0] != packet.Reason(sub.QoS) {
		d.t.Fatalf("subscribe to %q: %v, %v", sub.Filter, k.Reasons, err)
	}
	return w
}

// owe publishes messages called from to upTo to topic, and waits until the
// gateway is responsible for all of them.
func (w *wire) owe(topic string, q mqtt.QoS, from, upTo int) {
	w.t.Helper()
	for i := from; i <= upTo; i++ {
		w.publish(topic, fmt.Sprint(i), q, uint16(i+1), false)
		if q == 2 {
			w.wantAck(packet.TypePubrec, uint16(i+1))
			w.ack(packet.TypePubrel, uint16(i+1))
			w.wantAck(packet.TypePubcomp, uint16(i+1))
		} else {
			w.wantAck(packet.TypePuback, uint16(i+1))
		}
	}
}

// settle waits until the broker has done all that follows from what has
// happened to connections.
func (d *bed) settle(connected int) {
	d.t.Helper()
	for end := time.Now().Add(patience); d.b.Status().Connections != connected; {
		if time.Now().After(end) {
			d.t.Fatalf("%d connections, want %d", d.b.Status().Connections, connected)
		}
		<-time.After(time.Millisecond)
	}
}

// kept returns how many durable queues and shares there are.
func (d *bed) kept() (queues, shares int) {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	return len(d.b.queues), len(d.b.shares)
}

func (d *bed) statusOf(id string) SessionStatus {
	for _, st := range d.b.Sessions() {
		if st.ID == id {
			return st
		}
	}
	return SessionStatus{}
}

func TestSharedFilters(t *testing.T) { // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
	d := newBed(t, nil)
	for filter, want := range map[string]packet.Reason{
		"$share/g/a":     1,
		"$share/g/#":     1,
		"$share/g/+/b":   1,
		"$share/g//":     1,
		"$share/ü $/a":   1,
		"$share//x":      packet.ReasonTopicFilterInvalid,
		"$share/+/x":     packet.ReasonTopicFilterInvalid,
		"$share/#":       packet.ReasonTopicFilterInvalid,
		"$share/g":       packet.ReasonTopicFilterInvalid,
		"$share/g/":      packet.ReasonTopicFilterInvalid,
		"$share/":        packet.ReasonTopicFilterInvalid,
		"$share":         1, // names like any other
		"$shared/g/a":    1,
		"a/$share/g/b/c": 1,
		"$share/g/" + strings.Repeat("/", maxLevels): packet.ReasonTopicFilterInvalid,
	} {
		c := d.dial("c", five(nil))
		if got := c.sub5(mqtt.Subscription{Filter: filter, QoS: 1}); got[0] != want {
			t.Errorf("MQTT 5: SUBACK for %q has 0x%02x, want 0x%02x", filter, byte(got[0]), byte(want))
		}
		c.Close()
		old := d.dial("c", nil)
		code := mqtt.QoS(want)
		if want.Failed() {
			code = mqtt.QoSFailure
		}
		if got, err := old.Subscribe(d.ctx(), mqtt.Subscription{Filter: filter, QoS: 1}); err != nil || got[0] != code {
			t.Errorf("MQTT 3.1.1: SUBACK for %q has %v, %v, want 0x%02x", filter, got, err, byte(code))
		}
		old.Close()
	}
	d.settle(0)
	if _, n := d.kept(); n > 0 {
		t.Errorf("%d shared subscriptions are left", n)
	}
}

func TestNoLocalCannotBeShared(t *testing.T) { // [MQTT-3.8.3-4]
	d := newBed(t, nil)
	c := d.dial("c", five(nil))
	if _, _, err := c.SubscribeReasons(d.ctx(), mqtt.Subscription{Filter: "$share/g/a", NoLocal: true}); err == nil {
		t.Error("SUBSCRIBE was answered")
	}
	c.wantEnd(packet.ReasonProtocolError)
}

func TestSharedMessagesGoToOneMemberEach(t *testing.T) {
	for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
		t.Run(fmt.Sprint("QoS ", q), func(t *testing.T) {
			d := newBed(t, nil)
			members := []*peer{d.dial("a", nil), d.dial("b", durable), d.dial("c", five(nil))}
			for _, m := range members {
				m.subscribe("$share/g/t/+", q)
			}
			other := []*peer{d.dial("x", nil), d.dial("y", nil)}
			other[0].subscribe("$share/other/t/+", q) // another group has a copy
			other[1].subscribe("t/+", q)
			pub := d.dial("pub", nil)
			const n = 30
			for i := range n {
				pub.publish("t/x", fmt.Sprint(i), q)
			}
			for i := range n {
				for _, o := range other {
					o.want("t/x", fmt.Sprint(i), q)
				}
			}
			all := make(map[string]int)
			for _, m := range members {
				last := -1
				for range n / len(members) { // in turn, so all the same number
					p := (<-m.got).Payload
					var i int
					fmt.Sscan(string(p), &i)
					if all[string(p)]++; i < last {
						t.Errorf("got %d behind %d", i, last)
					}
					last = i
				}
				m.wantNothing()
			}
			if len(all) != n {
				t.Errorf("%d of %d messages came", len(all), n)
			}
		})
	}
}

func TestSharedMessagesGoWhereThereIsRoom(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxInflight = 5 })
	stuck := d.joins("stuck", "$share/g/t", 1)
	busy := d.joins("busy", "$share/g/t", 1)
	pub := d.passes("pub")
	for i := range 100 {
		pub.publish("t", fmt.Sprint(i), 1, uint16(i+1), false)
	}
	for range 95 { // stuck has 5 and acknowledges none of them
		var p packet.Publish
		if err := p.Decode(busy.next()); err != nil {
			t.Fatal(err)
		}
		busy.ack(packet.TypePuback, p.ID)
	}
	busy.fence()
	for i := range 100 {
		pub.wantAck(packet.TypePuback, uint16(i+1))
	}
	stuck.wantPublish("t", "0", 1)
	stuck.c.Close()
	for i := range 5 { // come back, in order; to another client they are new
		if p := busy.wantPublish("t", fmt.Sprint(2*i), 1); p.Dup {
			t.Errorf("%s is sent to another client as a duplicate", p.Payload)
		} else {
			busy.ack(packet.TypePuback, p.ID)
		}
	}
	stuck = d.connect("stuck", true)
	stuck.fence()
	busy.fence()
}

func TestSharedMessagesWaitForMembers(t *testing.T) { // law 1: after PUBACK nothing is lost
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		for _, id := range []string{"a", "b"} {
			w := d.joins(id, "$share/g/t", 2)
			w.disconnect()
		}
		pub := d.passes("pub")
		pub.owe("t", 1, 0, 3)
		pub.owe("t", 2, 4, 7)
		pub.c.Close()
		if st := d.statusOf("$share/g/t"); st.Queued != 8 || st.OnDisk != 8 || st.Members != 2 || st.Connected {
			t.Errorf("status %+v, want 8 messages for 2 absent members", st)
		}
		interrupt()
		b := d.connect("b", true) // a stays away
		var ids []uint16
		for i := range 8 {
			q := mqtt.QoS(1 + i/4)
			p := b.wantPublish("t", fmt.Sprint(i), q)
			b.ack(map[mqtt.QoS]packet.Type{1: packet.TypePuback, 2: packet.TypePubrec}[q], p.ID)
			ids = append(ids, p.ID)
		}
		for _, id := range ids[4:] {
			b.wantAck(packet.TypePubrel, id)
			b.ack(packet.TypePubcomp, id)
		}
		b.fence()
		if st := d.statusOf("$share/g/t"); st.Queued != 0 || st.OnDisk != 0 || !st.Connected {
			t.Errorf("status %+v, want nothing queued", st)
		}
		b.disconnect()
		interrupt()
		a := d.connect("a", true)
		a.fence()
	})
}

func TestSharedSubscriptionOptions(t *testing.T) { // [MQTT-3.3.4-3]
	d := newBed(t, nil)
	pub := d.dial("pub", five(nil))
	pub.retain("t/kept", "old", 1)
	a := d.dial("a", five(nil))
	a.sub5(mqtt.Subscription{Filter: "$share/g/t/#", QoS: 1, ID: 7, RetainAsPublished: true})
	b := d.dial("b", five(nil))
	b.sub5(mqtt.Subscription{Filter: "$share/g/t/#", QoS: 0, ID: 8})
	a.wantNothing() // retained messages are not sent to a new shared subscription (section 4.8.2)
	b.wantNothing()
	check := func(m client.Message, retain bool, id uint32) {
		t.Helper()
		if ids := slices.Collect(m.Properties.SubscriptionIDs()); m.Retain != retain || !slices.Equal(ids, []uint32{id}) {
			t.Errorf("%s came with retain %v and the identifiers %v, want %v and %d", m.Payload, m.Retain, ids, retain, id)
		}
	}
	for i := range 2 {
		pub.retain("t/x", fmt.Sprint("a", i), 2)
		check(a.want("t/x", fmt.Sprint("a", i), 1), true, 7)
		pub.retain("t/x", fmt.Sprint("b", i), 2)
		check(b.want("t/x", fmt.Sprint("b", i), 0), false, 8)
	}
	a.sub5(mqtt.Subscription{Filter: "$share/g/t/#", QoS: 0}) // changes it
	pub.retain("t/x", "c", 1)
	if m := a.want("t/x", "c", 0); m.Retain {
		t.Error("the retain flag is set though nobody wants it")
	}
}

func TestSharedAndOrdinary(t *testing.T) { // each is a subscription of its own
	d := newBed(t, nil)
	a := d.dial("a", durable)
	a.subscribe("$share/g/t", 1)
	a.subscribe("$share/h/+", 2)
	a.subscribe("t", 2)
	pub := d.dial("pub", nil)
	pub.publish("t", "x", 2)
	var qos []mqtt.QoS
	for range 3 {
		qos = append(qos, (<-a.got).QoS)
	}
	if slices.Sort(qos); !slices.Equal(qos, []mqtt.QoS{1, 2, 2}) {
		t.Errorf("it came at QoS %v, want 1, 2 and 2", qos)
	}
	a.wantNothing()
	st := d.statusOf("a")
	if st.Subscriptions != 4 || st.Shared != 2 || st.Queued != 0 {
		t.Errorf("status %+v, want 4 subscriptions, 2 of them shared, and nothing queued", st)
	}
}

func TestSharedMessagesExpire(t *testing.T) { // [MQTT-3.3.2-5]
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		a := d.in5("a", kept5(1000))
		a.subscribe("$share/g/t", 1)
		a.Disconnect()
		synctest.Wait()
		pub := d.in5("pub", five(nil))
		for name, seconds := range map[string]uint32{"short": 5, "long": 50} {
			pub.with(mqtt.Message{Topic: "t", Payload: []byte(name), QoS: 1}, packet.Properties(nil).AppendUint(packet.PropMessageExpiry, seconds))
		}
		time.Sleep(10 * time.Second)
		a = d.in5("a", kept5(1000))
		m := a.want("t", "long", 1)
		if left, _ := m.Properties.Uint(packet.PropMessageExpiry); left != 40 {
			t.Errorf("50 s that waited 10 s have %d s left", left)
		}
		a.wantNothing()
		if st := d.statusOf("$share/g/t"); st.Dropped != 1 || st.Queued != 0 {
			t.Errorf("status %+v, want one message dropped and none queued", st)
		}
	})
}

func TestSharedMessageTooLarge(t *testing.T) { // [MQTT-3.1.2-24]
	d := newBed(t, nil)
	small := packet.Properties(nil).AppendUint(packet.PropMaximumPacketSize, 50)
	a, b := d.dial("a", five(small)), d.dial("b", nil)
	a.subscribe("$share/g/t", 1)
	b.subscribe("$share/g/t", 1)
	pub := d.dial("pub", nil)
	large := strings.Repeat("x", 100)
	for range 4 { // they go to who takes them
		pub.publish("t", large, 1)
		b.want("t", large, 1)
	}
	b.Disconnect()
	d.settle(2)
	pub.publish("t", large, 1)
	pub.publish("t", "small", 1)
	a.want("t", "small", 1)
}

func TestSharedRights(t *testing.T) {
	d := newBed(t, guarded("user alice\ntopic readwrite #\nuser bob\ntopic read t/open\n"))
	alice, bob := d.dial("alice", as("alice", durable)), d.dial("bob", as("bob"))
	alice.subscribe("$share/g/t/#", 1)
	if codes, err := bob.Subscribe(d.ctx(), mqtt.Subscription{Filter: "$share/g/u", QoS: 1}); err != nil || codes[0] != mqtt.QoSFailure {
		t.Errorf("subscribe without a right: %v, %v", codes, err)
	}
	bob.subscribe("$share/g/t/#", 1)
	pub := d.dial("pub", as("alice"))
	pub.publish("t/secret", "1", 1)
	alice.want("t/secret", "1", 1)
	alice.Disconnect()
	d.settle(2)
	pub.publish("t/secret", "2", 1) // waits for alice, and nobody waits for it
	pub.publish("t/open", "3", 1)
	bob.want("t/open", "3", 1)
	pub.publish("t/open", "4", 1)
	bob.want("t/open", "4", 1)
	alice = d.dial("alice", as("alice", durable))
	alice.want("t/secret", "2", 1)
	alice.Disconnect()
	d.settle(2)
	pub.publish("t/secret", "5", 1)
	d.reload("user alice\ntopic readwrite #\nuser bob\ntopic read t/#\n")
	bob.want("t/secret", "5", 1)
}

func TestSharesAreBounded(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxSessions, d.cfg.Limits.MaxSubscriptions = 2, 3 })
	a, b := d.dial("a", five(nil)), d.dial("b", five(nil))
	for i, want := range []packet.Reason{0, 0, packet.ReasonQuotaExceeded} {
		if got := a.sub5(mqtt.Subscription{Filter: fmt.Sprintf("$share/%d/t", i)}); got[0] != want {
			t.Errorf("share %d: SUBACK with 0x%02x, want 0x%02x", i, byte(got[0]), byte(want))
		}
	}
	if got := b.sub5(mqtt.Subscription{Filter: "$share/0/t"}); got[0] != 0 {
		t.Errorf("another member: 0x%02x", byte(got[0]))
	}
	a.sub5(mqtt.Subscription{Filter: "x"})
	if got := a.sub5(mqtt.Subscription{Filter: "y"}); got[0] != packet.ReasonQuotaExceeded { // shared ones count
		t.Errorf("one subscription more than allowed: 0x%02x", byte(got[0]))
	}
	if _, err := d.b.OpenInbox(d.ctx(), "in", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "$share/g/t"}); err == nil {
		t.Error("an inbox shares a subscription")
	}
}

func TestSharedCounts(t *testing.T) {
	d := newBed(t, nil)
	a := d.dial("a", nil)
	a.subscribe("$share/g/t", 1)
	a.subscribe("t", 1)
	b := d.dial("b", nil)
	b.subscribe("$share/g/t", 1)
	if connected, total, subscriptions, shared := d.b.population(); connected != 2 || total != 2 || subscriptions != 1 || shared != 2 {
		t.Errorf("%d of %d clients connected, %d subscriptions and %d shared, want 2 of 2, 1 and 2", connected, total, subscriptions, shared)
	}
	if st := d.statusOf("$share/g/t"); st.Members != 2 || !st.Connected || !st.Durable || st.Subscriptions != 1 {
		t.Errorf("status %+v", st)
	}
}
