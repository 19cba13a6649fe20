package broker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// TestSimBoundedShare plays a bounded share at random. What its members get is
// checked by the test bed: what was accepted is delivered, queued or in the ledger,
// and the journal has what the share and its members say that they are owed.
func TestSimBoundedShare(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, policy := range []mqtt.Overflow{mqtt.DropOldest, mqtt.DropNewest, mqtt.Thin, mqtt.Reject} {
		t.Run(string(policy), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			d := newBed(t, func(d *bed) {
				d.segment = 64 * units.KiB
				d.cfg.Queue.MaxMemory, d.cfg.Queue.MaxMessages, d.cfg.Queue.Overflow, d.cfg.Limits.MaxInflight = 4096, 30, policy, 4
				d.opts.CommitInterval, d.opts.OnlineDelay = units.Duration(time.Millisecond), units.Duration(3*time.Millisecond)
			})
			var members [3]*drawer
			for i := range members {
				r := &drawer{id: fmt.Sprint("m", i)}
				r.w = d.connect(r.id, false)
				r.w.subscribe("$share/g/t", mqtt.QoS(1+rnd.IntN(2)))
				members[i] = r
			}
			away := func(r *drawer) {
				if r.w != nil {
					r.w.c.Close()
					r.w, r.unacked = nil, nil
				}
			}
			total := 0
			for end := time.Now().Add(time.Second / 2); time.Now().Before(end); {
				r := members[rnd.IntN(len(members))]
				switch k := rnd.IntN(100); {
				case k < 50 && !d.shareRefuses():
					total++
					m := mqtt.Message{Topic: "t", Payload: fmt.Append(nil, total), QoS: mqtt.QoS(1 + rnd.IntN(2))}
					if err := d.b.PublishAsync(d.t.Context(), m, nil); err != nil {
						t.Fatal(err)
					}
				case k < 60 && r.w == nil:
					r.w = d.connect(r.id, true)
				case k < 64:
					away(r)
				case k < 90 && r.w != nil:
					r.listen()
					for n := rnd.IntN(1 + len(r.unacked)); n > 0; n-- {
						r.w.ack(packet.TypePuback, r.unacked[0])
						r.unacked = r.unacked[1:]
					}
				case k < 95:
					d.flush()
				case k >= 98:
					for _, r := range members {
						away(r)
					}
					if k == 98 {
						d.restart()
					} else {
						d.crash()
					}
				}
			}
			t.Logf("%d messages, %v", total, d.b.Losses())
		})
	}
}

// shareRefuses reports whether somebody would have to wait.
func (d *bed) shareRefuses() bool {
	for _, s := range d.b.Sessions() {
		if s.Refuses {
			return true
		}
	}
	return false
}

// drawer is a member of a share.
type drawer struct {
	id      string
	w       *wire    // nil: it is away
	unacked []uint16 // QoS 1
}

// listen takes what has come up to now, and answers what is of QoS 2.
func (r *drawer) listen() {
	r.w.send(packet.Pingreq{}.Append(nil))
	for {
		switch f := r.w.next(); f.Type() {
		case packet.TypePingresp:
			return
		case packet.TypePublish:
			var p packet.Publish
			if err := p.Decode(f); err != nil {
				r.w.t.Fatal(err)
			}
			if p.QoS == mqtt.ExactlyOnce {
				r.w.ack(packet.TypePubrec, p.ID)
			} else {
				r.unacked = append(r.unacked, p.ID)
			}
		case packet.TypePubrel:
			var a packet.Ack
			if err := a.Decode(f); err != nil {
				r.w.t.Fatal(err)
			}
			r.w.ack(packet.TypePubcomp, a.ID)
		}
	}
}
