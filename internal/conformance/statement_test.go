package conformance

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// statement is a normative statement of a standard.
type statement struct {
	id  string // "3.1.0-2"
	who string // both, server, client, sender or receiver
	ask string
	not string // why it does not apply; "": it does
}

// standards are those that number their statements, in the document's order.
var standards = []version{v311, v5}

// number is how a statement is numbered.
var number = regexp.MustCompile(`^\d+\.\d+\.\d+-\d+$`)

// statements reads the list of a standard.
func statements(t *testing.T, v version) []statement {
	t.Helper()
	var all []statement
	seen := make(map[string]bool)
	for _, line := range lines(t, "testdata/statements-"+string(v)+".txt") {
		parts := strings.Split(line, " | ")
		if len(parts) < 3 || len(parts) > 4 {
			t.Fatalf("%q is not: number | whom | what | why not", line)
		}
		s := statement{id: parts[0], who: parts[1], ask: parts[2]}
		if len(parts) == 4 {
			s.not = parts[3]
		}
		if !number.MatchString(s.id) || seen[s.id] {
			t.Errorf("%s: not a number, or there twice", s.id)
		}
		if !strings.Contains("both server client sender receiver", s.who) {
			t.Errorf("%s concerns %q", s.id, s.who)
		}
		seen[s.id] = true
		all = append(all, s)
	}
	return all
}

// lines returns a file's lines without comments and empty ones.
func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, " \n"); line != "" && line[0] != '#' {
			all = append(all, line)
		}
	}
	return all
}

// duty is a statement of one standard. MQTT 3.1 has no numbers.
type duty struct {
	version version
	id      string
}

func (d duty) String() string { return fmt.Sprintf("%s of MQTT %s", d.id, d.version) }

// known are all statements there are.
func known(t *testing.T) map[duty]bool {
	t.Helper()
	all := make(map[duty]bool)
	for _, v := range standards {
		for _, s := range statements(t, v) {
			all[duty{v, s.id}] = true
		}
	}
	return all
}

// The sizes of the lists are those of the standards' own appendices B.
func TestListsAreWhole(t *testing.T) {
	for v, want := range map[version]int{v311: 141, v5: 251} {
		if got := len(statements(t, v)); got != want {
			t.Errorf("MQTT %s has %d statements in the list, and %d in the standard", v, got, want)
		}
	}
}
