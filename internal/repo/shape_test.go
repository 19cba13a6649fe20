package repo

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// Sizes in lines, comments and blank lines included. Tests are free: tables
// are long.
const (
	maxFile        = 500
	maxFunction    = 100
	medianFunction = 12
	p90Function    = 40
)

// comments finds packages without a package comment, with several, or with one
// where nobody looks for it: it stands in doc.go, or in the only file.
func comments(tr *tree) []string {
	packages := make(map[string][]*source)
	for _, f := range tr.files {
		packages[f.dir] = append(packages[f.dir], f)
	}
	var bad []string
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		bad = append(bad, commentsOf(tr, dir, packages[dir])...)
	}
	return bad
}

func commentsOf(tr *tree, dir string, files []*source) []string {
	code := slices.DeleteFunc(files, func(f *source) bool { return f.test })
	commented := slices.DeleteFunc(slices.Clone(code), func(f *source) bool { return f.ast.Doc == nil })
	if len(commented) == 0 {
		return []string{found(path.Join(dir, "doc.go"), 1, "the package has no comment: say here which nouns explain it")}
	}
	var bad []string
	for i, f := range commented {
		name := f.ast.Name.Name
		switch {
		case i > 0:
			bad = append(bad, tr.at(f.ast.Package, "a second package comment; the first is in %s", commented[0].path))
		case len(code) > 1 && path.Base(f.path) != "doc.go":
			bad = append(bad, tr.at(f.ast.Package, "the package comment of several files belongs into doc.go"))
		case name != "main" && !strings.HasPrefix(f.ast.Doc.Text(), "Package "+name+" "):
			bad = append(bad, tr.at(f.ast.Doc.Pos(), "the package comment does not begin with %q", "Package "+name))
		}
	}
	return bad
}

// fileSizes finds files that nobody reads to the end.
func fileSizes(tr *tree) []string {
	var bad []string
	for _, f := range tr.code() {
		if n := strings.Count(tr.texts[f.path], "\n"); n > maxFile {
			bad = append(bad, found(f.path, maxFile+1, "%d lines, at most %d: give one of its nouns its own file", n, maxFile))
		}
	}
	return bad
}

// functionSizes finds functions that do more than one thing.
func functionSizes(tr *tree) []string {
	var bad []string
	for _, f := range tr.code() {
		for _, fn := range f.functions() {
			if n := tr.lines(fn); n > maxFunction {
				bad = append(bad, tr.at(fn.Pos(), "%s has %d lines, at most %d: split it", fn.Name.Name, n, maxFunction))
			}
		}
	}
	return bad
}

// functionQuantiles holds the sizes of all functions together against what
// reads well.
func functionQuantiles(tr *tree) []string {
	var sizes []int
	for _, f := range tr.code() {
		for _, fn := range f.functions() {
			sizes = append(sizes, tr.lines(fn))
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	slices.Sort(sizes)
	median, p90 := sizes[len(sizes)/2], sizes[len(sizes)*9/10]
	if median <= medianFunction && p90 <= p90Function {
		return nil
	}
	return []string{fmt.Sprintf("functions have %d lines in the median and %d at the 90th percentile, want at most %d and %d", median, p90, medianFunction, p90Function)}
}

// lines is how many lines a function has, its comment not counted.
func (tr *tree) lines(fn *ast.FuncDecl) int {
	return tr.fset.Position(fn.End()).Line - tr.fset.Position(fn.Pos()).Line + 1
}

func TestCommentsBreaches(t *testing.T) {
	try(t, comments, []breach{
		{"one in doc.go, one in the only file, one of a command", map[string]string{
			"a/doc.go": "// Package a is.\npackage a", "a/x.go": "//go:build linux\n\npackage a",
			"b/b.go": "// Package b is.\npackage b", "b/b_test.go": "package b_test",
			"cmd/x/doc.go": "// Command x does.\npackage main", "cmd/x/main.go": "package main",
		}, nil},
		{"none", map[string]string{"a/x.go": "package a"}, []string{"a/doc.go:1: the package has no comment…"}},
		{"only tests", map[string]string{"a/x_test.go": "// Package a is.\npackage a"}, []string{"a/doc.go:1: the package has no comment…"}},
		{"two", map[string]string{"a/doc.go": "// Package a is.\npackage a", "a/x.go": "// Package a is.\npackage a"}, []string{
			"a/x.go:2: a second package comment; the first is in a/doc.go",
		}},
		{"in one of several files", map[string]string{"a/x.go": "// Package a is.\npackage a", "a/y.go": "package a"}, []string{
			"a/x.go:2: the package comment of several files belongs into doc.go",
		}},
		{"a license instead", map[string]string{"a/a.go": "// Copyright\npackage a"}, []string{
			"a/a.go:1: the package comment does not begin with \"Package a\"",
		}},
	})
}

func TestSizesBreaches(t *testing.T) {
	long := func(name string, lines int) string {
		return "func " + name + "() {\n" + strings.Repeat("\n", lines-2) + "}\n"
	}
	try(t, fileSizes, []breach{
		{"the longest file", map[string]string{"a.go": "package a\n" + strings.Repeat("\n", maxFile-1)}, nil},
		{"a line more", map[string]string{"a.go": "package a\n" + strings.Repeat("\n", maxFile)}, []string{"a.go:501: 501 lines, at most 500…"}},
		{"a test", map[string]string{"a_test.go": "package a\n" + strings.Repeat("\n", maxFile)}, nil},
	})
	try(t, functionSizes, []breach{
		{"the longest function", map[string]string{"a.go": "package a\n\n// Doc.\n" + long("f", maxFunction)}, nil},
		{"a line more", map[string]string{"a.go": "package a\n\n// Doc.\n" + long("f", maxFunction+1)}, []string{"a.go:4: f has 101 lines, at most 100…"}},
	})
	try(t, functionQuantiles, []breach{
		{"no function", map[string]string{"a.go": "package a\n"}, nil},
		{"a long one among ten", map[string]string{"a.go": "package a\n" + long("f", 41) + strings.Repeat(long("g", 3), 10)}, nil},
		{"two long ones among ten", map[string]string{"a.go": "package a\n" + strings.Repeat(long("f", 41), 2) + strings.Repeat(long("g", 3), 8)}, []string{
			"functions have 3 lines in the median and 41 at the 90th percentile…",
		}},
		{"none long, all middling", map[string]string{"a.go": "package a\n" + strings.Repeat(long("f", 13), 10)}, []string{
			"functions have 13 lines in the median and 13 at…",
		}},
	})
}
