package repo

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// inits finds init functions: what runs is started by somebody who can be read.
func inits(tr *tree) []string {
	var bad []string
	for _, f := range tr.files {
		for _, fn := range f.functions() {
			if fn.Recv == nil && fn.Name.Name == "init" {
				bad = append(bad, tr.at(fn.Pos(), "init runs unasked: use a constructor, or a literal"))
			}
		}
	}
	return bad
}

// sleeps finds time.Sleep. The program waits with a timer and a context. Tests
// wait for an event, or sleep inside a testing/synctest bubble, where it costs
// nothing; their helpers may if the file has bubbles at all.
func sleeps(tr *tree) []string {
	var bad []string
	for _, f := range tr.files {
		for _, decl := range f.ast.Decls {
			for _, sleep := range f.uses(decl, "time", "Sleep") {
				switch {
				case !f.test:
					bad = append(bad, tr.at(sleep.Pos(), "a sleep cannot be stopped: wait for a timer or the context"))
				case !f.virtual(decl, sleep.Pos()):
					bad = append(bad, tr.at(sleep.Pos(), "a sleep in real time is slow or flaky: wait for an event, or use testing/synctest"))
				}
			}
		}
	}
	return bad
}

// virtual reports whether pos, in a declaration of a test file, is in virtual
// time as far as its text tells: a helper is if the file has bubbles, a function
// literal if the test around it has one.
func (f *source) virtual(decl ast.Decl, pos token.Pos) bool {
	fn, ok := decl.(*ast.FuncDecl)
	if !ok || !entry.MatchString(fn.Name.Name) {
		return f.imported("testing/synctest") != ""
	}
	return within(decl, pos) && len(f.uses(decl, "testing/synctest", "Test")) > 0
}

// within reports whether pos is in a function literal of decl.
func within(decl ast.Decl, pos token.Pos) bool {
	inside := false
	ast.Inspect(decl, func(n ast.Node) bool {
		if lit, ok := n.(*ast.FuncLit); ok && lit.Pos() <= pos && pos < lit.End() {
			inside = true
		}
		return !inside
	})
	return inside
}

// entry matches the functions that go test calls itself.
var entry = regexp.MustCompile(`^(Test|Benchmark|Fuzz|Example)([^a-z]|$)`)

// skips finds tests that are skipped without a reason.
func skips(tr *tree) []string {
	var bad []string
	for _, f := range tr.files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && silentSkip(call) {
				bad = append(bad, tr.at(call.Pos(), "the test is skipped without a reason: t.Skip(\"needs …\")"))
			}
			return true
		})
	}
	return bad
}

func silentSkip(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	if x, ok := sel.X.(*ast.Ident); !ok || !slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) {
		return false
	}
	switch sel.Sel.Name {
	case "SkipNow":
		return true
	case "Skip", "Skipf":
		return len(call.Args) == 0 || isEmptyString(call.Args[0])
	}
	return false
}

func isEmptyString(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING && strings.Trim(lit.Value, "\"` ") == ""
}

// prints finds code outside the commands that writes to the terminal or ends
// the process. Tests may: a re-executed test binary does both.
func prints(tr *tree) []string {
	var bad []string
	for _, f := range tr.code() {
		if strings.HasPrefix(f.dir, "cmd/") {
			continue
		}
		for _, use := range f.uses(f.ast, "fmt", "Print", "Printf", "Println") {
			bad = append(bad, tr.at(use.Pos(), "only commands print: return the text, or log it"))
		}
		for _, use := range f.uses(f.ast, "os", "Exit") {
			bad = append(bad, tr.at(use.Pos(), "only commands exit: return an error"))
		}
	}
	return bad
}

// constructors finds goroutines and timers that a constructor starts itself.
// Run or Serve starts them, and joins them.
func constructors(tr *tree) []string {
	var bad []string
	for _, f := range tr.code() {
		for _, fn := range f.functions() {
			if fn.Body != nil && constructor.MatchString(fn.Name.Name) {
				for _, pos := range f.starts(fn.Body) {
					bad = append(bad, tr.at(pos, "%s starts something: constructors only construct, Run or Serve starts and joins", fn.Name.Name))
				}
			}
		}
	}
	return bad
}

// constructor matches the names of functions that make or open something.
var constructor = regexp.MustCompile(`^(New|Open)([^a-z]|$)`)

// starts returns where body starts a goroutine: by a go statement, by the Go
// of a group, or by a timer with a function.
func (f *source) starts(body *ast.BlockStmt) []token.Pos {
	var starts []token.Pos
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			starts = append(starts, n.Pos())
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" {
				starts = append(starts, n.Pos())
			}
		}
		return true
	})
	for _, use := range f.uses(body, "time", "AfterFunc") {
		starts = append(starts, use.Pos())
	}
	return starts
}

