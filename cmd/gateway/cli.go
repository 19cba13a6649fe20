package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
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

// commands are what the program can do. Each has Run(context.Context, stdio)
// error and Help() string, whose text ends with an example.
type commands struct {
	Run     RunCmd     `cmd:"" help:"Run the gateway."`
	Demo    DemoCmd    `cmd:"" help:"Play the whole story without hardware."`
	Check   CheckCmd   `cmd:"" help:"Find every mistake in a configuration."`
	Config  ConfigCmd  `cmd:"" help:"Print the effective configuration."`
	Status  StatusCmd  `cmd:"" help:"Show the state of a running gateway."`
	Pub     PubCmd     `cmd:"" help:"Publish messages."`
	Sub     SubCmd     `cmd:"" help:"Subscribe and print messages."`
	Queue   QueueCmd   `cmd:"" help:"Look at what is queued, on disk too."`
	Backup  BackupCmd  `cmd:"" help:"Copy all that the gateway keeps, while it runs."`
	Restore RestoreCmd `cmd:"" help:"Make a data directory from a backup."`
	Bridge  BridgeCmd  `cmd:"" help:"Look at a bridge."`
	Verify  VerifyCmd  `cmd:"" help:"Report what is missing or came twice upstream."`
	Import  ImportCmd  `cmd:"" help:"Turn a mosquitto.conf into a configuration."`
	Passwd  PasswdCmd  `cmd:"" help:"Add, change or delete a user of a password file."`
	Plan    PlanCmd    `cmd:"" help:"Say how much disk an outage needs, and what it does to a card."`
	Devices DevicesCmd `cmd:"" help:"List serial ports."`
	Bench   BenchCmd   `cmd:"" help:"Put a load on a broker and measure it."`
	Version VersionCmd `cmd:"" help:"Print version and platform."`
}

// BridgeCmd has the commands about one bridge.
type BridgeCmd struct {
	Map     BridgeMapCmd     `cmd:"" help:"Show what becomes of a topic."`
	Requeue BridgeRequeueCmd `cmd:"" help:"Send again what the server refused for good."`
	Test    BridgeTestCmd    `cmd:"" help:"Try each server, step by step."`
}

// Help is shown by --help.
func (BridgeCmd) Help() string {
	return `Commands about one bridge of the configuration.

Examples:

    tidegate bridge test cloud
    tidegate bridge map cloud sensor/weather/temperature`
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

// dispatch parses args and runs the command.
func dispatch(ctx context.Context, args []string, std stdio) error {
	helped := false
	parser, err := kong.New(new(commands),
		kong.Name(program),
		kong.Description("An edge gateway: MQTT broker, store-and-forward, serial adapters, cloud bridge.\n\nExit codes: 0 done, 1 failed while running, 2 wrong usage or configuration."),
		kong.Writers(std.Out, std.Err),
		kong.Exit(func(int) { helped = true }), // kong calls it after --help only, and goes on
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 96}),
		kong.WithHyphenPrefixedParameters(true), // pub -m -5
		kong.PostBuild(func(k *kong.Kong) error {
			k.Model.HelpFlag.Short = 0 // -h is the host, as with mosquitto
			k.Model.HelpFlag.Help = "Show this help."
			return nil
		}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
	)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return &usageError{err: errors.New("say what to do")}
	}
	command, err := parser.Parse(args)
	switch {
	case helped:
		return nil
	case err != nil:
		return wrongUsage(err)
	}
	return command.Run()
}

// wrongUsage turns kong's complaint into ours.
func wrongUsage(err error) error {
	var parse *kong.ParseError
	usage := &usageError{err: err}
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			usage.command = node.Name
		}
	}
	return usage
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
