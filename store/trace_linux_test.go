package store

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// syscallLine is one system call as strace writes it down.
type syscallLine struct {
	name   string
	args   []string
	result int // -1 if it failed

	injected bool // strace made it fail
}

// traced are the calls that change files, and write for what is printed.
const traced = "openat,mkdirat,unlinkat,renameat,pwrite64,ftruncate,fsync,fdatasync,write"

// needStrace returns the path of strace. bbolt calls fdatasync by descriptor, so
// nothing inside the process can see in which order it writes and syncs.
func needStrace(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal("needs strace to see what the store writes and syncs: apt-get install strace")
	}
	if err != nil {
		t.Skip("needs strace to see what the store writes and syncs: apt-get install strace")
	}
	return path
}

// strace runs the test called name of this program under strace with options,
// and returns its system calls in the order in which they ended, and what it
// printed.
func strace(t *testing.T, name string, env []string, options ...string) (calls []syscallLine, out []byte, err error) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	args := append([]string{
		"-f", "--seccomp-bpf", "-xx", "-s", strconv.Itoa(1 << 24),
		"-e", "signal=none", "-e", "trace=" + traced, "-o", log,
	}, options...)
	cmd := exec.Command(needStrace(t), append(args, os.Args[0], "-test.run=^"+name+"$", "-test.v")...)
	cmd.Env = append(os.Environ(), env...)
	out, err = cmd.CombinedOutput()
	text, readErr := os.ReadFile(log)
	if readErr != nil {
		t.Fatalf("%v: %v\n%s", readErr, err, out)
	}
	calls = parseTrace(t, text)
	if len(calls) == 0 {
		t.Fatalf("strace saw nothing: %v\n%s", err, out)
	}
	return calls, out, err
}

// parseTrace puts calls together that were interrupted by those of other threads.
func parseTrace(t *testing.T, text []byte) (calls []syscallLine) {
	t.Helper()
	begun := make(map[string]string) // by thread
	in := bufio.NewScanner(bytes.NewReader(text))
	in.Buffer(nil, len(text)+1)
	for in.Scan() {
		thread, line, _ := strings.Cut(in.Text(), " ")
		line = strings.TrimLeft(line, " ")
		if begin, ok := strings.CutSuffix(line, " <unfinished ...>"); ok {
			begun[thread] = begin
			continue
		}
		if _, rest, ok := strings.Cut(line, " resumed>"); ok && strings.HasPrefix(line, "<...") {
			line = begun[thread] + rest
		}
		if c, ok := parseCall(line); ok {
			calls = append(calls, c)
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return calls
}

// parseCall reads name(arguments) = result. No string in it has a comma or a
// bracket, because -xx writes them in hexadecimal.
func parseCall(line string) (c syscallLine, ok bool) {
	name, rest, ok := strings.Cut(line, "(")
	args, result, ended := strings.Cut(rest, ")")
	result = strings.TrimLeft(result, " =")
	number, _, _ := strings.Cut(result, " ")
	n, err := strconv.Atoi(number)
	return syscallLine{name, strings.Split(args, ", "), n, strings.HasSuffix(result, "(INJECTED)")}, ok && ended && err == nil
}

// text returns the argument i, which is a string.
func (c syscallLine) text(i int) string {
	p, err := hex.DecodeString(strings.ReplaceAll(strings.Trim(c.args[i], `"`), `\x`, ""))
	if err != nil {
		panic(fmt.Sprintf("%s argument %d is %.80s: %v", c.name, i, c.args[i], err))
	}
	return string(p)
}

// number returns the argument i, which is a number.
func (c syscallLine) number(i int) int {
	n, err := strconv.Atoi(c.args[i])
	if err != nil {
		panic(fmt.Sprintf("%s argument %d is %.80s: %v", c.name, i, c.args[i], err))
	}
	return n
}

// printed returns the number behind prefix if that is what the call prints.
func (c syscallLine) printed(prefix string) (n int, ok bool) {
	if c.name != "write" || c.args[0] != "1" {
		return 0, false
	}
	text, ok := strings.CutPrefix(c.text(1), prefix)
	n, err := strconv.Atoi(strings.TrimSpace(text))
	return n, ok && err == nil
}

// syncs reports whether the call makes something durable.
func (c syscallLine) syncs() bool { return c.name == "fsync" || c.name == "fdatasync" }
