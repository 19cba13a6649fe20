package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// program is the name that users call.
const program = "tidegate"

// The exit codes of every command (CONTRACT, "Commands"). `sub -W` adds its own.
const (
	exitDone   = 0
	exitFailed = 1 // while running
	exitUsage  = 2 // wrong usage or wrong configuration
)

// stdio is where a command reads and writes.
type stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// usageError is wrong usage: the program ends with [exitUsage] and says where
// help is.
type usageError struct {
	command string // that was understood, "" if none
	err     error
}

func (e *usageError) Error() string {
	command := strings.TrimSpace(program + " " + e.command)
	return fmt.Sprintf("%s (see: %s --help)", e.err, command)
}

func (e *usageError) Unwrap() error { return e.err }

// codeError ends the program with a code of its own.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

// run runs the command that args ask for and returns the exit code. What went
// wrong is written to std.Err.
func run(ctx context.Context, args []string, std stdio) int {
	if err := dispatch(ctx, args, std); err != nil {
		return report(err, std.Err)
	}
	return exitDone
}

// dispatch finds the command that args ask for, and runs it.
func dispatch(ctx context.Context, args []string, std stdio) error {
	var asked command // nil if it is only for help
	root := tree(func(c command) { asked = c })
	root.SetArgs(args)
	root.SetOut(std.Out)
	if len(args) == 0 {
		root.SetArgs([]string{}) // nil would be the arguments of the process
	}
	cmd, err := root.ExecuteC()
	switch {
	case err != nil:
		return &usageError{strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), program)), err}
	case asked == nil:
		return nil
	}
	return asked.Run(ctx, std)
}

// report writes err for the user and returns the exit code it stands for.
func report(err error, w io.Writer) int {
	var (
		mistakes Errors
		usage    *usageError
		coded    *codeError
	)
	if errors.As(err, &mistakes) {
		fmt.Fprintln(w, mistakes) // FILE:LINE:COL: first, so that editors find it
		return exitUsage
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted before the end")
	}
	fmt.Fprintf(w, "%s: %s\n", program, err)
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &coded):
		return coded.code
	}
	return exitFailed
}
