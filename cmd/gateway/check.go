package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/goccy/go-yaml"
)

// configFlag is the --config flag.
type configFlag struct {
	Config string
}

func (f *configFlag) define(p *params) {
	p.StringVar(&f.Config, "config", "", "Configuration `FILE`. Default: $TIDEGATE_CONFIG, then /etc/tidegate/tidegate.yaml, then the built-in configuration.")
}

// load reads the configuration that the flag asks for.
func (f configFlag) load() (*Config, error) { return Load(locate(f.Config)) }

// CheckCmd finds every mistake in a configuration.
type CheckCmd struct {
	configFlag
}

// Help is shown by --help.
func (CheckCmd) Help() string {
	return `Reads the file and conf.d/*.yaml beside it. Says nothing and ends with 0 if all is
well; else it prints every mistake as FILE:LINE:COL: what is wrong, what would be
right, and ends with 2. What is possible but hardly meant, such as a bridge's rule
that never matches or a message that goes in a circle, is printed with "warning:"
and ends with 0. It opens no port and no device.

Example:

    tidegate check --config /etc/tidegate/tidegate.yaml`
}

// Run returns [Errors], or nil.
func (c *CheckCmd) Run(_ context.Context, std stdio) error {
	_, warnings, err := loadWarned(locate(c.Config))
	for _, w := range warnings {
		fmt.Fprintln(std.Out, w)
	}
	return err
}

// ConfigCmd prints the effective configuration.
type ConfigCmd struct {
	configFlag
	Output string
}

func (c *ConfigCmd) define(p *params) {
	c.configFlag.define(p)
	chosen(p, &c.Output, "output", "o", "How to print it.", "yaml", "json")
}

// Help is shown by --help.
func (ConfigCmd) Help() string {
	return `Prints what the gateway would work with: all files merged, defaults filled in,
environment variables replaced. Secrets are shown as ` + mask + `.

Example:

    tidegate config --config /etc/tidegate/tidegate.yaml`
}

// Run prints the configuration, or returns [Errors].
func (c *ConfigCmd) Run(_ context.Context, std stdio) error {
	config, err := c.load()
	if err != nil {
		return err
	}
	text, err := yaml.MarshalWithOptions(effective(config), yaml.IndentSequence(true))
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if c.Output == "json" {
		if text, err = yaml.YAMLToJSON(text); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
		return printJSON(std, json.RawMessage(text))
	}
	_, err = std.Out.Write(text)
	return err
}
