package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tidegate/broker/auth"
	"tidegate/internal/pty"
)

func TestPasswdReadsALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	for _, in := range []string{"first\n", "second\r\nrest\n", "third"} {
		if code, out, errOut := callWith(t.Context(), in, "passwd", file, "alice"); code != exitDone || out+errOut != "" {
			t.Fatalf("%q: passwd ends with %d and says %q", in, code, out+errOut)
		}
		password, _, _ := strings.Cut(strings.TrimRight(in, "\r\n"), "\r")
		verifies(t, file, "alice", password)
	}
	if code, _, errOut := call(t, "passwd", "-D", file, "alice"); code != exitDone || errOut != "" {
		t.Errorf("-D ends with %d and says %q", code, errOut)
	}
	if text, err := os.ReadFile(file); err != nil || len(text) > 0 {
		t.Errorf("-D leaves %q, %v", text, err)
	}
}

func verifies(t *testing.T, file, user, password string) {
	t.Helper()
	p, err := auth.LoadPasswords(file)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Verify(user, []byte(password)) {
		t.Errorf("%q is not the password of %s", password, user)
	}
}

func TestPasswdRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	cases := []struct {
		in     string
		args   []string
		code   int
		errOut string
	}{
		{"", []string{file, "a"}, exitFailed, "tidegate: there is no password in the first line of the input\n"},
		{"\nx\n", []string{file, "a"}, exitFailed, "tidegate: there is no password in the first line of the input\n"},
		{strings.Repeat("x", maxPasswordLine+1), []string{file, "a"}, exitFailed, "tidegate: the first line of the input is too long to be a password\n"},
		{"x", []string{file, "a:b"}, exitUsage, "tidegate: the user name \"a:b\" has a colon, which ends the name in a password file (see: tidegate passwd --help)\n"},
		{"x", []string{file}, exitUsage, "tidegate: USER is missing (see: tidegate passwd --help)\n"},
		{"", []string{"-D", file, "a"}, exitFailed, "tidegate: delete user \"a\" from " + file + ": there is no such user\n"},
	}
	for _, c := range cases {
		code, out, errOut := callWith(t.Context(), c.in, append([]string{"passwd"}, c.args...)...)
		if code != c.code || errOut != c.errOut || out != "" {
			t.Errorf("%.20q %q ends with %d and says %q, want %d and %q", c.in, c.args, code, out+errOut, c.code, c.errOut)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%.20q %q made a file", c.in, c.args)
		}
	}
}

// A person types the password twice, and only if both agree it counts.
func TestPasswdAsksTwice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	if code, errOut := typed(t, []string{"s3cret", "s3cret"}, "passwd", file, "alice"); code != exitDone {
		t.Errorf("passwd ends with %d and says %q", code, errOut)
	}
	verifies(t, file, "alice", "s3cret")
	code, errOut := typed(t, []string{"new", "nwe"}, "passwd", file, "alice")
	if code != exitFailed || !strings.HasSuffix(errOut, "the two passwords differ; nothing was changed\n") {
		t.Errorf("passwd ends with %d and says %q", code, errOut)
	}
	verifies(t, file, "alice", "s3cret")
}

// typed runs a command line at a terminal where somebody answers each question,
// and returns what was left to say afterwards.
func typed(t *testing.T, answers []string, args ...string) (code int, said string) {
	t.Helper()
	p, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	terminal, err := os.OpenFile(p.Slave, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	questions, errOut := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(context.WithoutCancel(t.Context()), args, stdio{terminal, io.Discard, errOut})
		errOut.Close()
	}()
	said = answer(t, bufio.NewReader(questions), p.Master, answers)
	return <-ended, said
}

func answer(t *testing.T, questions *bufio.Reader, person io.Writer, answers []string) (rest string) {
	t.Helper()
	for _, a := range answers {
		if _, err := questions.ReadString(':'); err != nil {
			t.Error(err)
		}
		if _, err := io.WriteString(person, a+"\n"); err != nil {
			t.Error(err)
		}
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(questions); err != nil {
		t.Error(err)
	}
	return b.String()
}
