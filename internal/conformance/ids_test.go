package conformance

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mention is a statement named in a source.
var mention = regexp.MustCompile(`MQTT-(\d+\.\d+\.\d+-\d+)`)

// Every statement that a Go source names exists in one of the standards.
func TestNamedStatementsExist(t *testing.T) {
	all, found := known(t), 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range mention.FindAllStringSubmatch(string(text), -1) {
			found++
			if !all[duty{v311, m[1]}] && !all[duty{v5, m[1]}] {
				t.Errorf("%s names %s, which no standard has", path, m[0])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no source names a statement: the test looks in the wrong place")
	}
}
