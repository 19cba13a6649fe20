package broker

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// siege is a broker with little memory, two clients that behave well, and others
// that do not. Whatever these do, memory stays bounded, every refusal is counted,
// and the two go on. That all memory is given back is what [bed.audit] sees to.
type siege struct {
	*bed
	pub, sub *peer
	n        int
}

func newSiege(t *testing.T, memory units.Size, change func(*bed)) *siege {
	t.Helper()
	d := newBed(t, func(d *bed) {
		d.handler = slog.DiscardHandler
		d.opts.MemoryLimit = memory
		d.cfg.Limits.MaxConnections, d.cfg.Limits.MaxSessions = 5000, 5000
		if change != nil {
			change(d)
		}
	})
	s := &siege{bed: d, pub: d.dial("good publisher", nil), sub: d.dial("good subscriber", nil)}
	s.sub.subscribe("good", 1)
	s.holds()
	return s
}

// holds checks that the two are served and that memory is bounded. Beside the
// limit there may be what was decided on before it was reached.
func (s *siege) holds() {
	s.t.Helper()
	s.n++
	payload := fmt.Sprint(s.n)
	s.pub.publish("good", payload, 1)
	s.sub.want("good", payload, 1)
	if st := s.b.Status(); st.MemoryUsed > st.MemoryLimit*5/4 {
		s.t.Fatalf("clients take %d bytes of %d: %v", st.MemoryUsed, st.MemoryLimit, st.Memory)
	}
}

// refused waits until something was refused for the reason.
func (s *siege) refused(reason string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); s.b.Status().Refused[reason] == 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("nothing was refused because of %q: %v", reason, s.b.Status())
		}
	}
	s.holds()
}

// raw opens a connection that says nothing by itself.
func (s *siege) raw() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.b.Addrs()[0].String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// knock connects and returns the code of the CONNACK, or false if there is none.
func (s *siege) knock(k packet.Connect) (code packet.ConnackCode, answered bool) {
	s.t.Helper()
	w := s.wire(k)
	_ = w.c.SetReadDeadline(time.Now().Add(patience))
	f, err := w.r.Next()
	if err != nil || f.Type() != packet.TypeConnack {
		return 0, false
	}
	return packet.ConnackCode(f.Body[1]), true
}

func TestHalfOpenConnections(t *testing.T) {
	s := newSiege(t, units.MiB, func(d *bed) { d.cfg.Limits.ConnectTimeout = units.Duration(3 * time.Second) }) // enough to open so many
	var all []net.Conn
	for range 200 { // 75 of them have room
		all = append(all, s.raw())
	}
	s.refused("memory_connection")
	for _, c := range all {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("got a byte")
		}
	}
	s.refused("no_connect")
}

func TestOneByteAtATimeFromMany(t *testing.T) {
	s := newSiege(t, 2*units.MiB, nil)
	var all []*wire
	for i := range 50 {
		w := s.wire(clean(fmt.Sprint(i)))
		w.connack(packet.Accepted, false)
		all = append(all, w)
	}
	p := packet.Publish{Topic: []byte("good"), Payload: []byte("slow"), QoS: 1, ID: 1}
	for _, b := range p.Append(nil) {
		for _, w := range all {
			w.send([]byte{b})
		}
		if n := s.b.memory.by[forPackets].Load(); n != 0 {
			t.Fatalf("%d bytes are taken for parts of packets of a few bytes", n)
		}
	}
	for _, w := range all {
		w.wantAck(packet.TypePuback, 1)
		s.sub.want("good", "slow", 1)
	}
	s.holds()
}

func TestLengthOf256MB(t *testing.T) {
	header := []byte{0x30, 0xff, 0xff, 0xff, 0x7f}
	t.Run("that max_packet_size forbids", func(t *testing.T) {
		s := newSiege(t, units.MiB, nil)
		w := s.wire(clean("x"))
		w.connack(packet.Accepted, false)
		w.send(header)
		w.wantEnd()
		s.refused("packet_size")
	})
	t.Run("that is allowed costs what has come", func(t *testing.T) {
		s := newSiege(t, 2*units.MiB, func(d *bed) { d.cfg.Limits.MaxPacketSize = maxPacketSize })
		for i := range 40 {
			w := s.wire(clean(fmt.Sprint(i)))
			w.connack(packet.Accepted, false)
			w.send(header, []byte{0, 1, 'a'})
		}
		s.holds()
		if n := s.b.memory.by[forPackets].Load(); n != 0 {
			t.Errorf("%d bytes are taken for three", n)
		}
	})
}

func TestPartialPacketsOnEveryConnection(t *testing.T) {
	s := newSiege(t, 2*units.MiB, nil)
	part := append([]byte{0x30, 0xc0, 0x84, 0x3d}, make([]byte, 60_000)...) // of 1,000,000
	for i := range 40 {
		w := s.wire(clean(fmt.Sprint(i)))
		if _, err := w.r.Next(); err != nil {
			continue // there is no room for it now
		}
		_, _ = w.c.Write(part)
	}
	s.refused("memory_holder")
}

