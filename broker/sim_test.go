package broker

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// receiver is a durable client as the standard wants it: it keeps its half of
// the session, so QoS 2 messages must reach it exactly once, whatever happens.
type receiver struct {
	id       string
	qos      mqtt.QoS
	w        *wire // nil: absent
	held     map[uint16]bool
	unacked  []uint16       // QoS 1, of this connection
	got      map[string]int // message to deliveries
	last     int            // highest message number delivered for the first time
	reorders []string
}

// take handles one packet.
func (r *receiver) take(f packet.Frame) {
	switch f.Type() {
	case packet.TypePublish:
		var p packet.Publish
		if err := p.Decode(f); err != nil {
			r.w.t.Fatal(err)
		}
		if p.QoS == 2 {
			if !r.held[p.ID] {
				r.deliver(string(p.Payload))
			}
			r.held[p.ID] = true
			r.w.ack(packet.TypePubrec, p.ID)
			return
		}
		r.deliver(string(p.Payload))
		r.unacked = append(r.unacked, p.ID)
	case packet.TypePubrel:
		var a packet.Ack
		if err := a.Decode(f); err != nil {
			r.w.t.Fatal(err)
		}
		delete(r.held, a.ID)
		r.w.ack(packet.TypePubcomp, a.ID)
	}
}

func (r *receiver) deliver(m string) {
	if r.got[m]++; r.got[m] > 1 {
		return
	}
	n, _ := strconv.Atoi(m)
	if n < r.last {
		r.reorders = append(r.reorders, fmt.Sprintf("%d behind %d", n, r.last))
	}
	r.last = max(r.last, n)
}

// listen takes what has come up to now.
func (r *receiver) listen() {
	r.w.send(packet.Pingreq{}.Append(nil))
	for {
		f := r.w.next()
		if f.Type() == packet.TypePingresp {
			return
		}
		r.take(f)
	}
}

// TestSim plays publishers, subscribers, restarts and power cuts at random and
// then compares what every session got with what it was owed.
func TestSim(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	d := newBed(t, func(d *bed) {
		d.cfg.Queue.MaxMemory, d.cfg.Limits.MaxInflight = 4096, 5
		d.opts.CommitInterval, d.opts.OnlineDelay = units.Duration(time.Millisecond), units.Duration(3*time.Millisecond)
	})
	var subs []*receiver
	for i, q := range []mqtt.QoS{1, 2, 2} {
		r := &receiver{id: fmt.Sprint("sub", i), qos: q, held: make(map[uint16]bool), got: make(map[string]int)}
		r.w = d.connect(r.id, false)
		r.w.subscribe("t", q)
		subs = append(subs, r)
	}
	pub := d.connect("pub", false)
	pub.subscribe("nothing", 1) // from here on the disk knows the session
	away := func(r *receiver) {
		if r.w != nil {
			r.w.c.Close()
			r.w, r.unacked = nil, nil
		}
	}
	again := func() {
		pub.c.Close()
		pub = d.connect("pub", true)
	}
	disturb := func() {
		for _, r := range subs {
			away(r)
		}
		pub.c.Close()
		if rnd.IntN(2) == 0 {
			d.restart()
		} else {
			d.crash()
		}
		again()
	}
	qosOf := make(map[int]mqtt.QoS)
	publish := func(n int) {
		q, id := mqtt.QoS(1+rnd.IntN(2)), uint16(1+n%60000)
		qosOf[n] = q
		pub.publish("t", strconv.Itoa(n), q, id, false)
		first := map[mqtt.QoS]packet.Type{1: packet.TypePuback, 2: packet.TypePubrec}[q]
		if q == 2 && rnd.IntN(10) == 0 { // the answer is lost
			if rnd.IntN(5) == 0 {
				disturb()
			} else {
				again()
			}
			pub.publish("t", strconv.Itoa(n), q, id, true)
		}
		pub.wantAck(first, id)
		if q == 2 {
			pub.ack(packet.TypePubrel, id)
			if rnd.IntN(20) == 0 {
				again()
				pub.ack(packet.TypePubrel, id)
			}
			pub.wantAck(packet.TypePubcomp, id)
		}
	}
	total, disturbances := 0, 0
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		r := subs[rnd.IntN(len(subs))]
		switch k := rnd.IntN(100); {
		case k < 50:
			total++
			publish(total)
		case k < 60 && r.w == nil:
			r.w = d.connect(r.id, true)
		case k < 63:
			away(r)
		case k < 95 && r.w != nil:
			r.listen()
			rnd.Shuffle(len(r.unacked), func(i, j int) { r.unacked[i], r.unacked[j] = r.unacked[j], r.unacked[i] })
			for n := rnd.IntN(1 + len(r.unacked)); n > 0; n-- {
				r.w.ack(packet.TypePuback, r.unacked[0])
				r.unacked = r.unacked[1:]
			}
		case k == 99 && disturbances < 15:
			disturbances++
			disturb()
		}
	}
	for _, r := range subs {
		away(r)
		r.w = d.connect(r.id, true)
		drainAll(r, total)
		checkSim(t, r, total, qosOf)
	}
	t.Logf("%d messages, %d restarts and power cuts", total, disturbances)
}

// drainAll takes what comes until all has, or nothing does any more.
func drainAll(r *receiver, total int) {
	for len(r.got) < total || len(r.held) > 0 {
		_ = r.w.c.SetReadDeadline(time.Now().Add(3 * time.Second))
		f, err := r.w.r.Next()
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			return
		}
		if err != nil {
			r.w.t.Fatal(err)
		}
		r.take(f)
		for _, id := range r.unacked {
			r.w.ack(packet.TypePuback, id)
		}
		r.unacked = nil
	}
	r.listen()
}

func checkSim(t *testing.T, r *receiver, total int, qosOf map[int]mqtt.QoS) {
	t.Helper()
	lost, twice := []int(nil), []int(nil)
	for n := 1; n <= total; n++ {
		switch k := r.got[strconv.Itoa(n)]; {
		case k == 0:
			lost = append(lost, n)
		case k > 1 && min(qosOf[n], r.qos) == 2:
			twice = append(twice, n)
		}
	}
	if len(lost)+len(twice)+len(r.reorders) > 0 {
		t.Errorf("%s: lost %v, QoS 2 twice %v, out of order %v", r.id, lost, twice, r.reorders)
	}
}
