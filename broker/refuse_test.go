package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// refusing opens an inbox for t/# that refuses when it has 3 messages, and fills it.
func (d *bed) refusing() mqtt.Inbox {
	d.t.Helper()
	in := d.opens(mqtt.QueueLimits{MaxMessages: 3, Overflow: mqtt.Reject})
	d.numbers(1, 3, 1, 1)
	return in
}

func TestFullQueueRefusesPublishersThatCanBeTold(t *testing.T) {
	d := newBed(t, nil)
	in := d.refusing()
	other := d.dial("other", nil)
	other.subscribe("t/x", 1)
	w := d.connected5(nil)
	w.publish5("t/x", 1, 1, true)
	if a := w.wantReason(packet.TypePuback, 1, packet.ReasonQuotaExceeded); a.Properties.Text(packet.PropReasonString) != errFull.Error() {
		t.Errorf("PUBACK says %q", a.Properties)
	}
	w.publish5("t/x", 2, 2, false)
	w.wantReason(packet.TypePubrec, 2, packet.ReasonQuotaExceeded)
	w.publish5("elsewhere", 1, 3, false)
	w.wantReason(packet.TypePuback, 3, packet.ReasonNoMatchingSubscribers)
	other.wantNothing()
	if n := d.b.Status().Retained; n != 0 {
		t.Errorf("%d messages are retained", n)
	}
	wantRun(t, d.takeAll(in), 1, 3)
	w.publish5("t/x", 2, 4, false)
	w.wantReason(packet.TypePubrec, 4, packet.ReasonSuccess)
	w.ack(packet.TypePubrel, 4)
	w.wantReason(packet.TypePubcomp, 4, packet.ReasonSuccess)
	other.want("t/x", "x", 1)
	if n := d.b.Status().Refused["queue"]; n != 2 {
		t.Errorf("%d were refused", n)
	}
}

// A client of MQTT 3.1.1 gets no acknowledgement, and is alive meanwhile.
func TestFullQueueHoldsPublishersThatCannotBeTold(t *testing.T) {
	d := newBed(t, nil)
	in := d.refusing()
	w := d.connect("pub", false)
	for n := 4; n <= 9; n++ {
		w.publish("t/x", fmt.Sprint(n), mqtt.QoS(1+n%2), uint16(n), false)
	}
	w.publish("elsewhere", "", 1, 10, false) // stays behind
	w.send(packet.Pingreq{}.Append(nil))
	if f := w.next(); f.Type() != packet.TypePingresp {
		t.Fatalf("got %s, want PINGRESP", f.Type())
	}
	w.publish("t/x", "7", 2, 7, true) // again, which changes nothing
	d.dial("another", nil).publish("elsewhere", "", 1)
	for n := 4; n <= 9; n++ {
		if got := d.takeOne(in); got != n-3 {
			t.Fatalf("got number %d, want %d", got, n-3)
		}
		w.wantAck(map[int]packet.Type{0: packet.TypePuback, 1: packet.TypePubrec}[n%2], uint16(n))
	}
	w.wantAck(packet.TypePuback, 10)
	wantRun(t, d.takeAll(in), 7, 9)
	w.ack(packet.TypePubrel, 7)
	w.wantAck(packet.TypePubcomp, 7)
}

// What was held when the connection ends was not taken: it comes again, and once.
func TestHeldMessagesAreForgottenWithTheConnection(t *testing.T) {
	d := newBed(t, nil)
	in := d.refusing()
	w := d.connect("pub", false)
	w.subscribe("nothing", 1)
	w.publish("t/x", "4", 2, 7, false)
	w.send(packet.Pingreq{}.Append(nil))
	w.next()
	w.c.Close()
	w = d.connect("pub", true)
	w.publish("t/x", "4", 2, 7, true)
	w.send(packet.Pingreq{}.Append(nil))
	if f := w.next(); f.Type() != packet.TypePingresp {
		t.Fatalf("got %s, want PINGRESP", f.Type())
	}
	d.takeOne(in)
	w.wantAck(packet.TypePubrec, 7)
	wantRun(t, d.takeAll(in), 2, 4)
	w.ack(packet.TypePubrel, 7)
	w.wantAck(packet.TypePubcomp, 7)
}

