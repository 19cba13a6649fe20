package broker

import (
	"fmt"
	"testing"
	"unsafe"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// sink is a consumer that acknowledges at once and whose bytes go nowhere.
type sink struct {
	s   *session
	buf []byte
	ids []uint16
}

func (k *sink) takes(int) bool { return true }

func (k *sink) deliver(it item, _ int64, dup bool) bool {
	k.buf = packet.AppendPublish(k.buf[:0], it.body.plain(), it.body.topicEnd(), it.qos, it.retain, dup, it.id)
	if it.qos > 0 {
		k.ids = append(k.ids, it.id)
	}
	return true
}
func (k *sink) release(uint16) bool { return false }
func (k *sink) full(int) bool       { return false }
func (k *sink) end(error)           {}
func (k *sink) flush(t *turn) {
	for len(k.ids) > 0 {
		id := k.ids[0]
		k.ids = k.ids[:copy(k.ids, k.ids[1:])]
		k.s.puback(t, id)
	}
}

// Most of what is under way lies in cold memory, so each message there has one line of
// a processor's cache.
func TestSlotIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(slot{}); size > 64 {
		t.Errorf("a message under way takes %d bytes, more than 64", size)
	}
}

func openStore(tb testing.TB) *store.Store {
	st, err := store.Open(tb.TempDir(), store.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { st.Close() })
	return st
}

func TestAllocations(t *testing.T) {
	for q, want := range []float64{0, 1} {
		t.Run(fmt.Sprintf("QoS %d to one transient subscriber", q), func(t *testing.T) {
			b := benchBroker(t)
			tn := turn{b: b}
			s := b.newSession("s", false)
			s.subscribe(mqtt.Subscription{Filter: "a/+", QoS: 2})
			s.attach(&tn, &sink{s: s}, 32)
			tn.end()
			topic, payload := []byte("a/b"), make([]byte, 100)
			got := testing.AllocsPerRun(1000, func() {
				tn.begin()
				_ = b.route(&tn, &publication{topic: topic, payload: payload, qos: mqtt.QoS(q)})
				tn.end()
			})
			if got > want {
				t.Errorf("%v allocations for one message, want %v", got, want)
			}
		})
	}
	t.Run("match of a cached topic", func(t *testing.T) {
		var tr trie
		tr.subscribe(&session{}, mqtt.Subscription{Filter: "a/+"})
		topic := []byte("a/b")
		if got := testing.AllocsPerRun(100, func() { tr.match(topic) }); got > 0 {
			t.Errorf("%v allocations", got)
		}
	})
}

func BenchmarkRouteQoS01to1(b *testing.B)   { benchBody(b, 0, 1) }
func BenchmarkRouteQoS01to100(b *testing.B) { benchBody(b, 0, 100) }
func BenchmarkRouteQoS11to1(b *testing.B)   { benchBody(b, 1, 1) }
func BenchmarkRouteQoS11to100(b *testing.B) { benchBody(b, 1, 100) }

func BenchmarkShared(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("QoS 1, %d members", n), func(b *testing.B) {
			d := benchBroker(b)
			t := turn{b: d}
			for i := range n {
				s := d.newSession(fmt.Sprint(i), false)
				if _, err := d.joinShare(&t, s, mqtt.Subscription{Filter: "$share/g/a/+", QoS: 1}); err != nil {
					b.Fatal(err)
				}
				s.attach(&t, &sink{s: s}, 32)
			}
			t.end()
			payload := make([]byte, 100)
			b.ReportAllocs()
			for b.Loop() {
				t.begin()
				_ = d.route(&t, &publication{topic: []byte("a/b"), payload: payload, qos: 1})
				t.end()
			}
		})
	}
}

func BenchmarkTrieMatch(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("%d filters, not cached", n), func(b *testing.B) {
			var tr trie
			for i := range n {
				tr.subscribe(&session{}, mqtt.Subscription{Filter: fmt.Sprintf("site/%d/+/value", i), QoS: 1})
			}
			topic := fmt.Sprintf("site/%d/temperature/value", n/2)
			b.ReportAllocs()
			for b.Loop() {
				if len(tr.root.collect(topic).transient) != 1 {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkDurable(b *testing.B) {
	d := benchBroker(b)
	s := d.newSession("absent", true)
	s.subscribe(mqtt.Subscription{Filter: "a", QoS: 1})
	t := turn{b: d}
	payload := make([]byte, 150)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t.begin()
		_ = d.route(&t, &publication{topic: []byte("a"), payload: payload, qos: 1})
		if i%256 == 255 {
			if err := d.commit.commit(&t); err != nil {
				b.Fatal(err)
			}
		}
		t.end()
	}
}
