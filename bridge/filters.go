package bridge

import "strings"

// covers reports whether every topic that matches the filter g matches f, too.
// Both are lawful. It may miss that "+/#" covers "#".
func covers(f, g string) bool {
	return !hidden(f, g) && coversLevels(strings.Split(f, "/"), strings.Split(g, "/"))
}

func coversLevels(f, g []string) bool {
	switch {
	case len(f) == 0:
		return len(g) == 0
	case f[0] == "#": // the parent as well, so g may be at its end
		return true
	case len(g) == 0 || g[0] == "#":
		return false
	}
	return (f[0] == "+" || f[0] == g[0]) && coversLevels(f[1:], g[1:])
}

// overlap reports whether some topic matches both filters.
func overlap(f, g string) bool {
	return !hidden(f, g) && !hidden(g, f) && overlapLevels(strings.Split(f, "/"), strings.Split(g, "/"))
}

func overlapLevels(f, g []string) bool {
	switch {
	case len(f) == 0:
		return len(g) == 0 || g[0] == "#"
	case len(g) == 0:
		return f[0] == "#"
	case f[0] == "#" || g[0] == "#":
		return true
	}
	return (f[0] == "+" || g[0] == "+" || f[0] == g[0]) && overlapLevels(f[1:], g[1:])
}

// hidden reports whether the topics of g are not for wildcards, with which f
// begins (MQTT 3.1.1, section 4.7.2).
func hidden(f, g string) bool { return g[0] == '$' && (f[0] == '+' || f[0] == '#') }

// images returns filters that match all that the topics of f are renamed to, and
// perhaps more.
func (r Rule) images(f string) []string {
	switch {
	case strings.HasPrefix(literal(f), r.Strip):
		return lawful(r.rename(f))
	case literal(f) == f: // strip does nothing
		return lawful(r.Prefix + f)
	}
	return append(lawful(r.Prefix+f), lawful(r.Prefix+"#")...) // strip ends behind a wildcard
}

// lawful makes a filter of text that may have wildcards beside other characters
// in a level, by letting that level match more. It returns none for "".
func lawful(text string) []string {
	if text == "" {
		return nil
	}
	levels := strings.Split(text, "/")
	for i, level := range levels {
		switch {
		case strings.HasSuffix(level, "#"):
			levels[i] = "#"
		case strings.Contains(level, "+"):
			levels[i] = "+"
		}
	}
	return []string{strings.Join(levels, "/")}
}
