package bridge

import "tidegate/mqtt"

// route is what the rules of out make of a topic.
type route struct {
	topic  string
	qos    mqtt.QoS
	retain bool  // the flag is kept
	err    error // why nothing with this topic can ever go upstream; nil: it can
}

// route returns how messages with topic go upstream. The first rule that matches wins.
func (c *Config) route(topic string) route {
	rule, _ := ruleFor(c.Out, topic)
	if rule == nil {
		return route{err: errUnmatched}
	}
	to, err := rule.target(topic)
	return route{to, rule.qos(), rule.retains(), err}
}

// carry returns m as it goes upstream, or why it can never go there.
func (r route) carry(m mqtt.Message) (mqtt.Message, error) {
	if r.err != nil {
		return mqtt.Message{}, r.err
	}
	m.Topic, m.QoS, m.Retain = r.topic, r.qos, m.Retain && r.retain
	return m, checkSize(m.Topic, len(m.Payload))
}

// routes gives out routes that are looked for once: a queue has the same topics over and
// over. It is used by one goroutine.
type routes struct {
	cfg  *Config
	kept map[string]route // mostRoutes at most, of topics of at most longestTopic bytes
}

const mostRoutes, longestTopic = 256, 128

func newRoutes(c *Config) *routes { return &routes{c, make(map[string]route)} }

func (r *routes) of(topic string) route {
	way, kept := r.kept[topic]
	if kept {
		return way
	}
	way = r.cfg.route(topic)
	if len(topic) <= longestTopic {
		if len(r.kept) == mostRoutes {
			clear(r.kept)
		}
		r.kept[topic] = way
	}
	return way
}