// A client whose own queue is full can still make room in it.
func TestClientWhoseOwnQueueIsFullGoesOn(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMessages, d.cfg.Queue.Overflow = 2, mqtt.Reject })
	w := d.connect("both", false)
	w.subscribe("a", 1)
	for n := 1; n <= 6; n++ {
		w.publish("a", "x", 1, uint16(n), false)
	}
	acked, got := 0, 0
	for acked < 6 || got < 6 {
		switch f := w.next(); f.Type() {
		case packet.TypePuback:
			acked++
		case packet.TypePublish:
			var p packet.Publish
			if err := p.Decode(f); err != nil {
				t.Fatal(err)
			}
			got++
			w.ack(packet.TypePuback, p.ID)
		}
	}
	w.fence()
}

func TestPublishersInsideWaitForRoom(t *testing.T) {
	d := newBed(t, nil)
	in := d.refusing()
	m := mqtt.Message{Topic: "t/x", Payload: []byte("4"), QoS: 1}
	ctx, cancel := context.WithCancel(d.ctx())
	ended := make(chan error, 1)
	go func() { ended <- d.b.PublishAsync(ctx, m, nil) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the publisher that gave up got %v", err)
	}
	go func() { ended <- d.b.Publish(d.ctx(), m) }()
	if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "t/x", QoS: 0}); err != nil {
		t.Errorf("a message at QoS 0 waits: %v", err)
	}
	got := []int{d.takeOne(queueOnly{in})}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	wantRun(t, append(got, d.takeAll(queueOnly{in})...), 1, 4)
}

// queueOnly leaves out what comes at QoS 0.
type queueOnly struct{ mqtt.Inbox }

func (q queueOnly) Recv(ctx context.Context) (d mqtt.Delivery, err error) {
	for err == nil {
		if d, err = q.Inbox.Recv(ctx); d.QoS != mqtt.AtMostOnce {
			break
		}
	}
	return d, err
}

// Nobody waits for a queue that does not want the messages any more.
func TestEndOfAFullQueueLetsPublishersGo(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMessages, d.cfg.Queue.Overflow = 1, mqtt.Reject })
	for name, end := range map[string]func(*wire){
		"unsubscribe": func(w *wire) {
			w.send((&packet.Unsubscribe{ID: 5, Filters: []string{"a"}}).Append(nil))
			w.next()
		},
		"a subscription at QoS 0": func(w *wire) {
			w.send((&packet.Subscribe{ID: 5, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 0}}}).Append(nil))
			w.next()
		},
		"end of the session": func(w *wire) {
			w.c.Close()
			d.passes("end of the session").c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			sub := d.wire(packet.Connect{ClientID: name})
			sub.next()
			sub.subscribe("a", 1)
			pub := d.passes("pub")
			pub.publish("a", "1", 1, 1, false)
			pub.wantAck(packet.TypePuback, 1)
			pub.publish("a", "2", 1, 2, false)
			pub.send(packet.Pingreq{}.Append(nil))
			pub.next()
			sub.nextPublish()
			end(sub)
			pub.wantAck(packet.TypePuback, 2)
		})
	}
}

// What one client has held is bounded: then it is not read any further, and
// goes on when there is room.
func TestHeldMessagesAreBounded(t *testing.T) {
	d := newBed(t, func(d *bed) { d.cfg.Queue.MaxMemory = 8192 })
	in := d.refusing()
	w := d.passes("pub")
	const n = 60
	go func() {
		for i := 4; i <= n; i++ {
			p := packet.Publish{Topic: []byte("t/x"), Payload: []byte(fmt.Sprint(i, " ", strings.Repeat("x", 1000))), QoS: 1, ID: uint16(i)}
			if _, err := w.c.Write(p.Append(nil)); err != nil {
				return
			}
		}
	}()
	for i := 1; i <= n; i++ {
		if got := d.takeOne(in); got != i {
			t.Fatalf("got number %d, want %d", got, i)
		}
		d.b.mu.Lock()
		for c := range d.b.conns {
			if held := c.held.held.Load(); held > 2*grain {
				t.Errorf("%d bytes are held", held)
			}
		}
		d.b.mu.Unlock()
	}
	for i := 4; i <= n; i++ {
		w.wantAck(packet.TypePuback, uint16(i))
	}
}
