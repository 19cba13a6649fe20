package main

import (
	"context"
	"fmt"
	"strings"

	"tidegate/bridge"
	"tidegate/mqtt"
)

// BridgeMapCmd shows what the rules of a bridge make of topics.
type BridgeMapCmd struct {
	configFlag
	outputFlag
	Name  string
	Topic string
}

func (c *BridgeMapCmd) define(p *params) {
	c.configFlag.define(p)
	c.outputFlag.define(p)
	p.arg(&c.Name, "BRIDGE", "Name of the bridge.")
	p.optional(&c.Topic, "TOPIC", "Topic of a message. Default: show what each rule does.")
}

// Help is shown by --help.
func (BridgeMapCmd) Help() string {
	return `Shows under which topic, and by which rule, a message goes upstream or comes down.
The first rule that matches wins. It reads the configuration only, and connects to
nothing.

Examples:

    tidegate bridge map cloud sensor/weather/temperature
    tidegate bridge map cloud`
}

// Run prints one line per direction, or per filter.
func (c *BridgeMapCmd) Run(_ context.Context, std stdio) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	b, err := cfg.bridge(c.Name)
	if err != nil {
		return &usageError{"bridge map", err}
	}
	ways := b.Ways()
	if c.Topic != "" {
		if err := mqtt.ValidName(c.Topic); err != nil {
			return &usageError{"bridge map", err}
		}
		ways = b.Explain(c.Topic)
	}
	if c.Output == "json" {
		return printJSON(std, ways)
	}
	for _, w := range ways {
		fmt.Fprintln(std.Out, w)
	}
	return nil
}

// bridge returns the configuration of the bridge called name.
func (c *Config) bridge(name string) (*bridge.Config, error) {
	var names []string
	for i := range c.Bridges {
		if c.Bridges[i].Name == name {
			return &c.Bridges[i], nil
		}
		names = append(names, c.Bridges[i].Name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the configuration has no bridges, so none is called %q", name)
	}
	return nil, fmt.Errorf("no bridge is called %q; there is %s", name, strings.Join(names, ", "))
}
