package repo

import (
	"path"
	"regexp"
	"strings"
	"testing"
)

// The expressions below are written so that they do not match themselves.
var (
	later = regexp.MustCompile(`\b(?:TO[D]O|FIX[M]E)\b`)

	// origin matches what only somebody at the machine where a file was made can
	// make sense of: paths of home and build folders, the hosts that packages
	// came from, and talk about how the work was handed out.
	origin = regexp.MustCompile(`(?:^|[\s"'\x60=(:])/(?:root|work|home/[^/\s]+|Users/[^/\s]+|tmp/[^/\s]+)/` +
		`|\b(?:proxy|sum)\.golang\.or[g]\b|\bdeb\.debian\.or[g]\b|\bGOPROX[Y]=` +
		`|(?i:\bthe (?:brie[f]|lea[d]) (?:asks|decides|demands|says|wants|will|writes)\b|\bsub-?agent[s]?\b)`)

	link  = regexp.MustCompile(`\]\(([^)\s#]+)(?:#[^)\s]*)?\)`)
	named = regexp.MustCompile(`\b[A-Z]{4,}\.md\b`)

	decision = regexp.MustCompile(`^docs/adr/\d{4}-[a-z0-9-]+\.md$`)
)

// leftovers finds work that was put off: it belongs into an issue.
func leftovers(tr *tree) []string {
	return tr.grep(later, "%q puts work off: do it, or open an issue")
}

// origins finds words that say where a file was made.
func origins(tr *tree) []string {
	return tr.grep(origin, "%q says where this was made, and means nothing elsewhere")
}

// grep finds the lines of all text files that match. The format gets the match.
func (tr *tree) grep(re *regexp.Regexp, format string) []string {
	var bad []string
	for _, p := range tr.sorted() {
		n := 0
		for line := range strings.Lines(tr.texts[p]) {
			n++
			if m := re.FindString(line); m != "" {
				bad = append(bad, found(p, n, format, strings.TrimSpace(m)))
			}
		}
	}
	return bad
}

// documents finds links to files, and names of documents such as README.md,
// that are not in the repository.
func documents(tr *tree) []string {
	var bad []string
	for _, p := range tr.sorted() {
		n := 0
		for line := range strings.Lines(tr.texts[p]) {
			n++
			for _, name := range tr.missing(p, line) {
				bad = append(bad, found(p, n, "there is no %s", name))
			}
		}
	}
	return bad
}

// missing returns what a line of file p names that does not exist. Links are
// read in Markdown only.
func (tr *tree) missing(p, line string) []string {
	var missing []string
	if path.Ext(p) == ".md" {
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			if !strings.Contains(m[1], ":") && !tr.exists(path.Join(path.Dir(p), m[1])) {
				missing = append(missing, m[1])
			}
		}
	}
	for _, name := range named.FindAllString(line, -1) {
		beside := path.Join(path.Dir(p), name)
		if !tr.exists(name) && !tr.exists(path.Join("docs", name)) && !tr.exists(beside) {
			missing = append(missing, name)
		}
	}
	return missing
}

// exists reports whether p is a text file or a folder with one.
func (tr *tree) exists(p string) bool {
	if _, ok := tr.texts[p]; ok {
		return true
	}
	for file := range tr.texts {
		if strings.HasPrefix(file, p+"/") {
			return true
		}
	}
	return false
}

// decisions finds decision records that the index does not list, and files
// beside it that are none.
func decisions(tr *tree) []string {
	index := tr.texts["docs/adr/README.md"]
	var bad []string
	for _, p := range tr.sorted() {
		name := path.Base(p)
		switch {
		case path.Dir(p) != "docs/adr", name == "README.md":
		case !decision.MatchString(p):
			bad = append(bad, found(p, 1, "a decision record is named as in 0001-one-queue.md"))
		case !strings.Contains(index, "]("+name+")"):
			bad = append(bad, found(p, 1, "docs/adr/README.md does not list it"))
		}
	}
	return bad
}

func TestLeftoversBreaches(t *testing.T) {
	try(t, leftovers, []breach{
		{"inside words", map[string]string{"a.sh": "mktemp XXXXXX; MASTO" + "DON"}, nil},
		{"in any text", map[string]string{"a.go": "package a\n// TO" + "DO: x\n", "b.yaml": "# FIX" + "ME"}, []string{
			"a.go:2: \"TO" + "DO\" puts work off…", "b.yaml:1: \"FIX" + "ME\" puts work off…",
		}},
	})
}

func TestOriginsBreaches(t *testing.T) {
	try(t, origins, []breach{
		{"paths that every machine has, and words alike", map[string]string{
			"a.md": "/var/lib/tidegate /tmp/x /homes/ example.org" + "/work" + "/x a/root/b in brief, the brief outage, the lead of the sensor",
		}, nil},
		{"paths", map[string]string{"a.md": "see /ro" + "ot/x\n`/wo" + "rk/main`\n\"/ho" + "me/me/x\"\n/tm" + "p/mine/x\n"}, []string{
			"a.md:1: \"/ro" + "ot/\" says where…", "a.md:2: …", "a.md:3: …", "a.md:4: …",
		}},
		{"hosts", map[string]string{"a.sh": "GOPROX" + "Y=x\n", "b.md": "https://proxy.golang.or" + "g/x"}, []string{"a.sh:1: …", "b.md:1: …"}},
		{"who said so", map[string]string{"a.go": "package a\n// As the brie" + "f demands.\n// What the lea" + "d wants.\n"}, []string{"a.go:2: …", "a.go:3: …"}},
	})
}

func TestDocumentsBreaches(t *testing.T) {
	const guide, layout = "GUIDE" + ".md", "LAYOUT" + ".md"
	try(t, documents, []breach{
		{"what is there", map[string]string{
			guide:            "[a](docs/format.md#bytes) [b](docs) [c](https://example.org/x.md) [d](#here) " + guide,
			"docs/format.md": "[up](../" + guide + ") " + guide,
			"docs/" + layout: "",
			"a/" + layout:    "",
			"a/a.go":         "package a // see " + layout + "; m[k](v)",
			"b.sh":           "# " + layout,
		}, nil},
		{"what is not", map[string]string{
			"docs/a.md": "[a](b.md)\n[x](../docs/c.md#d)\n" + guide,
			"z.sh":      "# " + guide + " [a](b.md)",
		}, []string{
			"docs/a.md:1: there is no b.md", "docs/a.md:2: there is no ../docs/c.md",
			"docs/a.md:3: there is no " + guide, "z.sh:1: there is no " + guide,
		}},
	})
}

func TestDecisionsBreaches(t *testing.T) {
	try(t, decisions, []breach{
		{"listed", map[string]string{"docs/adr/README.md": "| [x](0001-x.md) |", "docs/adr/0001-x.md": ""}, nil},
		{"not listed, and badly named", map[string]string{"docs/adr/README.md": "", "docs/adr/0001-x.md": "", "docs/adr/other.md": ""}, []string{
			"docs/adr/0001-x.md:1: docs/adr/README.md does not list it", "docs/adr/other.md:1: a decision record is named…",
		}},
	})
}
