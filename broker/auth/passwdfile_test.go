package auth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// fileOf writes a password file and returns its path.
func fileOf(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

func read1(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// alone fails if anything but the password file is in its folder.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) > 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}

func TestSetPasswordMakesAFileForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	for _, password := range []string{"one", "two", "\x00\xff\n:$"} {
		if err := SetPassword(path, "alice", []byte(password)); err != nil {
			t.Fatal(err)
		}
		p, err := LoadPasswords(path)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Verify("alice", []byte(password)) || p.Verify("alice", []byte("three")) || len(p.users) != 1 {
			t.Errorf("%q cannot be verified", password)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	if line := regexp.MustCompile(`^alice:\$7\$5000\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}==\n$`); !line.MatchString(read1(t, path)) {
		t.Errorf("the line is %q", read1(t, path))
	}
	alone(t, path)
}

func TestEveryOtherLineStaysAsItIs(t *testing.T) {
	before := "# first\r\n\n  \t\nalice:plain\nbob:x\r\n#carol:y\nwhat is this\nalice:twice\nlast:z"
	path := fileOf(t, before, 0o640)
	for _, user := range []string{"alice", "carol"} {
		if err := SetPassword(path, user, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	masked := regexp.MustCompile(`\$7\$[^\n]*`).ReplaceAllString(read1(t, path), "HASH")
	if want := "# first\r\n\n  \t\nalice:HASH\nbob:x\r\n#carol:y\nwhat is this\nlast:z\ncarol:HASH\n"; masked != want {
		t.Errorf("got\n%q, want\n%q", masked, want)
	}
	for _, user := range []string{"alice", "bob", "carol"} {
		if err := DeleteUser(path, user); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := read1(t, path), "# first\r\n\n  \t\n#carol:y\nwhat is this\nlast:z\n"; got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	alone(t, path)
}

func TestDeleteNobody(t *testing.T) {
	path := fileOf(t, "#alice:x\nbob:y", 0o600)
	for _, file := range []string{path, filepath.Join(t.TempDir(), "none")} {
		if err := DeleteUser(file, "alice"); !errors.Is(err, ErrNoUser) || !strings.Contains(err.Error(), file) {
			t.Errorf("got %v", err)
		}
	}
	if got := read1(t, path); got != "#alice:x\nbob:y" {
		t.Errorf("the file is now %q", got)
	}
	alone(t, path)
}

func TestALinkStaysALink(t *testing.T) {
	path := fileOf(t, "", 0o600)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := SetPassword(link, "alice", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != path || !strings.HasPrefix(read1(t, path), "alice:") {
		t.Errorf("the link leads to %q, %v, where %q is", target, err, read1(t, path))
	}
}

func TestWhatCannotBeSet(t *testing.T) {
	for user, want := range map[string]string{
		"":                       "the user name is empty",
		"a:b":                    "has a colon",
		"a\nb":                   "no text",
		"a\rb":                   "no text",
		"a\x00":                  "no text",
		"a\xff":                  "no text",
		"#a":                     "begins with #",
		" a":                     "begins or ends with a blank",
		"a ":                     "begins or ends with a blank",
		strings.Repeat("u", 1e5): "100000 bytes, at most 65535",
	} {
		path := fileOf(t, "", 0o600)
		for what, err := range map[string]error{"SetPassword": SetPassword(path, user, []byte("x")), "DeleteUser": DeleteUser(path, user)} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %.10q: %v, want %q", what, user, err, want)
			}
		}
	}
	path := fileOf(t, "", 0o600)
	if err := SetPassword(path, "a", nil); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("got %v", err)
	}
	if err := SetPassword(path, "a", make([]byte, maxPassword+1)); err == nil || !strings.Contains(err.Error(), "at most 65535") {
		t.Errorf("got %v", err)
	}
	if err := SetPassword(t.TempDir(), "a", []byte("x")); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("got %v", err)
	}
	if err := SetPassword(filepath.Join(t.TempDir(), "no", "passwd"), "a", []byte("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// What was written aside goes if it cannot take the place of the file.
func TestNothingIsLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := replace(dir, path, nil, []byte("x")); err == nil || !strings.Contains(err.Error(), "replace the password file") {
		t.Errorf("got %v", err)
	}
	alone(t, path)
}

// No change is lost when several programs make one at the same time.
func TestWritersTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if err := SetPassword(path, fmt.Sprintf("user%d", i), []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	p, err := LoadPasswords(path)
	if err != nil || len(p.users) != 16 {
		t.Errorf("%v:\n%s", err, read1(t, path))
	}
	alone(t, path)
}
