package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// command is one thing that the program can do.
type command interface {
	// define declares its flags and arguments.
	define(*params)
	// Help is shown by --help; it ends with an example.
	Help() string
	Run(context.Context, stdio) error
}

// tree returns all commands. The one that is asked for is given to choose.
func tree(choose func(command)) *cobra.Command {
	leaf := func(name, short string, c command) *cobra.Command { return leafOf(name, short, c, choose) }
	cobra.EnableCommandSorting = false // the most wanted first
	root := group(program, "An edge gateway: MQTT broker, store-and-forward, serial adapters, cloud bridge.",
		"Exit codes: 0 done, 1 failed while running, 2 wrong usage or configuration.",
		leaf("run", "Run the gateway.", new(RunCmd)),
		leaf("demo", "Play the whole story without hardware.", new(DemoCmd)),
		leaf("check", "Find every mistake in a configuration.", new(CheckCmd)),
		leaf("config", "Print the effective configuration.", new(ConfigCmd)),
		leaf("status", "Show the state of a running gateway.", new(StatusCmd)),
		leaf("pub", "Publish messages.", new(PubCmd)),
		leaf("sub", "Subscribe and print messages.", new(SubCmd)),
		group("queue", "Look at what is queued, on disk too.", queueHelp,
			leaf("list", "Show how much is queued for whom.", new(QueueListCmd)),
			leaf("dump", "Show the messages of a queue.", new(QueueDumpCmd)),
			leaf("export", "Write the messages of a queue for other programs.", new(QueueExportCmd)),
			leaf("verify", "Look for damage on the disk.", new(QueueVerifyCmd)),
			leaf("purge", "Drop the messages of a queue.", new(QueuePurgeCmd))),
		leaf("backup", "Copy all that the gateway keeps, while it runs.", new(BackupCmd)),
		leaf("restore", "Make a data directory from a backup.", new(RestoreCmd)),
		group("bridge", "Look at a bridge.", bridgeHelp,
			leaf("map", "Show what becomes of a topic.", new(BridgeMapCmd)),
			leaf("requeue", "Send again what the server refused for good.", new(BridgeRequeueCmd)),
			leaf("test", "Try each server, step by step.", new(BridgeTestCmd))),
		leaf("verify", "Report what is missing or came twice upstream.", new(VerifyCmd)),
		leaf("import", "Turn a mosquitto.conf into a configuration.", new(ImportCmd)),
		leaf("passwd", "Add, change or delete a user of a password file.", new(PasswdCmd)),
		leaf("plan", "Say how much disk an outage needs, and what it does to a card.", new(PlanCmd)),
		leaf("devices", "List serial ports.", new(DevicesCmd)),
		leaf("bench", "Put a load on a broker and measure it.", new(BenchCmd)),
		leaf("version", "Print version and platform.", new(VersionCmd)))
	root.PersistentFlags().Bool("help", false, "Show this help.") // -h is the host, as with mosquitto
	root.CompletionOptions.DisableDefaultCmd = true
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	return root
}

const bridgeHelp = `Commands about one bridge of the configuration.

Examples:

    tidegate bridge test cloud
    tidegate bridge map cloud sensor/weather/temperature`

// leafOf makes c a command of the tree.
func leafOf(name, short string, c command, choose func(command)) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Long: c.Help()}
	p := &params{FlagSet: cmd.Flags()}
	p.SortFlags = false
	c.define(p)
	cmd.Use += p.use()
	cmd.Args = func(_ *cobra.Command, given []string) error { return p.take(given) }
	cmd.Run = func(*cobra.Command, []string) { choose(c) }
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { help(cmd.OutOrStdout(), cmd, p.args) })
	return cmd
}

// group makes a command that only has commands.
func group(name, short, long string, list ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Long: long}
	cmd.AddCommand(list...)
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if len(given) == 0 {
			return errors.New("say what to do")
		}
		var known []string
		for _, c := range cmd.Commands() {
			known = append(known, c.Name())
		}
		if near := nearest(given[0], known); near != "" {
			return fmt.Errorf("unexpected argument %s, did you mean %q?", given[0], near)
		}
		return fmt.Errorf("unexpected argument %s", given[0])
	}
	cmd.Run = func(*cobra.Command, []string) {} // cobra asks Args only of what can run
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { help(cmd.OutOrStdout(), cmd, nil) })
	return cmd
}

// helpWidth is how many columns the texts about flags may take.
const helpWidth = 92

// help writes what --help shows.
func help(w io.Writer, cmd *cobra.Command, args []arg) {
	use := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		use = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(w, "Usage: %s\n\n%s\n\n%s\n", use, cmd.Short, cmd.Long)
	for i, a := range args {
		if i == 0 {
			fmt.Fprint(w, "\nArguments:\n")
		}
		fmt.Fprintf(w, "  %-10s  %s\n", a.name, a.help)
	}
	fmt.Fprintf(w, "\nFlags:\n%s", cmd.Flags().FlagUsagesWrapped(helpWidth))
	if !cmd.HasAvailableSubCommands() {
		return
	}
	fmt.Fprint(w, "\nCommands:\n")
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(w, "  %-10s  %s\n", c.Name(), c.Short)
		}
	}
	fmt.Fprintf(w, "\n%q says more about a command.\n", cmd.CommandPath()+" COMMAND --help")
}
