package main

import (
	"context"
	"errors"
	"time"
)

// DemoCmd plays the whole story without hardware.
type DemoCmd struct {
	For time.Duration `placeholder:"30s" help:"End by itself after this time; exit code 0 only if nothing was lost."`
}

// Help is shown by --help.
func (DemoCmd) Help() string {
	return `A serial sensor played over a pty, the gateway, a second broker as the cloud, and an
uplink that goes down and comes back. Prints what is queued, drained and lost.

Example:

    tidegate demo --for 30s`
}

// Run blocks until ctx is done or the time is over.
func (c *DemoCmd) Run(context.Context, stdio) error {
	return errors.New("demo is not there yet")
}
