package broker

import (
	"strings"
	"sync"

	"tidegate/mqtt"
)

// maxCachedTopics and maxCachedBytes bound the cache of match results. Sensors
// publish to few topics again and again; whoever publishes to more pays for the
// matching.
const (
	maxCachedTopics = 4096
	maxCachedBytes  = 512 << 10
)

// target is one session that a topic matches, however many of its subscriptions
// do: it gets the message once, at their highest QoS (MQTT 3.1.1, section 3.3.5).
type target struct {
	s *session
	wish
	own  wish // of those that want what s published itself, too
	echo bool // there are such
}

// wish is how subscriptions that match, taken together, want the message.
type wish struct {
	qos    mqtt.QoS
	retain bool     // MQTT 5: one of them wants the retain flag as published
	ids    []uint32 // MQTT 5: their identifiers
}

// add notes one more subscription that matches.
func (to *target) add(sub mqtt.Subscription) {
	to.wish.add(sub)
	if !sub.NoLocal {
		to.own.add(sub)
		to.echo = true
	}
}

func (w *wish) add(sub mqtt.Subscription) {
	w.qos = max(w.qos, sub.QoS)
	w.retain = w.retain || sub.RetainAsPublished
	if sub.ID != 0 {
		w.ids = append(w.ids, sub.ID)
	}
}

// matches is who gets the messages of one topic. It is shared and never
// written once it stands in the cache.
type matches struct {
	topic     string
	durable   []target // owed messages while they are absent
	transient []target
	inbox     bool // one of the durable ones is a consumer inside the process
}

// size is roughly what m takes in the cache.
func (m *matches) size() int { return 128 + len(m.topic) + 56*(len(m.durable)+len(m.transient)) }

// trie holds the subscriptions of all sessions, level by level.
type trie struct {
	mu     sync.RWMutex
	root   node
	cached map[string]*matches // by topic; emptied by every change of a subscription
	bytes  int                 // of topics and targets in cached
	access *access             // who may read what; nil: everybody everything
}

// node is one topic level. Wildcards are children like others.
type node struct {
	children map[string]*node
	subs     map[*session]mqtt.Subscription
}

// subscribe gives s the subscription, or changes the one with its filter.
func (t *trie) subscribe(s *session, sub mqtt.Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cached = nil
	n := &t.root
	for level := range strings.SplitSeq(sub.Filter, "/") {
		next := n.children[level]
		if next == nil {
			next = &node{}
			if n.children == nil {
				n.children = make(map[string]*node)
			}
			n.children[level] = next
		}
		n = next
	}
	if n.subs == nil {
		n.subs = make(map[*session]mqtt.Subscription)
	}
	n.subs[s] = sub
}

// unsubscribe takes the filter from s and prunes what is empty then.
func (t *trie) unsubscribe(s *session, filter string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cached = nil
	t.root.remove(s, strings.Split(filter, "/"))
}

func (n *node) remove(s *session, levels []string) {
	if len(levels) == 0 {
		delete(n.subs, s)
		return
	}
	next := n.children[levels[0]]
	if next == nil {
		return
	}
	next.remove(s, levels[1:])
	if len(next.subs) == 0 && len(next.children) == 0 {
		delete(n.children, levels[0])
	}
}

// match returns who gets the messages of topic.
func (t *trie) match(topic []byte) *matches {
	t.mu.RLock()
	m := t.cached[string(topic)]
	t.mu.RUnlock()
	if m != nil {
		return m
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m = t.root.collect(string(topic)).readable(t.access)
	if t.cached == nil || len(t.cached) >= maxCachedTopics || t.bytes >= maxCachedBytes {
		t.cached, t.bytes = make(map[string]*matches), 0
	}
	if size := m.size(); size < maxCachedBytes/8 {
		t.cached[m.topic] = m
		t.bytes += size
	}
	return m
}

// collect walks the trie for topic without the cache.
func (n *node) collect(topic string) *matches {
	best := make(map[*session]*target)
	n.walk(topic, true, topic[0] == '$', best)
	m := &matches{topic: topic}
	for s, to := range best {
		list := &m.transient
		if s.durable() {
			list = &m.durable
		}
		*list = append(*list, *to)
		m.inbox = m.inbox || s.inbox
	}
	return m
}

// walk gathers the subscriptions below n that match rest. A wildcard at the
// root does not match topics that start with $ (section 4.7.2).
func (n *node) walk(rest string, more, dollar bool, best map[*session]*target) {
	if all := n.children["#"]; all != nil && !dollar {
		all.gather(best)
	}
	if !more {
		n.gather(best)
		return
	}
	level, rest, more := strings.Cut(rest, "/")
	if next := n.children[level]; next != nil {
		next.walk(rest, more, false, best)
	}
	if next := n.children["+"]; next != nil && !dollar {
		next.walk(rest, more, false, best)
	}
}

func (n *node) gather(best map[*session]*target) {
	for s, sub := range n.subs {
		to := best[s]
		if to == nil {
			to = &target{s: s}
			best[s] = to
		}
		to.add(sub)
	}
}
