package bridge

import (
	"fmt"
	"strings"
	"time"

	"tidegate/internal/check"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// Rule carries the messages that match one of Topics, one way.
type Rule struct {
	Topics []string  `yaml:"topics"` // filters
	Strip  string    `yaml:"strip"`  // taken off the topic's front, if it is there
	Prefix string    `yaml:"prefix"` // put before what is left
	QoS    *mqtt.QoS `yaml:"qos"`    // the highest; nil: 1
	Retain *bool     `yaml:"retain"` // false: the flag is taken off; nil: it is kept

	// ValidFor is the age at which a command is not carried any more; only
	// for in. 0: whatever its age.
	ValidFor units.Duration `yaml:"valid_for"`
}

// Map returns the topic and QoS that a message published locally on topic gets
// upstream. The first rule of out that matches wins; false: no rule does. The
// topic that comes out may be unlawful if strip takes all of it away.
func (c Config) Map(topic string) (string, mqtt.QoS, bool) { return mapped(c.Out, topic) }

// MapIn is Map for a message that comes from upstream and the rules of in.
func (c Config) MapIn(topic string) (string, mqtt.QoS, bool) { return mapped(c.In, topic) }

func mapped(rules []Rule, topic string) (string, mqtt.QoS, bool) {
	r, _ := ruleFor(rules, topic)
	if r == nil {
		return "", 0, false
	}
	return r.rename(topic), r.qos(), true
}

// ruleFor returns the first rule that matches topic and the filter that did.
func ruleFor(rules []Rule, topic string) (r *Rule, filter string) {
	for i := range rules {
		for _, f := range rules[i].Topics {
			if mqtt.Match(f, topic) {
				return &rules[i], f
			}
		}
	}
	return nil, ""
}

// subscriptions are what the rules want of the broker that they take messages
// from: each filter once, with the highest QoS that a rule has for it. No Local
// spares the bridge what it published there itself.
func subscriptions(rules []Rule) []mqtt.Subscription {
	var subs []mqtt.Subscription
	at := make(map[string]int)
	for _, r := range rules {
		for _, f := range r.Topics {
			i, known := at[f]
			if !known {
				i, at[f] = len(subs), len(subs)
				subs = append(subs, mqtt.Subscription{Filter: f, NoLocal: true, RetainAsPublished: true})
			}
			subs[i].QoS = max(subs[i].QoS, r.qos())
		}
	}
	return subs
}

// wanted are the subscriptions of in. A filter that another one covers is left out, since
// servers send a message once for each subscription that it matches: a command would be
// carried out twice.
func (c *Config) wanted() (subs []mqtt.Subscription) {
	all := subscriptions(c.In)
	for _, sub := range all {
		covered := false
		for _, other := range all {
			if other.Filter == sub.Filter {
				continue
			}
			covered = covered || covers(other.Filter, sub.Filter)
			if covers(sub.Filter, other.Filter) {
				sub.QoS = max(sub.QoS, other.QoS)
			}
		}
		if !covered {
			sub.RetainAsPublished = !c.minds(sub.Filter)
			subs = append(subs, sub)
		}
	}
	return subs
}

// minds reports whether a rule of in has to tell what the server had retained, which may be
// old, from what is published while the bridge listens to filter.
func (c *Config) minds(filter string) bool {
	for _, l := range lanes(c.In) {
		if l.rule.ValidFor > 0 && overlap(l.filter, filter) {
			return true
		}
	}
	return false
}

func (r Rule) rename(topic string) string {
	return r.Prefix + strings.TrimPrefix(topic, r.Strip)
}

// target returns the topic that a message on topic gets, or why it gets none.
func (r Rule) target(topic string) (string, error) {
	to := r.rename(topic)
	switch err := mqtt.ValidName(to); {
	case err != nil:
		return "", err
	case to[0] == '$': // strip has laid it bare
		return "", errReserved
	case circles(to, r.Prefix):
		return "", errCircle
	}
	return to, nil
}

func (r Rule) qos() mqtt.QoS {
	if r.QoS == nil {
		return mqtt.AtLeastOnce
	}
	return *r.QoS
}

// retains reports whether a message that is retained stays so.
func (r Rule) retains() bool { return r.Retain == nil || *r.Retain }

// checkRules reports what is wrong with the rules of both ways.
func (c *Config) checkRules(p *check.Problems) {
	if len(c.Out)+len(c.In) == 0 {
		p.Add("out", "is missing, and in as well, so the bridge would carry nothing: write a rule, as in - topics: [sensor/#]")
	}
	for i, r := range c.Out {
		q := r.check()
		r.checkOut(&q)
		p.Under(fmt.Sprintf("out[%d]", i), q)
	}
	for i, r := range c.In {
		q := r.check()
		r.checkIn(&q)
		p.Under(fmt.Sprintf("in[%d]", i), q)
	}
}

// check reports what is wrong with a rule of either way.
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
	return p
}

func (r Rule) checkOut(p *check.Problems) {
	if q := r.qos(); q > mqtt.AtLeastOnce {
		p.Add("qos", "%d is not 0 or 1: exactly once does not survive a new connection, so use 1", q)
	}
	if r.ValidFor != 0 {
		p.Add("valid_for", "is for commands that come in: give the queue a max_age to limit what goes out")
	}
}

func (r Rule) checkIn(p *check.Problems) {
	if q := r.qos(); !q.Valid() {
		p.Add("qos", "%d is not 0, 1 or 2", q)
	}
	if d := time.Duration(r.ValidFor); d < 0 || d > 0 && d < time.Second {
		p.Add("valid_for", "%v is shorter than a slow link may need; write 1s or more", r.ValidFor)
	}
}

// checkFilter says what is wrong with f as a filter of this rule, or "".
func (r Rule) checkFilter(f string) string {
	if err := mqtt.ValidFilter(f); err != nil {
		return err.Error()
	}
	head := literal(f)
	switch {
	case strings.HasPrefix(f, "$share/"):
		return fmt.Sprintf("%q is a shared subscription, of which a bridge would get only a part: name the topics themselves", f)
	case !strings.HasPrefix(head, r.Strip) && (head == f || !strings.HasPrefix(r.Strip, head)):
		return fmt.Sprintf("no topic of %q starts with %q, so strip would never do anything", f, r.Strip)
	case f == r.Strip && r.Prefix == "":
		return fmt.Sprintf("strip takes all of %q away: shorten strip or add a prefix", f)
	case strings.HasPrefix(r.rename(f), "$"):
		return fmt.Sprintf("topics under %q belong to the server they are on: add a prefix, as in site/pump-house/", f)
	}
	return ""
}

// literal returns what stands before the first wildcard.
func literal(filter string) string {
	if i := strings.IndexAny(filter, "+#"); i >= 0 {
		return filter[:i]
	}
	return filter
}
