package conformance

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/conformance.md instead of comparing")

// document is where the rows stand for people to read.
const document = root + "/docs/conformance.md"

// ledger is what the tests have shown about each statement.
type ledger struct {
	scripts []*script
	held    map[string]bool // by name and version; missing: not run
	refs    map[duty][]reference
	passed  map[reference]bool // nil: go test says it elsewhere
	waiting map[duty]string    // why a statement cannot be covered yet
}

func newLedger(t *testing.T) *ledger {
	l := &ledger{scripts: scripts(t), held: make(map[string]bool), refs: references(t), waiting: waiting(t)}
	if *update {
		l.passed = runReferences(t, l.refs)
	}
	return l
}

// waiting reads the list of what cannot be covered yet.
func waiting(t *testing.T) map[duty]string {
	all, left := known(t), make(map[duty]string)
	for _, line := range lines(t, "testdata/not-yet.txt") {
		parts := strings.SplitN(line, " | ", 3)
		if len(parts) != 3 || !all[duty{version(parts[0]), parts[1]}] {
			t.Fatalf("testdata/not-yet.txt: %q is not: version | number | why", line)
		}
		left[duty{version(parts[0]), parts[1]}] = parts[2]
	}
	return left
}

// note keeps how a script ended.
func (l *ledger) note(s *script, v version, held bool) { l.held[key(s, v)] = held }

func key(s *script, v version) string { return s.name + "\n" + string(v) }

// row is a line of the document about a statement; whole says whether all of its
// tests have been run.
func (l *ledger) row(t *testing.T, v version, s statement) (line string, whole bool) {
	d := duty{v, s.id}
	tests, result, whole := l.tests(d)
	switch {
	case len(tests) > 0 && (s.not != "" || l.waiting[d] != ""):
		t.Errorf("%s has tests, and a reason why it has none", d)
	case len(tests) > 0:
	case s.not != "":
		tests, result = []string{s.not}, "not applicable"
	case l.waiting[d] != "":
		tests, result = []string{l.waiting[d]}, "not yet"
	default:
		t.Errorf("%s has no test and no reason: %s", d, s.ask)
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", s.id, s.who, s.ask, strings.Join(tests, "; "), result), whole
}

// tests returns the tests of a statement and how they ended.
func (l *ledger) tests(d duty) (names []string, result string, whole bool) {
	result, whole = "pass", true
	for _, s := range l.scripts {
		if !covers(s, d) {
			continue
		}
		held, run := l.held[key(s, d.version)]
		names, whole = append(names, s.name), whole && run
		if run && !held {
			result = "FAIL"
		}
	}
	for _, r := range l.refs[d] {
		names = append(names, "`"+r.String()+"`")
		if l.passed != nil && !l.passed[r] {
			result = "FAIL"
		}
	}
	return names, result, whole
}

func covers(s *script, d duty) bool {
	for _, id := range s.covers[d.version] {
		if id == d.id {
			return true
		}
	}
	return false
}

// compare holds the document against the ledger, or writes it. It needs all
// scripts to have been run, and to have held: if not, that is told already.
func (l *ledger) compare(t *testing.T) {
	text, whole := l.text(t)
	switch {
	case !whole:
		t.Log("docs/conformance.md is not compared: not all scripts were run")
		return
	case *update:
		if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	old, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != text && !t.Failed() {
		t.Error("docs/conformance.md is stale; run: go test ./internal/conformance -update")
	}
}

// text is the document.
func (l *ledger) text(t *testing.T) (text string, whole bool) {
	var b strings.Builder
	whole = true
	b.WriteString(preface)
	for _, v := range standards {
		count := make(map[string]int)
		var rows strings.Builder
		for _, s := range statements(t, v) {
			line, all := l.row(t, v, s)
			rows.WriteString(line)
			cells := strings.Split(line, " | ")
			count[strings.TrimSuffix(cells[len(cells)-1], " |\n")]++
			whole = whole && all
		}
		fmt.Fprintf(&b, "\n## MQTT %s\n\n%s\n\n", v, summary(count))
		b.WriteString("| statement | binds | what it asks | tests | result |\n| --- | --- | --- | --- | --- |\n" + rows.String())
	}
	b.WriteString("\n## MQTT 3.1\n\nIts text numbers no statements. These scripts speak it (`MQIsdp`):\n\n")
	for _, s := range l.scripts {
		if _, speaks := s.covers[v31]; speaks {
			held, run := l.held[key(s, v31)]
			whole = whole && run
			fmt.Fprintf(&b, "- %s: %s\n", s.name, map[bool]string{true: "pass", false: "FAIL"}[held])
		}
	}
	return b.String(), whole
}

// summary counts the results.
func summary(count map[string]int) string {
	total := 0
	var parts []string
	for _, result := range []string{"pass", "FAIL", "not yet", "not applicable"} {
		if n := count[result]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", result, n))
			total += n
		}
	}
	return fmt.Sprintf("%d statements: %s.", total, strings.Join(parts, ", "))
}

// preface is what stands before the rows.
const preface = `# Conformance

Every normative statement of MQTT 3.1.1 and of MQTT 5.0, what it asks in our words, and
what shows that the broker keeps it. Written by ` + "`go test ./internal/conformance -update`" + `, which
runs the tests; the ordinary run fails if a statement has no row or if this page is stale.

A test without a package is a conversation in internal/conformance/testdata/scripts, in bytes; one
with a package is a Go test. *binds* is whom the standard speaks to. Statements about clients,
senders and receivers have a test where the broker refuses what breaks them, or keeps them itself;
where it does neither the row says why it cannot, or need not.

What the scripts call a restart is an orderly one. If the gateway crashes, or power fails, the wills of the clients that are
connected at that moment are not published: a write for each CONNECT and DISCONNECT would be the price. Wills that are held back are.
`
