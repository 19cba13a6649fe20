package bridge

import (
	"fmt"
	"strings"

	"tidegate/internal/check"
	"tidegate/mqtt"
)

// Map returns the topic and QoS that a message published locally on topic gets
// upstream. The first rule that matches wins; false: no rule does. The topic
// that comes out may be unlawful if strip takes all of it away.
func (c Config) Map(topic string) (string, mqtt.QoS, bool) {
	r, _ := c.rule(topic)
	if r == nil {
		return "", 0, false
	}
	return r.rename(topic), r.qos(), true
}

// rule returns the first rule that matches topic and the filter that did.
func (c Config) rule(topic string) (r *Rule, filter string) {
	for i := range c.Out {
		for _, f := range c.Out[i].Topics {
			if mqtt.Match(f, topic) {
				return &c.Out[i], f
			}
		}
	}
	return nil, ""
}

// subscriptions are what the rules want of the local broker: each filter once,
// with the highest QoS that a rule has for it.
func (c Config) subscriptions() []mqtt.Subscription {
	var subs []mqtt.Subscription
	at := make(map[string]int)
	for _, r := range c.Out {
		for _, f := range r.Topics {
			i, known := at[f]
			if !known {
				i, at[f] = len(subs), len(subs)
				subs = append(subs, mqtt.Subscription{Filter: f})
			}
			subs[i].QoS = max(subs[i].QoS, r.qos())
		}
	}
	return subs
}

func (r Rule) rename(topic string) string {
	return r.Prefix + strings.TrimPrefix(topic, r.Strip)
}

func (r Rule) qos() mqtt.QoS {
	if r.QoS == nil {
		return mqtt.AtLeastOnce
	}
	return *r.QoS
}

func (r Rule) check() check.Problems {
	var p check.Problems
	if len(r.Topics) == 0 {
		p.Add("topics", "is missing: write at least one filter, as in [sensor/#]")
	}
	for i, f := range r.Topics {
		if why := r.checkFilter(f); why != "" {
			p.Add(fmt.Sprintf("topics[%d]", i), "%s", why)
		}
	}
	for _, part := range []struct{ path, text string }{{"strip", r.Strip}, {"prefix", r.Prefix}} {
		if err := mqtt.ValidName(part.text); part.text != "" && err != nil {
			p.Add(part.path, "%v: write the beginning of a topic, as in site/pump-house/", err)
		}
	}
	if q := r.qos(); q > mqtt.AtLeastOnce {
		p.Add("qos", "%d is not 0 or 1: exactly once does not survive a new connection, so use 1", q)
	}
	return p
}

// checkFilter says what is wrong with f as a filter of this rule, or "".
func (r Rule) checkFilter(f string) string {
	if err := mqtt.ValidFilter(f); err != nil {
		return err.Error()
	}
	head := f
	if i := strings.IndexAny(f, "+#"); i >= 0 {
		head = f[:i]
	}
	switch {
	case !strings.HasPrefix(head, r.Strip) && (head == f || !strings.HasPrefix(r.Strip, head)):
		return fmt.Sprintf("no topic of %q starts with %q, so strip would never do anything", f, r.Strip)
	case f == r.Strip && r.Prefix == "":
		return fmt.Sprintf("strip takes all of %q away: shorten strip or add a prefix", f)
	case strings.HasPrefix(r.rename(f), "$"):
		return fmt.Sprintf("topics under %q belong to the server they are on: add a prefix, as in site/pump-house/", f)
	}
	return ""
}
