// Package check collects what is wrong with a configuration, so that a user sees
// every mistake at once and where it is.
//
// There is one noun. A [Problem] is one mistake: the YAML path of the value,
// relative to the part of the configuration that was checked, and a sentence
// that says what is wrong and what would be right.
package check

import "fmt"

// Problem is one mistake in a configuration.
type Problem struct {
	Path string // as in "servers[0]" or "tls.ca"; empty: the whole part
	Text string // what is wrong, what would be right
}

// Problems are the mistakes found so far, in the order of the file.
type Problems []Problem

// Add notes a mistake at path.
func (p *Problems) Add(path, format string, args ...any) {
	*p = append(*p, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

// Under takes over the mistakes of a part that stands at path.
func (p *Problems) Under(path string, part Problems) {
	for _, q := range part {
		*p = append(*p, Problem{Path: join(path, q.Path), Text: q.Text})
	}
}

func join(path, rest string) string {
	switch {
	case path == "":
		return rest
	case rest == "":
		return path
	case rest[0] == '[':
		return path + rest
	default:
		return path + "." + rest
	}
}
