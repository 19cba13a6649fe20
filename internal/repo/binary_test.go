package repo

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// lookup is what the linker calls a function that looks methods up by name, or
// by a number that it cannot know.
var lookup = regexp.MustCompile(`(?m)^(\S+) <ReflectMethod> ->`)

// A program that looks methods up by name has to keep all methods, and a tenth
// more memory: see docs/adr/0027.
func TestNoMethodIsLookedUpByName(t *testing.T) {
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(t.TempDir(), "gateway"), "-ldflags=-dumpdep", "./cmd/gateway")
	build.Dir = "../.."
	dependencies, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", build, err, dependencies)
	}
	if len(dependencies) < 1<<20 {
		t.Fatalf("%v lists few dependencies:\n%s", build, dependencies)
	}
	var names []string
	for _, m := range lookup.FindAllSubmatch(dependencies, -1) {
		names = append(names, string(m[1]))
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		t.Errorf("%s looks methods up, so that the linker keeps all", name)
	}
}
