package tty

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"tidegate/internal/pty"
)

// terminal returns both ends of a terminal that shows what is typed.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	p, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	program, err = os.OpenFile(p.Slave, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	cooked, err := settings(program)
	if err != nil {
		t.Fatal(err)
	}
	cooked.Lflag |= syscall.ECHO | syscall.ICANON | syscall.ISIG
	if err := set(program, &cooked); err != nil {
		t.Fatal(err)
	}
	return p.Master, program
}

// shows reads what the person sees, up to and with want.
func shows(t *testing.T, person *os.File, want string) {
	t.Helper()
	person.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(person, got); err != nil || string(got) != want {
		t.Fatalf("the terminal shows %q, %v; want %q", got, err, want)
	}
}

// A password is typed, is not shown, and what is typed after it is shown again.
func TestPasswordIsNotShown(t *testing.T) {
	person, program := terminal(t)
	before, err := settings(program)
	if err != nil {
		t.Fatal(err)
	}
	typed := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(person, make([]byte, len("Password: ")))
		if err == nil {
			_, err = person.WriteString("s3cret ü\n")
		}
		typed <- err
	}()
	got, err := ReadPassword(t.Context(), program, program, "Password: ")
	if err != nil || string(got) != "s3cret ü" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := <-typed; err != nil {
		t.Fatal(err)
	}
	if _, err := person.WriteString("visible\n"); err != nil {
		t.Fatal(err)
	}
	shows(t, person, "\nvisible")
	if after, err := settings(program); err != nil || after != before {
		t.Errorf("the settings are %+v, %v; they were %+v", after, err, before)
	}
}

func TestInterruptedPromptLeavesTheTerminalAsItWas(t *testing.T) {
	person, program := terminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.ReadFull(person, make([]byte, len("Password: ")))
		cancel()
	}()
	if _, err := ReadPassword(ctx, program, program, "Password: "); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if s, err := settings(program); err != nil || s.Lflag&syscall.ECHO == 0 {
		t.Errorf("the terminal still hides what is typed: %+v, %v", s, err)
	}
}

func TestEndOfInputIsNoPassword(t *testing.T) {
	person, program := terminal(t)
	go func() {
		_, _ = io.ReadFull(person, make([]byte, len("Password: ")))
		_, _ = person.WriteString("half\x04\x04") // ^D
	}()
	if _, err := ReadPassword(t.Context(), program, program, "Password: "); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

func TestFilesAndPipesAreNoTerminals(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, program := terminal(t)
	if IsTerminal(r) || !IsTerminal(program) {
		t.Errorf("a pipe: %v, a terminal: %v", IsTerminal(r), IsTerminal(program))
	}
	if _, err := ReadPassword(t.Context(), r, new(bytes.Buffer), "x"); err == nil {
		t.Error("a pipe was asked for a password")
	}
}
