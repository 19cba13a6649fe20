//go:build linux

package interop

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// process is a program that runs beside the test and does not outlive it.
type process struct {
	cmd    *exec.Cmd
	lines  <-chan string // what it prints, standard output and error; closed when it has ended
	said   []string      // the lines that were read
	exited chan struct{} // closed when it has ended
	err    error         // of its end
}

// start runs a program with this standard input until ctx is done.
func start(t *testing.T, ctx context.Context, input, name string, args ...string) *process {
	t.Helper()
	lines, output := make(chan string, 1000), newOutput()
	p := &process{cmd: exec.CommandContext(ctx, name, args...), lines: lines, exited: make(chan struct{})}
	p.cmd.Stdin = strings.NewReader(input)
	p.cmd.Stdout, p.cmd.Stderr = output, output
	// The thread that starts it may end before the test does, so no Pdeathsig.
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go output.split(lines)
	go func() {
		p.err = p.cmd.Wait()
		_ = output.w.Close()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended by itself
		p.drain()
		<-p.exited
	})
	return p
}

// output is a pipe that splits what is written into lines.
type output struct {
	io.Writer
	r *io.PipeReader
	w *io.PipeWriter
}

func newOutput() *output {
	r, w := io.Pipe()
	return &output{w, r, w}
}

// split sends each line, and closes lines at the end.
func (o *output) split(lines chan<- string) {
	defer close(lines)
	text := bufio.NewScanner(o.r)
	text.Buffer(nil, 1<<20)
	for text.Scan() {
		lines <- text.Text()
	}
	_ = o.r.CloseWithError(text.Err())
}

// drain reads what the process prints until it ends.
func (p *process) drain() {
	for range p.lines {
	}
}

// await returns the first line from here on that contains text.
func (p *process) await(t *testing.T, text string) string {
	t.Helper()
	for line := range p.lines {
		p.said = append(p.said, line)
		if strings.Contains(line, text) {
			return line
		}
	}
	t.Fatalf("%q ended before it printed %q:\n%s", p.cmd.Args, text, p.tail())
	return ""
}

// finish waits until the process has ended by itself, which must be with 0.
func (p *process) finish(t *testing.T) {
	t.Helper()
	for line := range p.lines {
		p.said = append(p.said, line)
	}
	<-p.exited
	if p.err != nil {
		t.Fatalf("%q ended with %v:\n%s", p.cmd.Args, p.err, p.tail())
	}
}

// messages returns those that the process has printed, once it has finished.
func (p *process) messages(t *testing.T) []string {
	t.Helper()
	p.finish(t)
	var list []string
	for _, line := range p.said {
		if m, found := strings.CutPrefix(line, "message "); found {
			list = append(list, m)
		}
	}
	return list
}

// tail is the end of what was read, for the log of the test.
func (p *process) tail() string {
	var text strings.Builder
	for _, line := range p.said[max(0, len(p.said)-10):] {
		fmt.Fprintf(&text, "%.200s\n", line)
	}
	return text.String()
}
