//go:build linux

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program that runs beside the test and does not outlive it.
type process struct {
	watched
	cmd    *exec.Cmd
	lines  []string // what it printed, standard output and error
	rest   []byte   // of a line that has not ended
	ended  bool
	exited chan struct{} // closed when it has ended
}

// start runs a program. It is killed when the test ends, or the test's process.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return launch(t, exec.Command(name, args...))
}

// launch is start for a command that has more than arguments.
func launch(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	go func() {
		_ = p.cmd.Wait() // the state has it
		p.update(func() { p.ended = true })
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if t.Failed() {
			p.show(t)
		}
	})
	return p
}

// Write takes what the process prints.
func (p *process) Write(b []byte) (int, error) {
	p.update(func() {
		p.rest = append(p.rest, b...)
		for {
			line, rest, found := bytes.Cut(p.rest, []byte("\n"))
			if !found {
				return
			}
			p.lines = append(p.lines, string(line))
			p.rest = rest
		}
	})
	return len(b), nil
}

// end sends a signal and returns when the process has ended.
func (p *process) end(sig os.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended by itself
	<-p.exited
}

// awaitLine waits until the process has printed a line with all of these words.
func (p *process) awaitLine(t testing.TB, words ...string) string {
	t.Helper()
	var found string
	p.await(t, "a line with "+strings.Join(words, ", "), func() bool {
		if list := p.withLocked(words); len(list) > 0 {
			found = list[0]
		}
		return found != "" || p.ended
	})
	if found == "" {
		p.show(t)
		t.Fatalf("the process ended before it printed a line with %q", words)
	}
	return found
}

func (p *process) hasEnded() (ended bool) {
	p.look(func() { ended = p.ended })
	return ended
}

// with returns the lines that have all of these words.
func (p *process) with(words ...string) (list []string) {
	p.look(func() { list = p.withLocked(words) })
	return list
}

func (p *process) withLocked(words []string) (list []string) {
next:
	for _, line := range p.lines {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		list = append(list, line)
	}
	return list
}

// exit waits until the process has ended by itself and returns its exit code.
func (p *process) exit(t testing.TB, limit time.Duration) int {
	t.Helper()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-p.exited:
	case <-late.C:
		t.Fatalf("process %d has not ended after %v", p.cmd.Process.Pid, limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// show logs the end of what the process printed.
func (p *process) show(t testing.TB) {
	t.Helper()
	p.look(func() {
		tail := p.lines[max(0, len(p.lines)-40):]
		t.Logf("%s, the last of %d lines:\n%s", p.cmd.Path, len(p.lines), strings.Join(tail, "\n"))
	})
}
