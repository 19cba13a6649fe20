package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is where the repository begins.
const root = "../.."

// reference is a Go test that covers statements.
type reference struct {
	folder string // "broker"
	test   string // "TestListenerWS"
}

func (r reference) String() string { return r.folder + "." + r.test }

// references reads which tests cover what.
func references(t *testing.T) map[duty][]reference {
	t.Helper()
	all := make(map[duty][]reference)
	for _, line := range lines(t, "testdata/references.txt") {
		words := strings.Fields(line)
		if len(words) < 4 {
			t.Fatalf("%q is not: folder test version numbers", line)
		}
		v := version(words[2])
		for _, id := range words[3:] {
			all[duty{v, id}] = append(all[duty{v, id}], reference{words[0], words[1]})
		}
	}
	return all
}

// folders returns the tests that are referred to, by folder.
func folders(refs map[duty][]reference) map[string][]string {
	tests := make(map[string][]string)
	for _, rs := range refs {
		for _, r := range rs {
			if !slices.Contains(tests[r.folder], r.test) {
				tests[r.folder] = append(tests[r.folder], r.test)
			}
		}
	}
	return tests
}

// A reference leads to a test that there is.
func TestReferencesLeadSomewhere(t *testing.T) {
	all := known(t)
	refs := references(t)
	for d := range refs {
		if !all[d] {
			t.Errorf("testdata/references.txt: there is no statement %s", d)
		}
	}
	for folder, tests := range folders(refs) {
		there := testsIn(t, folder)
		for _, test := range tests {
			if !there[test] {
				t.Errorf("testdata/references.txt: %s has no %s", folder, test)
			}
		}
	}
}

// testsIn returns the names of the tests in a folder.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}

// runReferences runs the tests that are referred to, and says which passed.
func runReferences(t *testing.T, refs map[duty][]reference) map[reference]bool {
	t.Helper()
	passed := make(map[reference]bool)
	for folder, tests := range folders(refs) {
		out, err := exec.Command("go", "test", "-json", "-run", "^("+strings.Join(tests, "|")+")$", "tidegate/"+folder).Output()
		if err != nil {
			t.Errorf("go test tidegate/%s: %v", folder, err)
		}
		for _, test := range passes(t, out) {
			passed[reference{folder, test}] = true
		}
	}
	return passed
}

// passes reads what go test -json says.
func passes(t *testing.T, out []byte) (tests []string) {
	t.Helper()
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		var e struct{ Action, Test string }
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Action == "pass" {
			tests = append(tests, e.Test)
		}
	}
	return tests
}
