package broker

import (
	"fmt"
	"testing"
	"testing/synctest"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

func TestPublishReachesSubscriberAtTheLowerQoS(t *testing.T) {
	d := newBed(t, nil)
	pub := d.dial("pub", nil)
	for subQ := mqtt.AtMostOnce; subQ <= mqtt.ExactlyOnce; subQ++ {
		for pubQ := mqtt.AtMostOnce; pubQ <= mqtt.ExactlyOnce; pubQ++ {
			t.Run(fmt.Sprintf("published at %d, subscribed at %d", pubQ, subQ), func(t *testing.T) {
				topic := fmt.Sprintf("q/%d/%d", pubQ, subQ)
				sub := d.dial("sub", nil)
				sub.subscribe(topic, subQ)
				pub.publish(topic, "hello", pubQ)
				sub.want(topic, "hello", min(pubQ, subQ))
			})
		}
	}
}

func TestAbsentSessionGetsItsMessagesInOrder(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			d := newBed(t, nil)
			sub := d.dial("sub", durable)
			sub.subscribe("a/#", 2)
			sub.Disconnect()
			pub := d.dial("pub", nil)
			const n = 3000
			ctx := d.ctx()
			acked := make(chan error, n)
			for i := range n {
				m := mqtt.Message{Topic: "a/b", Payload: fmt.Appendf(nil, "%d", i), QoS: mqtt.QoS(1 + i%2)}
				if err := pub.PublishAsync(ctx, m, func(err error) { acked <- err }); err != nil {
					t.Fatal(err)
				}
			}
			for range n {
				if err := <-acked; err != nil {
					t.Fatal(err)
				}
			}
			if restart {
				d.restart()
			}
			sub = d.dial("sub", durable)
			if !sub.SessionPresent() {
				t.Fatal("the session is gone")
			}
			for i := range n {
				sub.want("a/b", fmt.Sprint(i), mqtt.QoS(1+i%2))
			}
			sub.wantNothing()
		})
	}
}

func TestConnectedDurableSessionCostsNoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where nobody is slow
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
		sub, pub := d.piped(kept("sub")), d.piped(clean("pub"))
		sub.connack(packet.Accepted, false)
		sub.subscribe("a", 1)
		pub.connack(packet.Accepted, false)
		for i := range uint16(1000) {
			pub.publish("a", fmt.Sprint(i), 1, i+1, false)
			sub.ack(packet.TypePuback, sub.wantPublish("a", fmt.Sprint(i), 1).ID)
			pub.wantAck(packet.TypePuback, i+1)
		}
		if n := d.st.Stats().Records; n > 0 {
			t.Errorf("%d of 1000 messages were written although the subscriber keeps up", n)
		}
	})
}

func TestRetained(t *testing.T) {
	d := newBed(t, nil)
	pub := d.dial("pub", nil)
	pub.retain("r/1", "one", 1)
	pub.retain("r/2", "two", 0)
	pub.retain("r/3", "gone", 1)
	pub.retain("r/3", "", 1)
	d.restart()
	sub := d.dial("sub", nil)
	sub.subscribe("r/1", 1)
	if m := sub.want("r/1", "one", 1); !m.Retain {
		t.Error("a retained message came without the retain flag")
	}
	sub.subscribe("r/3", 1)
	sub.subscribe("r/2", 1)
	if m := sub.want("r/2", "two", 0); !m.Retain {
		t.Error("a retained message came without the retain flag")
	}
	pub = d.dial("pub", nil)
	pub.retain("r/1", "new", 1)
	if m := sub.want("r/1", "new", 1); m.Retain {
		t.Error("a message to an established subscription has the retain flag [MQTT-3.3.1-9]")
	}
}

func TestWill(t *testing.T) {
	d := newBed(t, nil)
	sub := d.dial("sub", nil)
	sub.subscribe("will/#", 1)
	with := func(o *client.Options) {
		o.Will = &mqtt.Message{Topic: "will/" + o.ClientID, Payload: []byte("gone"), QoS: 1}
	}
	d.dial("polite", with).Disconnect()
	d.dial("rude", with).Close()
	sub.want("will/rude", "gone", 1)
	d.dial("twice", with)
	second := d.dial("twice", with)
	sub.want("will/twice", "gone", 1)
	second.Disconnect()
	sub.wantNothing()
}