func TestInitsBreaches(t *testing.T) {
	try(t, inits, []breach{
		{"a method named init", map[string]string{"a.go": "package a\ntype t int\nfunc (t) init() {}\nfunc initAll() {}"}, nil},
		{"a function", map[string]string{"a_test.go": "package a\n\nfunc init() {}"}, []string{"a_test.go:3: init runs unasked…"}},
	})
}

func TestSleepsBreaches(t *testing.T) {
	bubbles := "package a\nimport (\"testing\"; \"testing/synctest\"; \"time\")\n"
	try(t, sleeps, []breach{
		{"in a bubble, and in a helper of one", map[string]string{"a_test.go": bubbles +
			"func TestX(t *testing.T) { synctest.Test(t, func(*testing.T) { pass() }) }\n" +
			"func FuzzX(f *testing.F) { f.Fuzz(func(t *testing.T) { synctest.Test(t, func(*testing.T) { time.Sleep(1) }) }) }\n" +
			"func TestTable(t *testing.T) { slow := func() { time.Sleep(1) }; synctest.Test(t, func(*testing.T) { slow() }) }\n" +
			"func pass() { time.Sleep(1) }\n"}, nil},
		{"another Sleep", map[string]string{"a.go": "package a\nimport \"x.org/time\"\nfunc f() { clock.Sleep() }"}, nil},
		{"in the program", map[string]string{"a.go": "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }"}, []string{
			"a.go:3: a sleep cannot be stopped…",
		}},
		{"as a value, and under another name", map[string]string{"a.go": "package a\nimport clock \"time\"\nvar sleep = clock.Sleep"}, []string{
			"a.go:3: a sleep cannot be stopped…",
		}},
		{"in a test beside its bubble", map[string]string{"a_test.go": bubbles +
			"func TestX(t *testing.T) {\nsynctest.Test(t, nil)\ntime.Sleep(1)\n}\n"}, []string{
			"a_test.go:5: a sleep in real time…",
		}},
		{"in a literal of a test without a bubble", map[string]string{"a_test.go": bubbles +
			"func TestX(t *testing.T) { t.Run(\"\", func(*testing.T) { time.Sleep(1) }) }\n"}, []string{
			"a_test.go:3: a sleep in real time…",
		}},
		{"in a helper where no bubble is", map[string]string{"a_test.go": "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }"}, []string{
			"a_test.go:3: a sleep in real time…",
		}},
	})
}

func TestSkipsBreaches(t *testing.T) {
	try(t, skips, []breach{
		{"with a reason", map[string]string{"a_test.go": "package a\nfunc f(t T, err error) { t.Skip(\"needs x\"); t.Skipf(\"%v\", err); t.Skip(err) }"}, nil},
		{"skipping something else", map[string]string{"a.go": "package a\nfunc f(d D) { d.Skip() }"}, nil},
		{"without one", map[string]string{"a_test.go": "package a\nfunc f(t T) {\nt.Skip()\nt.SkipNow()\nt.Skip(\"\")\n}"}, []string{
			"a_test.go:3: the test is skipped…", "a_test.go:4: …", "a_test.go:5: …",
		}},
	})
}

func TestPrintsBreaches(t *testing.T) {
	text := "package a\nimport (\"fmt\"; \"os\")\nfunc f() {\nfmt.Println()\nfmt.Fprintln(os.Stdout)\nos.Exit(1)\n}"
	try(t, prints, []breach{
		{"in a command and in tests", map[string]string{"cmd/x/a.go": text, "a/a_test.go": text}, nil},
		{"elsewhere", map[string]string{"a/a.go": text}, []string{"a/a.go:4: only commands print…", "a/a.go:6: only commands exit…"}},
	})
}

func TestConstructorsBreaches(t *testing.T) {
	try(t, constructors, []breach{
		{"goroutines elsewhere", map[string]string{
			"a.go":      "package a\nfunc Run() { go f() }\nfunc Newest() { go f() }\nfunc New() { f() }",
			"a_test.go": "package a\nfunc NewRig() { go f() }",
		}, nil},
		{"a go statement", map[string]string{"a.go": "package a\nfunc New() {\nif x {\ngo f()\n}\n}"}, []string{"a.go:4: New starts something…"}},
		{"a method, a group, a timer", map[string]string{"a.go": "package a\nimport \"time\"\nfunc (b B) OpenInbox() {\nb.wg.Go(f)\ntime.AfterFunc(1, f)\n}"}, []string{
			"a.go:4: OpenInbox starts something…", "a.go:5: OpenInbox starts something…",
		}},
	})
}
