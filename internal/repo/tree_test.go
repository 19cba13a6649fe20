package repo

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tree is what the rules look at: every file that is or could be committed.
type tree struct {
	fset  *token.FileSet
	files []*source         // Go, by path, for every platform; without testdata
	texts map[string]string // all text files by path, Go included
}

// source is one Go file.
type source struct {
	path string // from the root of the repository, with slashes
	dir  string // of path, which is the import path without the module
	test bool
	ast  *ast.File
}

// load reads the tree below the root of fsys. It leaves out .git, which is a file
// in a second work tree, what .gitignore names, and files that are not text.
func load(fsys fs.FS) (*tree, error) {
	skip, err := ignoreFile(fsys)
	if err != nil {
		return nil, err
	}
	tr := &tree{fset: token.NewFileSet(), texts: make(map[string]string)}
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (p == ".git" || ignored(skip, p, true)):
			return fs.SkipDir
		case p == ".git" || !d.Type().IsRegular() || ignored(skip, p, false):
			return nil
		}
		return tr.add(fsys, p)
	})
	return tr, err
}

func (tr *tree) add(fsys fs.FS, p string) error {
	text, err := fs.ReadFile(fsys, p)
	if err != nil {
		return fmt.Errorf("read %s: %w", p, err)
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil
	}
	tr.texts[p] = string(text)
	if path.Ext(p) != ".go" || strings.Contains("/"+p, "/testdata/") {
		return nil
	}
	parsed, err := parser.ParseFile(tr.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse %s: %w", p, err)
	}
	tr.files = append(tr.files, &source{
		path: p,
		dir:  path.Dir(p),
		test: strings.HasSuffix(p, "_test.go"),
		ast:  parsed,
	})
	return nil
}

// ignoreFile returns the patterns of .gitignore, which may be missing.
func ignoreFile(fsys fs.FS) ([]string, error) {
	text, err := fs.ReadFile(fsys, ".gitignore")
	if err != nil {
		return nil, nil
	}
	var patterns []string
	for line := range strings.Lines(string(text)) {
		pattern := strings.TrimSpace(line)
		if pattern == "" || pattern[0] == '#' {
			continue
		}
		inner := strings.Trim(pattern, "/")
		rooted := pattern[0] == '/'
		if pattern[0] == '!' || strings.Contains(pattern, "**") || strings.Contains(inner, "/") && !rooted {
			return nil, fmt.Errorf(".gitignore: these tests do not know patterns like %q: teach function ignored, or write it as /path or *.suffix", pattern)
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

// ignored reports whether one of the patterns of a .gitignore names p.
func ignored(patterns []string, p string, dir bool) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		pattern, folder := strings.CutSuffix(pattern, "/")
		whole, rooted := strings.CutPrefix(pattern, "/")
		name := path.Base(p)
		if rooted {
			name = p
		}
		match, _ := path.Match(whole, name)
		return match && (dir || !folder)
	})
}

// at writes a finding about the place pos.
func (tr *tree) at(pos token.Pos, format string, args ...any) string {
	p := tr.fset.Position(pos)
	return found(p.Filename, p.Line, format, args...)
}

func found(file string, line int, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", file, line) + fmt.Sprintf(format, args...)
}

// code returns the Go files that go into the program.
func (tr *tree) code() []*source {
	return slices.DeleteFunc(slices.Clone(tr.files), func(f *source) bool { return f.test })
}

// sorted returns the text files in the order of their paths.
func (tr *tree) sorted() []string { return slices.Sorted(maps.Keys(tr.texts)) }

// functions returns the top-level functions and methods of f.
func (f *source) functions() []*ast.FuncDecl {
	var fns []*ast.FuncDecl
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			fns = append(fns, fn)
		}
	}
	return fns
}

// imported returns the name by which f knows the package with that import
// path, or "" if it does not import it.
func (f *source) imported(importPath string) string {
	for _, spec := range f.ast.Imports {
		switch p, _ := strconv.Unquote(spec.Path.Value); {
		case p != importPath:
		case spec.Name != nil:
			return spec.Name.Name
		default:
			return path.Base(p)
		}
	}
	return ""
}

// uses returns where, below n, f mentions one of the names of a package.
func (f *source) uses(n ast.Node, importPath string, names ...string) []*ast.SelectorExpr {
	pkg := f.imported(importPath)
	if pkg == "" {
		return nil
	}
	var uses []*ast.SelectorExpr
	ast.Inspect(n, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, sel.Sel.Name) {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
				uses = append(uses, sel)
			}
		}
		return true
	})
	return uses
}
