package bridge

import (
	"fmt"
	"strings"
	"time"

	"tidegate/mqtt"
)

// Way is what a rule does to a topic, or to the topics of a filter, for whoever
// wants to see it.
type Way struct {
	Direction string   `json:"direction"` // out or in
	Rule      string   `json:"rule"`      // as "out[0].topics[1]"; empty: no rule matches
	Filter    string   `json:"filter"`    // of the rule
	From      string   `json:"from"`      // topic or filter where the message comes from
	To        string   `json:"to"`        // ... and where it goes; empty: nowhere
	QoS       mqtt.QoS `json:"qos"`       // the highest
	Retain    bool     `json:"retain"`    // the flag is kept
	ValidFor  string   `json:"valid_for,omitempty"`
	Problem   string   `json:"problem,omitempty"` // why it goes nowhere
}

// Ways returns what each filter of each rule does.
func (c Config) Ways() []Way {
	var list []Way
	for _, d := range c.directions() {
		for _, l := range lanes(d.rules) {
			w := l.way(d.name)
			w.From, w.To = l.filter, strings.Join(l.rule.images(l.filter), " or ")
			list = append(list, w)
		}
	}
	return list
}

// Explain returns what becomes of a message with this topic: one that is
// published here, and one that comes from upstream.
func (c Config) Explain(topic string) []Way {
	var list []Way
	for _, d := range c.directions() {
		w := Way{Direction: d.name, Problem: errUnmatched.Error()}
		for _, l := range lanes(d.rules) {
			if mqtt.Match(l.filter, topic) {
				w = l.way(d.name)
				to, err := l.rule.target(topic)
				if w.To = to; err != nil {
					w.Problem = err.Error()
				}
				break
			}
		}
		w.From = topic
		list = append(list, w)
	}
	return list
}

type direction struct {
	name  string
	rules []Rule
}

func (c Config) directions() []direction { return []direction{{"out", c.Out}, {"in", c.In}} }

func (l lane) way(direction string) Way {
	w := Way{
		Direction: direction, Rule: direction + l.path, Filter: l.filter,
		QoS: l.rule.qos(), Retain: l.rule.retains(),
	}
	if l.rule.ValidFor > 0 {
		w.ValidFor = time.Duration(l.rule.ValidFor).String()
	}
	return w
}

// String is w as one line.
func (w Way) String() string {
	if w.Problem != "" {
		return fmt.Sprintf("%-3s  %s goes nowhere: %s", w.Direction, w.From, w.Problem)
	}
	extra := ""
	if !w.Retain {
		extra += ", retain dropped"
	}
	if w.ValidFor != "" {
		extra += ", valid for " + w.ValidFor
	}
	return fmt.Sprintf("%-3s  %s -> %s  (QoS %d at most%s; %s)", w.Direction, w.From, w.To, w.QoS, extra, w.Rule)
}
