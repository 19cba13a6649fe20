//go:build !linux

package tty

import (
	"context"
	"errors"
	"io"
	"os"
)

// IsTerminal reports whether f is a terminal that can be asked for a password:
// here none can.
func IsTerminal(*os.File) bool { return false }

// ReadPassword fails on this platform.
func ReadPassword(context.Context, *os.File, io.Writer, string) ([]byte, error) {
	return nil, errors.New("read the password: the terminal can be kept from showing it on Linux only")
}
