package broker

import (
	"bytes"
	"fmt"
	"testing"

	"tidegate/mqtt"
)

// FuzzTrie plays subscribe, unsubscribe and match against a plain list. Each
// three bytes are one step.
func FuzzTrie(f *testing.F) {
	f.Add([]byte{0, 1, 2, 4, 1, 2, 9, 9, 9, 1, 1, 2})
	f.Add(bytes.Repeat([]byte{7, 0, 13, 2, 200, 3, 1, 0, 13}, 20))
	levels := []string{"a", "b", "", "$x", "+", "#", "c"}
	word := func(n byte, wild bool) string {
		s := ""
		for i, k := 0, int(n); i < 1+int(n)%4; i, k = i+1, k/3 {
			l := levels[k%len(levels)]
			if !wild && (l == "+" || l == "#") {
				l = "a"
			}
			s += "/" + l
			if l == "#" {
				break
			}
		}
		if s = s[1:]; s == "" {
			return "a"
		}
		return s
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		var tr trie
		sessions := []*session{{}, {queue: 1}, {queue: 2, inbox: true}}
		list := make(map[*session]map[string]mqtt.QoS)
		for ; len(steps) >= 3; steps = steps[3:] {
			s := sessions[int(steps[0]>>2)%len(sessions)]
			filter := word(steps[1], true)
			switch q := mqtt.QoS(steps[2] % 3); steps[0] & 3 {
			case 0, 1:
				tr.subscribe(s, mqtt.Subscription{Filter: filter, QoS: q})
				if list[s] == nil {
					list[s] = make(map[string]mqtt.QoS)
				}
				list[s][filter] = q
			case 2:
				tr.unsubscribe(s, filter)
				delete(list[s], filter)
			}
			topic := word(steps[2], false)
			for range 2 { // the second comes from the cache
				checkMatch(t, &tr, list, topic)
			}
		}
		for s, filters := range list {
			for filter := range filters {
				tr.unsubscribe(s, filter)
			}
		}
		if len(tr.root.children) != 0 {
			t.Errorf("%d nodes are left without a subscription", len(tr.root.children))
		}
	})
}

func checkMatch(t *testing.T, tr *trie, list map[*session]map[string]mqtt.QoS, topic string) {
	t.Helper()
	want := make(map[*session]mqtt.QoS)
	for s, filters := range list {
		for filter, q := range filters {
			if mqtt.Match(filter, topic) {
				want[s] = max(want[s], q)
			}
		}
	}
	m := tr.match([]byte(topic))
	got, inbox := make(map[*session]mqtt.QoS), false
	for _, to := range m.durable {
		if got[to.s] = to.qos; !to.s.durable() {
			t.Errorf("%q: a transient session is among the durable ones", topic)
		}
		inbox = inbox || to.s.inbox
	}
	for _, to := range m.transient {
		got[to.s] = to.qos
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(m.durable)+len(m.transient) || inbox != m.inbox {
		t.Fatalf("%q matches %v, want %v", topic, got, want)
	}
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 2, 1, 1, 0, 6, 0, 10, 3})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var q queue[int]
		var want []int
		for i, op := range ops {
			switch {
			case op == 255:
				q.reset()
				want = nil
			case op%4 == 1 && len(want) > 0:
				if got := q.pop(); got != want[0] {
					t.Fatalf("pop %d, want %d", got, want[0])
				}
				want = want[1:]
			case op%4 == 2 && len(want) > 0:
				k := int(op/4) % len(want)
				if got := q.remove(k); got != want[k] {
					t.Fatalf("remove %d, want %d", got, want[k])
				}
				want = append(want[:k:k], want[k+1:]...)
			default:
				q.push(i)
				want = append(want, i)
			}
			if q.len() != len(want) {
				t.Fatalf("length %d, want %d", q.len(), len(want))
			}
			for k, v := range want {
				if *q.at(k) != v {
					t.Fatalf("at %d: %d, want %d", k, *q.at(k), v)
				}
			}
		}
		for _, v := range q.list[:q.head] {
			if v != 0 {
				t.Fatal("a popped element is kept")
			}
		}
	})
}

func FuzzNote(f *testing.F) {
	f.Add([]byte{1, 0, 7, 3, 4}, uint64(100))
	f.Add([]byte{3, 0, 7, 3, 200, 1, 2, 5, 12, 0, 9, 2, 77, 4}, uint64(100))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, raw []byte, base uint64) {
		if base > 1<<60 {
			base >>= 8
		}
		n := parseNote(raw, base)
		for _, a := range n.beyond {
			if a.seq < base {
				return // nonsense, and taken without harm
			}
		}
		at := base
		for _, r := range n.cuts {
			if r.upTo <= at || r.bytes < 0 {
				return // likewise
			}
			at = r.upTo
		}
		if n.bytes < 0 {
			return
		}
		n.sent, n.sized = max(n.sent, base), true
		if again := parseNote(n.append(nil, base), base); fmt.Sprint(again) != fmt.Sprint(n) {
			t.Errorf("%v became %v", n, again)
		}
	})
}

func FuzzShareNote(f *testing.F) {
	f.Add([]byte{2, 9, 3, 5, 7, 1, 0, 0}, uint64(100))
	f.Add([]byte{2, 9, 3, 5}, uint64(0))
	f.Add([]byte{4, 9, 60, 1, 4, 2, 30, 3, 5, 7}, uint64(50))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, raw []byte, base uint64) {
		base >>= 8
		parse := func(raw []byte) *share {
			g := &share{s: &session{}, again: make(map[uint64]*loan)}
			g.s.bytes, g.s.cuts, _ = g.restoreNote(raw, base)
			return g
		}
		g := parse(raw)
		for seq := range g.again {
			if seq <= base || seq > 1<<62 {
				return // nonsense, and taken without harm
			}
		}
		again := parse(g.note(base, g.s.bytes))
		if again.drawn != max(g.drawn, base) || len(again.again) != len(g.again) {
			t.Errorf("drawn up to %d and %d open became %d and %d", g.drawn, len(g.again), again.drawn, len(again.again))
		}
		for seq, l := range g.again {
			if k := again.again[seq]; k == nil || k.queue != l.queue || k.id != l.id {
				t.Errorf("%+v became %+v", l, k)
			}
		}
	})
}

func FuzzSubs(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 1, 0, 3, 'b', '/', '#', 2})
	f.Fuzz(func(t *testing.T, row []byte) {
		subs, err := parseSubs(row)
		if err != nil {
			return
		}
		s := session{id: "x", subs: subs}
		again, err := parseSubs(s.row().Value[sessionHead:])
		if err != nil || fmt.Sprint(again) != fmt.Sprint(subs) {
			t.Errorf("%v became %v, %v", subs, again, err)
		}
	})
}

func TestTagKeepsWhatIsNeededToSendAgain(t *testing.T) {
	for _, it := range []item{{claim: claim{id: 1, qos: 1}}, {claim: claim{id: 65535, qos: 2}, retain: true}, {claim: claim{id: 32768, qos: 1}, retain: true}} {
		if got := itemFromTag(newTag(&it)); got.id != it.id || got.qos != it.qos || got.retain != it.retain {
			t.Errorf("%+v became %+v", it, got)
		}
	}
}
