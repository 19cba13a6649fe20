package broker

import (
	"fmt"
	"runtime"
	"testing"

	"tidegate/mqtt"
)

// heap returns what is in use once nothing is left to collect.
func heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What is queued stands on disk: a queue of 100,000 messages costs the memory of an
// empty one, whatever it gives up, and whether somebody is there who is slow.
func TestQueueOnDiskTakesNoMemory(t *testing.T) {
	for _, q := range []mqtt.QueueLimits{
		{}, {MaxMessages: 50_000}, {MaxMessages: 50_000, Overflow: mqtt.Thin},
	} {
		t.Run(fmt.Sprint(q.MaxMessages, q.Overflow), func(t *testing.T) {
			d := newBed(t, nil)
			d.opens(q).Close()
			d.numbers(1, 20_000, 50, 10) // buffers of the store and the committer have their size now
			d.flush()
			before := heap()
			d.numbers(20_001, 100_000, 50, 10)
			d.flush()
			if grown := heap() - before; grown > 2<<20 { // of 80,000 messages of 120 bytes
				t.Errorf("with %d messages queued the heap has grown by %d bytes", d.owed(), grown)
			}
			in := d.opens(q) // and takes nothing
			if _, err := in.Recv(d.ctx()); err != nil {
				t.Fatal(err)
			}
			if grown := heap() - before; grown > 2<<20 {
				t.Errorf("with a slow consumer the heap has grown by %d bytes", grown)
			}
		})
	}
}

// BenchmarkFullQueue publishes to an absent queue, empty or at its bound.
func BenchmarkFullQueue(b *testing.B) {
	for _, q := range []mqtt.QueueLimits{
		{}, {MaxDisk: 4 << 20}, {MaxDisk: 4 << 20, Overflow: mqtt.DropNewest}, {MaxDisk: 4 << 20, Overflow: mqtt.Thin},
	} {
		b.Run(fmt.Sprint(q.MaxDisk>>20, " MiB ", q.Overflow), func(b *testing.B) {
			d := benchBroker(b)
			s := d.newSession("absent", true)
			s.subscribe(mqtt.Subscription{Filter: "a/+", QoS: 1})
			t := turn{b: d}
			t.begin()
			s.bound(&t, d.withDefaults(q))
			payload := make([]byte, 150)
			var topics [10][]byte
			for i := range topics {
				topics[i] = fmt.Append(nil, "a/", i)
			}
			b.ReportAllocs()
			n := 0
			publish := func(upTo int) {
				for ; n < upTo; n++ {
					t.begin()
					_ = d.route(&t, &publication{topic: topics[n%10], payload: payload, qos: 1})
					if n%256 == 255 {
						if err := d.commit.commit(&t); err != nil {
							b.Fatal(err)
						}
					}
					t.end()
				}
			}
			publish(20_000) // so that it is full
			b.ResetTimer()
			publish(n + b.N)
		})
	}
}
