package broker

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// wire is a client that says exactly what a test tells it to.
type wire struct {
	t testing.TB
	c net.Conn
	r *packet.Reader
}

// patience is for what must happen but may take its time on a busy machine. Only a
// test that fails waits so long.
const patience = time.Minute

// wire connects over a socket and sends the CONNECT, but waits for nothing.
func (d *bed) wire(k packet.Connect) *wire {
	d.t.Helper()
	c, err := net.Dial("tcp", d.b.Addrs()[0].String())
	if err != nil {
		d.t.Fatal(err)
	}
	return newWire(d.t, c, k)
}

// piped connects over a pipe, which has no buffer and can run in virtual time.
func (d *bed) piped(k packet.Connect) *wire {
	ours, theirs := net.Pipe()
	go d.b.ServeConn(theirs)
	return newWire(d.t, ours, k)
}

func newWire(t testing.TB, c net.Conn, k packet.Connect) *wire {
	t.Helper()
	w := &wire{t: t, c: c, r: packet.NewReader(c, packet.MaxSize)}
	t.Cleanup(func() { c.Close() })
	if k.Version == 0 {
		k.Version = packet.V311
	}
	w.send(k.Append(nil))
	return w
}

func (w *wire) send(b ...[]byte) {
	w.t.Helper()
	for _, b := range b {
		if _, err := w.c.Write(b); err != nil {
			w.t.Fatalf("send: %v", err)
		}
	}
}

// next waits for the next packet. Its body is a copy.
func (w *wire) next() packet.Frame {
	w.t.Helper()
	_ = w.c.SetReadDeadline(time.Now().Add(patience))
	f, err := w.r.Next()
	if err != nil {
		w.t.Fatalf("no packet came: %v", err)
	}
	return packet.Frame{First: f.First, Body: append([]byte(nil), f.Body...)}
}

// wantEnd wants the broker to close the connection.
func (w *wire) wantEnd() {
	w.t.Helper()
	_ = w.c.SetReadDeadline(time.Now().Add(patience))
	f, err := w.r.Next()
	if err == nil {
		w.t.Fatalf("got %s, want the end of the connection", f.Type())
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		w.t.Fatal("the connection is still open")
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) && !isReset(err) {
		w.t.Fatalf("the connection ended with %v", err)
	}
}

func (w *wire) connack(code packet.ConnackCode, present bool) {
	w.t.Helper()
	var k packet.Connack
	f := w.next()
	if f.Type() != packet.TypeConnack {
		w.t.Fatalf("got %s, want CONNACK", f.Type())
	}
	if err := k.Decode(f); err != nil || k.Code != code || k.SessionPresent != present {
		w.t.Fatalf("got %+v, %v, want code %d, session present %v", k, err, code, present)
	}
}

func (w *wire) subscribe(filter string, q mqtt.QoS) {
	w.t.Helper()
	s := packet.Subscribe{ID: 9999, Subscriptions: []mqtt.Subscription{{Filter: filter, QoS: q}}}
	w.send(s.Append(nil))
	if f := w.next(); f.Type() != packet.TypeSuback || mqtt.QoS(f.Body[2]) != q {
		w.t.Fatalf("got %s %x, want SUBACK with QoS %d", f.Type(), f.Body, q)
	}
}

func (w *wire) publish(topic, payload string, q mqtt.QoS, id uint16, dup bool) {
	w.t.Helper()
	p := packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: q, ID: id, Dup: dup}
	w.send(p.Append(nil))
}

func (w *wire) ack(typ packet.Type, id uint16) {
	w.t.Helper()
	a := packet.Ack{Type: typ, ID: id}
	w.send(a.Append(nil))
}

func (w *wire) wantAck(typ packet.Type, id uint16) {
	w.t.Helper()
	f := w.next()
	if f.Type() != typ {
		w.t.Fatalf("got %s %x, want %s %d", f.Type(), f.Body, typ, id)
	}
	var a packet.Ack
	if err := a.Decode(f); err != nil || a.ID != id {
		w.t.Fatalf("got %s %d, %v, want %d", typ, a.ID, err, id)
	}
}

func (w *wire) wantPublish(topic, payload string, q mqtt.QoS) packet.Publish {
	w.t.Helper()
	f := w.next()
	var p packet.Publish
	if f.Type() != packet.TypePublish {
		w.t.Fatalf("got %s %x, want PUBLISH %s = %q", f.Type(), f.Body, topic, payload)
	}
	if err := p.Decode(f); err != nil || string(p.Topic) != topic || string(p.Payload) != payload || p.QoS != q {
		w.t.Fatalf("got %s = %q at QoS %d, %v, want %s = %q at QoS %d", p.Topic, p.Payload, p.QoS, err, topic, payload, q)
	}
	return p
}

// fence wants nothing but the answer to a PINGREQ.
func (w *wire) fence() {
	w.t.Helper()
	w.send(packet.Pingreq{}.Append(nil))
	if f := w.next(); f.Type() != packet.TypePingresp {
		w.t.Fatalf("got %s %x, want nothing", f.Type(), f.Body)
	}
}

func (w *wire) disconnect() {
	w.t.Helper()
	w.send(packet.Disconnect{}.Append(nil))
	w.wantEnd()
	w.c.Close()
}

// clean and kept are the CONNECTs of most tests.
func clean(id string) packet.Connect { return packet.Connect{ClientID: id, CleanSession: true} }
func kept(id string) packet.Connect  { return packet.Connect{ClientID: id} }
