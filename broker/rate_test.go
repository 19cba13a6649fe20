package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt/packet"
)

func TestPublishRateHoldsOneClientBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners, d.cfg.Limits.PublishRate = nil, 50 })
		fast, other := d.piped(clean("fast")), d.piped(clean("other"))
		fast.connack(packet.Accepted, false)
		other.connack(packet.Accepted, false)
		start := time.Now()
		go func() {
			for id := range uint16(200) {
				fast.publish("a", "x", 1, id+1, false)
			}
		}()
		for id := range uint16(50) {
			fast.wantAck(packet.TypePuback, id+1)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("a second's worth of messages took %v", took)
		}
		other.publish("a", "x", 1, 1, false)
		other.wantAck(packet.TypePuback, 1)
		if took := time.Since(start); took > 20*time.Millisecond {
			t.Errorf("another client waited %v", took)
		}
		for id := range uint16(150) {
			fast.wantAck(packet.TypePuback, id+51)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("200 messages at 50 a second, of which 50 may come at once, took %v", took)
		}
	})
}
