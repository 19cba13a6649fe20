package main

import (
	"context"
	"fmt"

	"tidegate/bridge"
	"tidegate/internal/clock"
	"tidegate/mqtt"
)

// BridgeTestCmd tries the servers of a bridge.
type BridgeTestCmd struct {
	configFlag
	outputFlag
	Topic string
	Name  string
}

func (c *BridgeTestCmd) define(p *params) {
	c.configFlag.define(p)
	c.outputFlag.define(p)
	p.StringVar(&c.Topic, "topic", "", "`TOPIC` upstream of the echo. Default: gateway/NAME/test under the bridge's prefix.")
	p.arg(&c.Name, "BRIDGE", "Name of the bridge.")
}

// Help is shown by --help.
func (BridgeTestCmd) Help() string {
	return `Goes the way to each server of a bridge step by step: DNS, TCP, TLS, WebSocket, CONNECT,
SUBSCRIBE to what the bridge subscribes to, a message at QoS 1 that must come back, and
CONNECT with the bridge's will. Says which step failed and what to do. A bridge that is
running does not notice: the client id is the bridge's with -test behind it, the session
ends with the connection, and nothing is retained. Ends with 1 if any server fails.

Example:

    tidegate bridge test cloud`
}

// Run prints one line per step and server.
func (c *BridgeTestCmd) Run(ctx context.Context, std stdio) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	b, err := cfg.bridge(c.Name)
	if err != nil {
		return &usageError{"bridge test", err}
	}
	if err := mqtt.ValidName(c.Topic); c.Topic != "" && err != nil {
		return &usageError{"bridge test", err}
	}
	now := clock.Peek(cfg.Gateway.DataDir)
	now.Raise(thisBuild().time)
	return c.try(ctx, std, &bridge.Trial{Config: *b, Gateway: cfg.Gateway.Name, Topic: c.Topic, Now: now.Floor})
}

// try prints what the trial finds, and fails if it does.
func (c *BridgeTestCmd) try(ctx context.Context, std stdio, trial *bridge.Trial) error {
	findings := []bridge.Finding{}
	broken := 0
	for _, server := range trial.Config.Servers {
		if c.Output == "text" {
			fmt.Fprintln(std.Out, printable(server))
		}
		works := trial.Run(ctx, server, func(f bridge.Finding) {
			findings = append(findings, f)
			if c.Output == "text" {
				writeFinding(std, f)
			}
		})
		if !works {
			broken++
		}
	}
	if c.Output == "json" {
		if err := printJSON(std, findings); err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("of %d servers of the bridge %s, so many do not work: %d", len(trial.Config.Servers), c.Name, broken)
	}
	return nil
}

func writeFinding(std stdio, f bridge.Finding) {
	mark := "ok"
	if !f.OK {
		mark = "FAILED"
	}
	start := fmt.Sprintf("  %-6s  %-9s  %5.0fms", mark, f.Step, f.Seconds*1000)
	for _, line := range wrap(printable(f.Text), statusWidth-len(start)-2) {
		fmt.Fprintf(std.Out, "%s  %s\n", start, line)
		start = fmt.Sprintf("%*s", len(start), "")
	}
}
