package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tidegate/mqtt/packet"
)

// crash starts the broker again from what the disk holds now, as after a power
// cut: what was not committed is gone.
func (d *bed) crash() {
	d.t.Helper()
	dir := d.copied()
	d.stop()
	d.dir = dir
	d.start()
}

// copied copies what the disk holds now, between two commits.
func (d *bed) copied() (dir string) {
	d.t.Helper()
	dir = filepath.Join(d.t.TempDir(), "store")
	goOn := d.betweenCommits()
	err := os.CopyFS(dir, os.DirFS(d.dir))
	goOn()
	if err != nil {
		d.t.Fatal(err)
	}
	return dir
}

// betweenCommits returns when no commit is under way. None begins until goOn.
func (d *bed) betweenCommits() (goOn func()) {
	c := d.b.commit
	c.order.Lock()
	for committing(c) {
		<-time.After(time.Millisecond)
	}
	return c.order.Unlock
}

// snapshot copies what the disk holds now, while the broker rests in virtual time.
func (d *bed) snapshot() (dir string) {
	d.t.Helper()
	d.snapshots++
	dir = filepath.Join(filepath.Dir(d.dir), fmt.Sprint("cut", d.snapshots))
	if err := os.CopyFS(dir, os.DirFS(d.dir)); err != nil {
		d.t.Fatal(err)
	}
	return dir
}

// goBack starts the broker with a snapshot: what was not committed then is gone.
func (d *bed) goBack(dir string) {
	d.t.Helper()
	d.stop()
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Fatal(err)
	}
	d.dir = dir
	d.start()
}

func committing(c *committer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// interruptions are what may come between two packets.
func interruptions(t *testing.T, fn func(t *testing.T, d *bed, interrupt func())) {
	for name, interrupt := range map[string]func(*bed){
		"nothing":   func(*bed) {},
		"restart":   (*bed).restart,
		"power cut": (*bed).crash,
	} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, nil)
			fn(t, d, func() { interrupt(d) })
		})
	}
}

func (d *bed) connect(id string, present bool) *wire {
	d.t.Helper()
	w := d.wire(kept(id))
	w.connack(packet.Accepted, present)
	return w
}

func TestQoS2FromAPublisherArrivesOnce(t *testing.T) { // [MQTT-4.3.3-2]
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		sub := d.connect("sub", false)
		sub.subscribe("a", 2)
		sub.disconnect()
		pub := d.connect("pub", false)
		pub.publish("a", "once", 2, 7, false)
		pub.wantAck(packet.TypePubrec, 7)
		pub.publish("a", "once", 2, 7, true)
		pub.wantAck(packet.TypePubrec, 7)
		pub.c.Close()
		interrupt()
		pub = d.connect("pub", true)
		pub.publish("a", "once", 2, 7, true)
		pub.wantAck(packet.TypePubrec, 7)
		pub.ack(packet.TypePubrel, 7)
		pub.wantAck(packet.TypePubcomp, 7)
		pub.c.Close()
		interrupt()
		pub = d.connect("pub", true)
		pub.ack(packet.TypePubrel, 7) // its PUBCOMP was lost
		pub.wantAck(packet.TypePubcomp, 7)
		pub.publish("a", "another", 2, 7, false)
		pub.wantAck(packet.TypePubrec, 7)
		sub = d.connect("sub", true)
		sub.wantPublish("a", "once", 2)
		sub.wantPublish("a", "another", 2)
		sub.fence()
	})
}

