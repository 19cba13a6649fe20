package repo

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// root is where the repository begins, seen from this package.
const root = "../.."

// rules is every rule, named by what holds when it is kept.
var rules = []struct {
	name  string
	check func(*tree) []string
}{
	{"packages import what the table allows", imports},
	{"modules stay in their place", thirdParty},
	{"package log is not used", stdLog},
	{"every package has one comment", comments},
	{"files are short", fileSizes},
	{"functions are short", functionSizes},
	{"most functions are tiny", functionQuantiles},
	{"nothing runs at package initialization", inits},
	{"nothing sleeps in real time", sleeps},
	{"skipped tests say why", skips},
	{"only commands print and exit", prints},
	{"constructors start nothing", constructors},
	{"nothing is left for later", leftovers},
	{"no file tells where it was made", origins},
	{"documents that are named exist", documents},
	{"the index of decisions is complete", decisions},
}

func TestRepository(t *testing.T) {
	tr, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) == 0 || tr.texts["go.mod"] == "" {
		t.Fatalf("%s is not the repository: it has %d Go files", root, len(tr.files))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(tr) {
				t.Error(f)
			}
		})
	}
}

// breach is a small tree and what a rule finds in it; an … stands for any words.
type breach struct {
	name  string
	files map[string]string
	want  []string
}

// try runs a rule over the made-up trees.
func try(t *testing.T, rule func(*tree) []string, cases []breach) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := rule(tiny(t, c.files))
			if !slices.EqualFunc(got, c.want, matches) {
				t.Errorf("found\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(c.want, "\n\t"))
			}
		})
	}
}

func matches(got, want string) bool {
	parts := strings.Split(want, "…")
	for i, part := range parts {
		at := strings.Index(got, part)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		got = got[at+len(part):]
	}
	return got == "" || parts[len(parts)-1] == ""
}

// tiny makes a tree of the files by path.
func tiny(t *testing.T, files map[string]string) *tree {
	t.Helper()
	fsys := make(fstest.MapFS)
	for p, text := range files {
		fsys[p] = &fstest.MapFile{Data: []byte(text)}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTreeHasWhatIsCommitted(t *testing.T) {
	tr := tiny(t, map[string]string{
		".gitignore":            "# products\n/build/\n*.out\n/tool\n",
		".git/config":           "x",
		"build/a.go":            "package a",
		"cmd/build/a.go":        "package a",
		"cmd/tool/a_windows.go": "package a",
		"cmd/testdata/bad.go":   "no Go",
		"cover.out":             "x",
		"tool":                  "x",
		"logo.png":              "\x89PNG\x00",
	})
	want := []string{".gitignore", "cmd/build/a.go", "cmd/testdata/bad.go", "cmd/tool/a_windows.go"}
	if got := tr.sorted(); !slices.Equal(got, want) {
		t.Errorf("texts are %q, want %q", got, want)
	}
	if len(tr.files) != 2 {
		t.Errorf("%d Go files, want the two outside testdata", len(tr.files))
	}
}

func TestTreeRefusesWhatItCannotRead(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"broken Go":           {"a.go": {Data: []byte("package")}},
		"a negated pattern":   {".gitignore": {Data: []byte("!x")}},
		"a pattern of levels": {".gitignore": {Data: []byte("a/b")}},
	} {
		if _, err := load(files); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
