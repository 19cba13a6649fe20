//go:build !linux

package pty

import (
	"errors"
	"fmt"
	"os"
)

// Pair is the two ends of a pseudo-terminal.
type Pair struct {
	Master *os.File // the sensor's end
	Slave  string   // the path of the gateway's end
}

// Open fails: pseudo-terminals are made on Linux only.
func Open() (*Pair, error) { return nil, fmt.Errorf("open a pty: %w", errors.ErrUnsupported) }

// Close does nothing: there is no pair.
func (p *Pair) Close() error { return nil }