func TestMillionSubscriptions(t *testing.T) {
	s := newSiege(t, units.MiB, func(d *bed) { d.cfg.Limits.MaxSubscriptions = 1_000_000 })
	w := s.wire(clean("greedy"))
	w.connack(packet.Accepted, false)
	granted := 0
	for i := range 1000 {
		sub := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: fmt.Sprintf("%d/%s", i, strings.Repeat("x/", 50)), QoS: 1}}}
		w.send(sub.Append(nil))
		if f := w.next(); mqtt.QoS(f.Body[2]) == mqtt.QoSFailure {
			break
		}
		granted++
	}
	if granted == 0 || granted == 1000 {
		t.Errorf("%d subscriptions were granted in half a MiB", granted)
	}
	s.refused("memory_subscription")
}

func TestSubscriptionsBeyondTheLimitAreCounted(t *testing.T) {
	s := newSiege(t, units.MiB, func(d *bed) { d.cfg.Limits.MaxSubscriptions = 1 })
	w := s.wire(clean("x"))
	w.connack(packet.Accepted, false)
	sub := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}, {Filter: "b"}, {Filter: strings.Repeat("/", maxLevels)}}}
	w.send(sub.Append(nil))
	w.next()
	s.refused("subscriptions")
	s.refused("filter")
}

func TestClientIDFlood(t *testing.T) {
	s := newSiege(t, units.MiB, nil)
	for i := 0; ; i++ {
		code, answered := s.knock(kept(fmt.Sprintf("flood-%d-%s", i, strings.Repeat("x", 4000))))
		if answered && code == packet.RefusedUnavailable {
			break
		}
		if i > 1000 {
			t.Fatal("a thousand sessions of 5 KB were accepted in half a MiB")
		}
	}
	s.refused("memory_session")
}

func TestReconnectStorm(t *testing.T) {
	s := newSiege(t, 8*units.MiB, nil)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				s.knock(clean(fmt.Sprint(i)))
			}
		})
	}
	all.Wait()
	s.holds()
}

func TestTakeOverFightIsCounted(t *testing.T) {
	s := newSiege(t, units.MiB, nil)
	for range 50 {
		s.knock(kept("same"))
	}
	s.refused("taken_over")
}

func TestWillsByTheThousand(t *testing.T) {
	s := newSiege(t, units.MiB, nil)
	k := clean("")
	k.Version = packet.V5
	k.Will = &packet.Will{Topic: "will", Payload: make([]byte, 60_000)}
	k.Will.Properties = k.Will.Properties.AppendUint(packet.PropWillDelay, 3600)
	k.Properties = k.Properties.AppendUint(packet.PropSessionExpiry, 3600)
	for i := range 100 {
		k.ClientID = fmt.Sprint(i)
		if code, answered := s.knock(k); answered && packet.Reason(code) == packet.ReasonQuotaExceeded {
			s.refused("memory_session")
			return
		}
	}
	t.Fatal("a hundred wills of 60 KB were taken in half a MiB")
}

// flooded connects n clients over pipes, which hold nothing, with everything
// subscribed to, and publishes to them until somebody has to go.
func (s *siege) flooded(n int, q mqtt.QoS) {
	s.t.Helper()
	for i := range n {
		w := s.piped(clean(fmt.Sprintf("deaf-%d", i)))
		w.connack(packet.Accepted, false)
		w.subscribe("#", q)
	}
	payload := strings.Repeat("x", 8<<10)
	for range 100 {
		s.pub.publish("flood", payload, q)
	}
	s.refused("memory_holder")
}

func TestEverybodySubscribesToEverythingAndReadsNothing(t *testing.T) {
	newSiege(t, 6*units.MiB, nil).flooded(30, 0)
}

func TestNobodyAcknowledges(t *testing.T) {
	newSiege(t, 6*units.MiB, nil).flooded(30, 1)
}

func TestRetainedFlood(t *testing.T) {
	s := newSiege(t, units.MiB, nil)
	for i := range 1000 {
		s.pub.retain(fmt.Sprintf("r/%d", i), strings.Repeat("x", 1000), 0)
	}
	s.refused("retained")
	if n := s.b.Status().Retained; n == 0 || n > 400 {
		t.Errorf("%d retained messages of 1 KB in half a MiB", n)
	}
}

func TestTopicAliasAbuse(t *testing.T) {
	s := newSiege(t, units.MiB, nil)
	for i := range 20 {
		k := clean(fmt.Sprint(i))
		k.Version = packet.V5
		w := s.wire(k)
		if _, err := w.r.Next(); err != nil {
			continue
		}
		for alias := range uint32(30) {
			p := packet.Publish{Version: packet.V5, Topic: []byte(strings.Repeat("x", 2000)), Properties: packet.Properties(nil).AppendUint(packet.PropTopicAlias, alias+1)}
			if _, err := w.c.Write(p.Append(nil)); err != nil {
				break
			}
		}
	}
	s.refused("topic_alias")
}

func TestTopicFlood(t *testing.T) {
	s := newSiege(t, units.MiB, nil)
	for i := range 3 * maxCachedTopics {
		s.pub.publish(fmt.Sprintf("flood/%d", i), "x", 0)
	}
	s.holds()
	s.b.trie.mu.Lock()
	defer s.b.trie.mu.Unlock()
	if n := len(s.b.trie.cached); n > maxCachedTopics || s.b.trie.bytes > 2*maxCachedBytes {
		t.Errorf("%d topics with %d bytes are cached", n, s.b.trie.bytes)
	}
}