func TestQoS2ToASubscriberGoesOnWhereItStopped(t *testing.T) { // [MQTT-4.4.0-1]
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		sub := d.connect("sub", false)
		sub.subscribe("a", 2)
		pub := d.wire(clean("pub"))
		pub.connack(packet.Accepted, false)
		for i := range uint16(3) {
			pub.publish("a", fmt.Sprint(i), 2, i+1, false)
		}
		var ids []uint16
		for i := range 3 {
			ids = append(ids, sub.wantPublish("a", fmt.Sprint(i), 2).ID)
		}
		sub.ack(packet.TypePubrec, ids[1]) // out of order
		sub.wantAck(packet.TypePubrel, ids[1])
		sub.c.Close()
		interrupt()
		sub = d.connect("sub", true)
		for got := range 3 { // the second is released: only its PUBREL comes
			switch f := sub.next(); f.Type() {
			case packet.TypePubrel:
				var a packet.Ack
				if err := a.Decode(f); err != nil || a.ID != ids[1] {
					t.Fatalf("PUBREL %d, want %d", a.ID, ids[1])
				}
			case packet.TypePublish:
				var p packet.Publish
				if err := p.Decode(f); err != nil || p.ID == ids[1] || p.ID != ids[0] && p.ID != ids[2] {
					t.Fatalf("packet %d: %q with the identifier %d, sent before with %v", got, p.Payload, p.ID, ids)
				}
			default:
				t.Fatalf("got %s", f.Type())
			}
		}
		sub.ack(packet.TypePubcomp, ids[1])
		for _, id := range []uint16{ids[0], ids[2]} {
			sub.ack(packet.TypePubrec, id)
			sub.wantAck(packet.TypePubrel, id)
			sub.ack(packet.TypePubcomp, id)
		}
		sub.disconnect()
		sub = d.connect("sub", true)
		sub.fence()
	})
}

func TestUnknownPubrelIsAnswered(t *testing.T) {
	d := newBed(t, nil)
	w := d.connect("x", false)
	w.ack(packet.TypePubrel, 77)
	w.wantAck(packet.TypePubcomp, 77)
	w.ack(packet.TypePubrec, 78)
	w.wantAck(packet.TypePubrel, 78)
	w.ack(packet.TypePuback, 79)
	w.ack(packet.TypePubcomp, 80)
	w.fence()
}

func TestPubackWaitsForTheDisk(t *testing.T) {
	d := newBed(t, nil)
	sub := d.connect("sub", false)
	sub.subscribe("a", 1)
	sub.disconnect()
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	for i := range uint16(20) {
		before := d.st.Stats().Records
		pub.publish("a", "x", 1, i+1, false)
		pub.wantAck(packet.TypePuback, i+1)
		if now := d.st.Stats().Records; now != before+1 {
			t.Fatalf("PUBACK came with %d new records in the store, want 1", now-before)
		}
	}
}

func TestNoPubackWhileTheStoreIsBroken(t *testing.T) {
	d := newBed(t, func(d *bed) { d.broken = true })
	sub := d.connect("sub", false)
	sub.subscribe("a", 1)
	sub.disconnect()
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	d.st.Close()
	for i := range uint16(5) {
		pub.publish("a", "x", 1, i+1, false)
	}
	for d.b.Status().StoreError == "" {
		<-time.After(time.Millisecond)
	}
	pub.fence()
	pub.publish("b", "nobody", 1, 9, false) // would be answered at once, but has to wait its turn
	pub.fence()
}

func TestPubacksLeaveInTheOrderOfThePublishes(t *testing.T) { // [MQTT-4.6.0-2]
	d := newBed(t, nil)
	sub := d.connect("sub", false)
	sub.subscribe("slow/#", 1)
	sub.disconnect()
	pub := d.wire(clean("pub"))
	pub.connack(packet.Accepted, false)
	for i := range uint16(100) {
		topic := "nobody"
		if i%7 == 0 {
			topic = "slow/x"
		}
		pub.publish(topic, "x", 1, i+1, false)
	}
	for i := range uint16(100) {
		pub.wantAck(packet.TypePuback, i+1)
	}
}

func TestWhatWasDrainedAfterARestartIsNotSentAgain(t *testing.T) {
	interruptions(t, func(t *testing.T, d *bed, interrupt func()) {
		sub := d.connect("sub", false)
		sub.subscribe("a", 1)
		sub.disconnect()
		pub := d.wire(clean("pub"))
		pub.connack(packet.Accepted, false)
		const n = 5
		for i := range uint16(n) {
			pub.publish("a", fmt.Sprint(i), 1, i+1, false)
			pub.wantAck(packet.TypePuback, i+1)
		}
		interrupt()
		for reconnect := range 2 {
			sub = d.connect("sub", true)
			for i := range n * (1 - reconnect) {
				sub.ack(packet.TypePuback, sub.wantPublish("a", fmt.Sprint(i), 1).ID)
			}
			sub.fence()
			sub.disconnect()
		}
	})
}
