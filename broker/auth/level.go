package auth

import "strings"

// rule is a filter, level by level, and what it grants.
type rule struct {
	filter []level
	grant  access
}

// level is one level of a rule's filter. In a pattern it may have placeholders.
type level struct {
	text  string // as in the file
	parts []part // nil: no placeholders
}

// part is a piece of a level: a text, the user name or the client id.
type part struct {
	kind kind
	text string
}

type kind uint8

const (
	text     kind = iota
	userName      // %u
	clientID      // %c
)

// splitTopic splits the filter of a topic line.
func splitTopic(filter string) []level {
	var levels []level
	for name := range strings.SplitSeq(filter, "/") {
		levels = append(levels, level{text: name})
	}
	return levels
}

// splitPattern splits the filter of a pattern line. Placeholders may stand
// anywhere.
func splitPattern(filter string) []level {
	levels := splitTopic(filter)
	for i := range levels {
		levels[i].parts = splitLevel(levels[i].text)
	}
	return levels
}

// splitLevel returns the parts of a level with placeholders, or nil.
func splitLevel(rest string) []part {
	var parts []part
	for {
		i := placeholder(rest)
		switch {
		case i < 0 && parts == nil:
			return nil
		case i < 0:
			return append(parts, part{text, rest})
		}
		kind := clientID
		if rest[i+1] == 'u' {
			kind = userName
		}
		parts = append(parts, part{text, rest[:i]}, part{kind, ""})
		rest = rest[i+2:]
	}
}

// placeholder returns where the first %u or %c is, or -1.
func placeholder(s string) int {
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '%' && (s[i+1] == 'u' || s[i+1] == 'c') {
			return i
		}
	}
	return -1
}

// of returns the text that p stands for.
func (p part) of(id Identity) string {
	switch p.kind {
	case userName:
		return id.User
	case clientID:
		return id.ClientID
	}
	return p.text
}

// fill says how an identity fits into the placeholders of a level.
type fill uint8

const (
	fits  fill = iota
	empty      // a name is missing: the rule is not about this client
	risky      // a name has characters that would change what the filter means
)

// fillOf judges id for a level that has placeholders. A name with a wildcard or a
// slash would make the client's own rule out of somebody else's, and one that
// begins a topic with $ would reach the broker's topics.
func (l level) fillOf(id Identity, first bool) fill {
	judged := fits
	for _, p := range l.parts {
		name := p.of(id)
		switch {
		case p.kind == text:
		case name == "":
			return empty
		case strings.ContainsAny(name, "+#/"), first && name[0] == '$':
			judged = risky
		}
	}
	return judged
}

// equals reports whether the level, filled in for id, is name.
func (l level) equals(id Identity, name string) bool {
	ok := true
	for _, p := range l.parts {
		if name, ok = strings.CutPrefix(name, p.of(id)); !ok {
			return false
		}
	}
	return name == ""
}

// expand returns the level filled in for id.
func (l level) expand(id Identity) string {
	if l.parts == nil {
		return l.text
	}
	var b strings.Builder
	for _, p := range l.parts {
		b.WriteString(p.of(id))
	}
	return b.String()
}
