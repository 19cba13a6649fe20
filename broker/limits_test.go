package broker

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestWrongFirstPacketsEndTheConnection(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxPacketSize = 256 })
	for name, b := range map[string][]byte{
		"the first packet is not CONNECT [MQTT-3.1.0-1]": {0xc0, 0},
		"this is HTTP":                           []byte("GET / HTTP/1.1\r\n\r\n"),
		"a length of five bytes":                 {0x10, 0xff, 0xff, 0xff, 0xff, 1},
		"larger than max_packet_size":            {0x10, 0x81, 2},
		"a protocol name that is not MQTT":       {0x10, 12, 0, 4, 'X', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 0},
		"a reserved connect flag [MQTT-3.1.2-3]": {0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 3, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", d.b.Addrs()[0].String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			w := &wire{t: t, c: c, r: packet.NewReader(c, packet.MaxSize)}
			w.send(b)
			w.wantEnd()
		})
	}
}

func TestRefusalsAreAnsweredInConnack(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxSessions = 1 })
	d.wire(packet.Connect{Version: 6, ClientID: "x", CleanSession: true}).connack(packet.RefusedVersion, false)
	d.wire(packet.Connect{}).connack(packet.RefusedClientID, false)
	d.wire(clean("one")).connack(packet.Accepted, false)
	d.wire(clean("two")).connack(packet.RefusedUnavailable, false)
}

func TestSecondConnectEndsTheConnection(t *testing.T) { // [MQTT-3.1.0-2]
	d := newBed(t, nil)
	w := d.connect("x", false)
	k := kept("x")
	k.Version = packet.V311
	w.send(k.Append(nil))
	w.wantEnd()
}

func TestOneByteAtATime(t *testing.T) {
	d := newBed(t, nil)
	w := d.connect("x", false)
	w.subscribe("a", 1)
	p := packet.Publish{Topic: []byte("a"), Payload: []byte(strings.Repeat("p", 300)), QoS: 1, ID: 5}
	for _, b := range p.Append(nil) {
		w.send([]byte{b})
	}
	acked, got := false, false
	for !acked || !got {
		switch f := w.next(); f.Type() {
		case packet.TypePublish:
			got = true
		case packet.TypePuback:
			acked = true
		}
	}
}

func TestHalfAPacketAndGone(t *testing.T) {
	d := newBed(t, nil)
	sub := d.dial("sub", nil)
	sub.subscribe("will", 0)
	k := clean("x")
	k.Will = &packet.Will{Topic: "will", Payload: []byte("gone")}
	w := d.wire(k)
	w.connack(packet.Accepted, false)
	w.send([]byte{0x30, 100, 0, 1, 'a'})
	w.c.Close()
	sub.want("will", "gone", 0)
}

func TestSilentConnectionIsEndedAfterConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		ours, theirs := net.Pipe()
		go d.b.ServeConn(theirs)
		start := time.Now()
		if _, err := ours.Read(make([]byte, 1)); err == nil {
			t.Fatal("got a byte")
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("ended after %v, connect_timeout is 10 s", took)
		}
	})
}

func TestSlowSubscriberDoesNotHoldUpOthers(t *testing.T) {
	d := newBed(t, nil)
	slow := d.wire(clean("slow"))
	slow.connack(packet.Accepted, false)
	slow.subscribe("a", 0)
	fast := d.dial("fast", nil)
	fast.subscribe("a", 0)
	pub := d.dial("pub", nil)
	payload := strings.Repeat("x", 64<<10)
	for range 300 {
		pub.publish("a", payload, 0)
		fast.want("a", payload, 0)
	}
	if n := d.b.Status().MessagesDropped; n == 0 {
		t.Error("20 MB for a client that does not read, and nothing was dropped")
	}
}

func TestReceiveMaximumHoldsThePublisherBack(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.ReceiveMaximum = 3; d.broken = true })
	sub := d.connect("sub", false)
	sub.subscribe("a", 1)
	sub.disconnect()
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	d.st.Close()
	for i := range uint16(10) {
		pub.publish("a", "x", 1, i+1, false)
	}
	for d.b.Status().StoreError == "" {
		<-time.After(time.Millisecond)
	}
	if n := d.b.Status().MessagesReceived; n > 4 {
		t.Errorf("%d messages were taken, receive_maximum is 3", n)
	}
}

func TestTakeOverFight(t *testing.T) {
	d := newBed(t, nil)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for range 20 {
				c, err := net.Dial("tcp", d.b.Addrs()[0].String())
				if err != nil {
					t.Error(err)
					return
				}
				k := kept("same")
				k.Version = packet.V311
				_, _ = c.Write(k.Append(nil))
				sub := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}}}
				_, _ = c.Write(sub.Append(nil))
				_ = c.SetReadDeadline(time.Now().Add(patience))
				_, _ = c.Read(make([]byte, 64))
				c.Close()
			}
		})
	}
	all.Wait()
	w := d.connect("same", true)
	w.subscribe("a", 1)
	w.publish("a", "x", 0, 0, false)
	w.wantPublish("a", "x", 0)
	if n := len(d.b.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

func TestRetainedLimit(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxRetained = 2 })
	pub := d.dial("pub", nil)
	for i := range 3 {
		pub.retain(fmt.Sprintf("r/%d", i), "x", 1)
	}
	if st := d.b.Status(); st.Retained != 2 || st.RetainedRefused != 1 {
		t.Errorf("%d retained, %d refused, want 2 and 1", st.Retained, st.RetainedRefused)
	}
	pub.retain("r/0", "", 1)
	pub.retain("r/2", "y", 1)
	sub := d.dial("sub", nil)
	sub.subscribe("r/2", 0)
	sub.want("r/2", "y", 0)
}

func TestSubscriptionLimit(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Limits.MaxSubscriptions = 1 })
	w := d.connect("x", false)
	s := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}, {Filter: "b", QoS: 1}, {Filter: "a", QoS: 2}}}
	w.send(s.Append(nil))
	if f := w.next(); fmt.Sprintf("%x", f.Body[2:]) != "018002" {
		t.Errorf("SUBACK %x", f.Body)
	}
}

func benchBody(b *testing.B, q mqtt.QoS, n int) {
	d := benchBroker(b)
	t := turn{b: d}
	for i := range n {
		s := d.newSession(fmt.Sprint(i), false)
		s.subscribe(mqtt.Subscription{Filter: "a/+", QoS: q})
		s.attach(&t, &sink{s: s}, 32)
	}
	t.end()
	topic, payload := []byte("a/b"), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		t.begin()
		_ = d.route(&t, &publication{topic: topic, payload: payload, qos: q})
		t.end()
	}
}

func benchBroker(tb testing.TB) *Broker {
	var cfg Config
	cfg.SetDefaults()
	b, err := New(cfg, Options{Store: openStore(tb), CommitInterval: units.Duration(time.Millisecond)})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestLongestKeepaliveIsInWholeSeconds(t *testing.T) {
	for text, lawful := range map[string]bool{"0s": true, "1s": true, "65535s": true, "1500ms": false, "65536s": false, "-1s": false} {
		var cfg Config
		cfg.SetDefaults()
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Limits.MaxKeepalive = units.Duration(d)
		if p := cfg.Check(); (len(p) == 0) != lawful {
			t.Errorf("%s: %v, want lawful %v", text, p, lawful)
		}
	}
}
