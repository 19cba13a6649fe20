package main

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"tidegate/bridge"
	"tidegate/internal/check"
)

// place is where something stands in a configuration file. Lines and columns
// count from 1.
type place struct {
	file      string
	line, col int
}

// Error is one mistake in the configuration: where it stands, what is wrong and
// what would be right.
type Error struct {
	File      string
	Line, Col int // 0: the file as a whole, as when it cannot be read
	Text      string
}

// Error returns the one line FILE:LINE:COL: text.
func (e Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Text)
}

// Errors are all mistakes of a configuration, in the order of its files and
// lines. Commands that return them end with exit code 2.
type Errors []Error

// Error returns one line per mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders e as a reader meets the mistakes, the files as in files, and
// leaves out what is said twice.
func (e Errors) sorted(files []string) Errors {
	slices.SortStableFunc(e, func(a, b Error) int {
		return cmp.Or(
			cmp.Compare(slices.Index(files, a.File), slices.Index(files, b.File)),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Col, b.Col),
		)
	})
	return slices.Compact(e)
}

// warnings returns what c, which has no mistakes, does that its author may not
// expect.
func (l *loader) warnings(c *Config) Errors {
	var p check.Problems
	p.Under("bridges", bridge.Warnings(c.Bridges, c.listens()))
	l.problems(p)
	list := l.errs
	l.errs = nil
	for i := range list {
		list[i].Text = "warning: " + list[i].Text
	}
	return list
}

// listens returns host and port of each listener that has them.
func (c *Config) listens() []string {
	var list []string
	for _, l := range c.Broker.Listeners {
		if u, err := url.Parse(l.Address); err == nil && u.Port() != "" {
			list = append(list, u.Host)
		}
	}
	return list
}
