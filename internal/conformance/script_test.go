package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// script is a conversation with the broker.
type script struct {
	name   string
	runs   []version // in which it is held
	covers map[version][]string
	steps  []step
}

// step is a line of it.
type step struct {
	at    string // file and line
	only5 bool
	only3 bool
	who   string // a client; "": the broker or the clock
	verb  string
	rest  string
}

// in reports whether the step is done in a version.
func (s step) in(v version) bool {
	return !(s.only5 && v != v5) && !(s.only3 && v == v5)
}

// scripts reads all of them.
func scripts(t *testing.T) []*script {
	t.Helper()
	paths, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var all []*script
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			at := fmt.Sprintf("%s:%d", filepath.Base(path), n)
			if all, err = read(all, line, at); err != nil {
				t.Fatalf("%s: %v", at, err)
			}
		}
	}
	return all
}

// read takes one line.
func read(all []*script, line, at string) ([]*script, error) {
	text := strings.TrimSpace(line)
	switch {
	case text == "" || text[0] == '#':
		return all, nil
	case line[0] != ' ':
		return append(all, &script{name: text, covers: make(map[version][]string)}), nil
	case len(all) == 0:
		return nil, fmt.Errorf("a step before the first script")
	}
	s := all[len(all)-1]
	if v, ids, found := strings.Cut(text, ":"); found && slices.Contains([]version{v31, v311, v5}, version(v)) {
		s.runs = append(s.runs, version(v))
		s.covers[version(v)] = strings.Fields(ids)
		return all, nil
	}
	st := step{at: at}
	text, st.only5 = strings.CutPrefix(text, "5|")
	text, st.only3 = strings.CutPrefix(text, "4|")
	st.split(strings.Fields(text))
	s.steps = append(s.steps, st)
	return all, nil
}

// split finds out who does what.
func (s *step) split(words []string) {
	if slices.Contains([]string{"wait", "restart", "limit"}, words[0]) {
		words = slices.Insert(words, 0, "")
	}
	words = append(words, "", "")
	s.who, s.verb, s.rest = words[0], words[1], strings.TrimSpace(strings.Join(words[2:], " "))
}

func TestScriptsAreSound(t *testing.T) {
	all := known(t)
	names := make(map[string]bool)
	for _, s := range scripts(t) {
		if len(s.runs) == 0 || len(s.steps) == 0 || names[s.name] {
			t.Errorf("%q: there twice, or without versions or steps", s.name)
		}
		names[s.name] = true
		for v, ids := range s.covers {
			for _, id := range ids {
				if v != v31 && !all[duty{v, id}] {
					t.Errorf("%q covers %s, which is no statement of MQTT %s", s.name, id, v)
				}
			}
			if (v == v31) != (len(ids) == 0) {
				t.Errorf("%q says nothing about MQTT %s", s.name, v)
			}
		}
	}
}
