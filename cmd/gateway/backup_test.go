package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// backUp runs a backup that has to succeed.
func backUp(t *testing.T, s *site, file, state string) {
	t.Helper()
	code, out, errOut := call(t, "backup", "--data-dir", s.dir(), file)
	if code != exitDone || out != "" || !strings.HasSuffix(errOut, "of a gateway that is "+state+"\n") {
		t.Fatalf("backup ends with %d, prints %q and says %q", code, out, errOut)
	}
}

// untimed is what the first client is owed. Times are kept to a millisecond or two.
func untimed(t *testing.T, dir string) string {
	t.Helper()
	list := messagesOf(t, ok(t, "queue", "export", "first", "--data-dir", dir))
	for i := range list {
		list[i].Time = time.Time{}
	}
	return asJSON(t, list)
}

// What a gateway keeps is in its backup, running or stopped, and in a gateway that
// starts on what was restored.
func TestBackupAndRestore(t *testing.T) {
	s := newSite(t, nil)
	s.fill()
	want := untimed(t, s.dir())
	dir := t.TempDir()
	backUp(t, s, filepath.Join(dir, "running.tar"), "running")
	s.stop()
	backUp(t, s, filepath.Join(dir, "stopped.tar"), "stopped")
	for _, name := range []string{"running", "stopped"} {
		copied := filepath.Join(dir, name)
		out := ok(t, "restore", "--data-dir", copied, filepath.Join(dir, name+".tar"))
		if !strings.Contains(out, "records\n") {
			t.Errorf("restore says %q", out)
		}
		if have := untimed(t, copied); have != want {
			t.Errorf("%s: exported\n%s\nwant\n%s", name, have, want)
		}
		s.cfg.Gateway.DataDir = copied
		s.start()
		if have := untimed(t, copied); have != want {
			t.Errorf("%s: exported of the gateway\n%s\nwant\n%s", name, have, want)
		}
		if code, _, errOut := call(t, "restore", "--data-dir", copied, filepath.Join(dir, name+".tar")); code != exitFailed || !strings.Contains(errOut, "a gateway runs on") {
			t.Errorf("%s: restore over a running gateway ends with %d and says %q", name, code, errOut)
		}
		s.stop()
	}
}

func TestBackupOverPipes(t *testing.T) {
	s := newSite(t, nil)
	s.fill()
	code, archive, _ := call(t, "backup", "--data-dir", s.dir(), "-")
	if code != exitDone {
		t.Fatalf("backup ends with %d", code)
	}
	to := filepath.Join(t.TempDir(), "new")
	if code, _, errOut := callWith(t.Context(), archive[:len(archive)-2000], "restore", "--data-dir", to, "-"); code != exitFailed || !strings.Contains(errOut, "the archive cannot be used") {
		t.Errorf("a part of it: %d, %q", code, errOut)
	}
	if code, _, errOut := callWith(t.Context(), archive, "restore", "--data-dir", to, "-"); code != exitDone {
		t.Errorf("restore ends with %d and says %q", code, errOut)
	}
	if code, _, errOut := callWith(t.Context(), archive, "restore", "--data-dir", to, "-"); code != exitFailed || !strings.Contains(errOut, "it is not empty") {
		t.Errorf("again: %d, %q", code, errOut)
	}
}

func TestBackupChoosesNoBadPlace(t *testing.T) {
	s := newSite(t, nil)
	there := filepath.Join(t.TempDir(), "there.tar")
	if err := os.WriteFile(there, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		there:                             "is there already",
		filepath.Join(s.dir(), "new.tar"): "is in the data directory",
	} {
		if code, _, errOut := call(t, "backup", "--data-dir", s.dir(), file); code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("to %s: %d, %q", file, code, errOut)
		}
	}
	nowhere := filepath.Join(t.TempDir(), "no", "x.tar")
	if code, _, errOut := call(t, "backup", "--data-dir", s.dir(), nowhere); code != exitFailed || !strings.Contains(errOut, "no such file or directory") {
		t.Errorf("to nowhere: %d, %q", code, errOut)
	}
	if text, _ := os.ReadFile(there); string(text) != "precious" {
		t.Errorf("the file is %q now", text)
	}
}
