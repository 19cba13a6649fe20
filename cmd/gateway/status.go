package main

import (
	"context"
	"errors"
)

// StatusCmd shows the state of a running gateway.
type StatusCmd struct {
	URL string `name:"url" default:"http://127.0.0.1:8080" help:"Address of the gateway's page."`
}

// Help is shown by --help.
func (StatusCmd) Help() string {
	return `Shows clients, queues, bridges and adapters of the gateway at --url.

Example:

    tidegate status --url http://127.0.0.1:8080`
}

// Run prints the state.
func (c *StatusCmd) Run(context.Context, stdio) error {
	return errors.New("status is not there yet")
}
