package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// beholder is somebody who may see a QoS 2 message twice: a client, or an inbox of
// the process.
type beholder struct {
	name   string
	change func(*client.Options) // nil: an inbox
	filter string
	qos    mqtt.QoS
	late   bool // subscribes when the message was already received
	retain bool // the message is retained
	again  bool // sees it a second time if power fails before the publisher has gone
}

var beholders = []beholder{
	{name: "a clean session", change: five(nil), filter: "t", qos: 2, again: true},
	{name: "a session at QoS 0", change: kept5(1000), filter: "t", qos: 0, again: true},
	{name: "a session at QoS 1", change: kept5(1000), filter: "t", qos: 1, again: true},
	{name: "a session at QoS 2", change: kept5(1000), filter: "t", qos: 2},
	{name: "a member of a share", change: kept5(1000), filter: "$share/g/t", qos: 2},
	{name: "a session that comes late", change: kept5(1000), filter: "t", qos: 2, late: true},
	{name: "a session that gets it as retained", change: kept5(1000), filter: "t", qos: 2, late: true, retain: true},
	{name: "an inbox at QoS 1", filter: "t", qos: 1, again: true},
	{name: "an inbox at QoS 2", filter: "t", qos: 2},
}

// A client that did not see PUBREC sends its QoS 2 message again when it is back, to
// the same session. Nobody sees it twice then, whatever the subscription and even if
// nobody durable was owed the message, over reconnects and restarts, and if power
// fails a second or more after the publisher has gone. If power fails before, a
// session at QoS 2 is still spared.
func TestAMessageThatIsSentAgainIsSeenOnce(t *testing.T) { // [MQTT-4.3.3-10]
	for _, who := range beholders {
		for name, event := range map[string]func(*bed, *wire){
			"reconnect":           func(_ *bed, pub *wire) { pub.c.Close() },
			"restart":             func(d *bed, _ *wire) { d.restart() },
			"power cut":           func(d *bed, _ *wire) { d.goBack(d.snapshot()) },
			"power cut afterward": func(d *bed, pub *wire) { pub.c.Close(); time.Sleep(2 * time.Second); d.goBack(d.snapshot()) },
		} {
			t.Run(who.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newBed(t, func(d *bed) { d.cfg.Listeners = nil })
					most := 1
					if who.again && name == "power cut" {
						most = 2
					}
					if n := who.sees(d, event); n > most || n < 1 && !who.late {
						t.Errorf("%s has seen the message %d times, want at most %d", who.name, n, most)
					}
				})
			})
		}
	}
}

// sees returns how often who sees the message.
func (who *beholder) sees(d *bed, event func(*bed, *wire)) (times int) {
	pub := d.piped(kept("pub"))
	pub.connack(packet.Accepted, false)
	var look func() int
	if !who.late {
		look = who.look(d)
	}
	time.Sleep(2 * time.Second) // the sessions are on disk
	p := packet.Publish{Topic: []byte("t"), Payload: []byte("x"), QoS: 2, ID: 7, Retain: who.retain}
	pub.send(p.Append(nil))
	pub.wantAck(packet.TypePubrec, 7)
	if who.late {
		look = who.look(d)
		time.Sleep(2 * time.Second)
	}
	time.Sleep(2 * time.Second) // what was acknowledged is on disk
	event(d, pub)
	times = look()
	pub = d.piped(kept("pub"))
	pub.connack(packet.Accepted, true)
	look = who.look(d)
	p.Dup = true
	pub.send(p.Append(nil))
	pub.wantAck(packet.TypePubrec, 7)
	pub.ack(packet.TypePubrel, 7)
	pub.wantAck(packet.TypePubcomp, 7)
	return times + look()
}

// look lets who come and, once it is called, go: it returns how many messages have
// come.
func (who *beholder) look(d *bed) func() int {
	sub := mqtt.Subscription{Filter: who.filter, QoS: who.qos, RetainHandling: 1}
	if who.change != nil {
		c := d.in5("sub", who.change)
		c.sub5(sub)
		return func() int { synctest.Wait(); c.Close(); return len(c.got) }
	}
	in, err := d.b.OpenInbox(d.t.Context(), "in", mqtt.InboxOptions{}, sub)
	if err != nil {
		d.t.Fatal(err)
	}
	var got []mqtt.Delivery
	go func() {
		for m, err := in.Recv(d.t.Context()); err == nil; m, err = in.Recv(d.t.Context()) {
			in.Ack(m.Seq)
			got = append(got, m)
		}
	}()
	return func() int { synctest.Wait(); in.Close(); synctest.Wait(); return len(got) }
}
