package auth

import "strings"

// rules are a set of rules, as a list and as a tree that finds the ones that
// match a topic without looking at each.
type rules struct {
	list []rule
	root node
}

// node is where the filters of a tree have come to after some levels.
type node struct {
	here  access // of the filters that end here
	below access // of those that go on with #
	all   access // of those that end here or further down

	literal map[string]*node
	plus    *node    // the next level is +
	filled  []branch // the next level has placeholders
}

// branch is a level with placeholders and what follows it.
type branch struct {
	level level
	node  *node
}

// add adds a rule, whose filter is lawful.
func (r *rules) add(added rule) {
	r.list = append(r.list, added)
	n := &r.root
	n.all |= added.grant
	for _, l := range added.filter {
		if l.text == "#" {
			n.below |= added.grant
			return
		}
		n = n.next(l)
		n.all |= added.grant
	}
	n.here |= added.grant
}

// next returns the node behind the level l, which may be new.
func (n *node) next(l level) *node {
	switch {
	case l.parts != nil:
		return n.nextFilled(l)
	case l.text == "+":
		if n.plus == nil {
			n.plus = new(node)
		}
		return n.plus
	}
	next := n.literal[l.text]
	if next == nil {
		next = new(node)
		if n.literal == nil {
			n.literal = make(map[string]*node)
		}
		n.literal[l.text] = next
	}
	return next
}

func (n *node) nextFilled(l level) *node {
	for _, b := range n.filled {
		if b.level.text == l.text {
			return b.node
		}
	}
	next := new(node)
	n.filled = append(n.filled, branch{l, next})
	return next
}

// match returns what the rules that match the topic name grant and deny,
// together. A wildcard at the beginning does not match names that start with $
// (MQTT 3.1.1, section 4.7.2).
func (r *rules) match(id Identity, name string) access {
	if strings.HasPrefix(name, "$") {
		return r.root.matchTexts(id, name, true)
	}
	return r.root.match(id, name, true)
}

// match looks at the levels of rest below n.
func (n *node) match(id Identity, rest string, first bool) access {
	sum := n.below | n.matchTexts(id, rest, first)
	if n.plus != nil {
		_, after, more := strings.Cut(rest, "/")
		sum |= n.plus.enter(id, after, more)
	}
	return sum
}

// matchTexts is match without wildcards in the first level of rest.
func (n *node) matchTexts(id Identity, rest string, first bool) access {
	name, after, more := strings.Cut(rest, "/")
	var sum access
	if next := n.literal[name]; next != nil {
		sum = next.enter(id, after, more)
	}
	for _, b := range n.filled {
		switch b.level.fillOf(id, first) {
		case fits:
			if b.level.equals(id, name) {
				sum |= b.node.enter(id, after, more)
			}
		case risky: // grants nothing, and what it denies it denies to all of this branch
			sum |= b.node.all & deny
		}
	}
	return sum
}

// enter returns what n grants once the filters have come to it: to the levels of
// rest or, if there are no more, to the name that ends here.
func (n *node) enter(id Identity, rest string, more bool) access {
	if more {
		return n.match(id, rest, false)
	}
	return n.here | n.below
}
