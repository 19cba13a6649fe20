package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"tidegate/admin"
)

// BridgeRequeueCmd puts dead letters back.
type BridgeRequeueCmd struct {
	storeFlags
	outputFlag
	Name string
}

func (c *BridgeRequeueCmd) define(p *params) {
	c.storeFlags.define(p)
	c.outputFlag.define(p)
	p.arg(&c.Name, "BRIDGE", "Name of the bridge.")
}

// Help is shown by --help.
func (BridgeRequeueCmd) Help() string {
	return `Puts the messages that the server refused for good back into the bridge's queue, behind
what waits there, to be tried again: once the reason is gone. The gateway has to run.
"tidegate queue dump bridge/NAME/dead" shows them, each with the reason; "tidegate queue
purge" drops them.

Example:

    tidegate bridge requeue cloud`
}

// Run says how many messages went back.
func (c *BridgeRequeueCmd) Run(ctx context.Context, std stdio) error {
	var done admin.Requeued
	err := c.with(ctx, std, func(g *control) error {
		if !g.running {
			return fmt.Errorf("no gateway runs on %s: start it first", g.dir)
		}
		return g.askJSON(ctx, http.MethodPost, "/api/v1/bridges/requeue", url.Values{"bridge": {c.Name}}, &done)
	})
	switch {
	case err != nil:
		return err
	case c.Output == "json":
		return printJSON(std, done)
	}
	_, err = fmt.Fprintf(std.Out, "messages put back: %d\n", done.Messages)
	return err
}
