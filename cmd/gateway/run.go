package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
)

// RunCmd runs the gateway.
type RunCmd struct {
	configFlag
}

// Help is shown by --help.
func (RunCmd) Help() string {
	return `Prints one line per listening address, then "ready". SIGTERM and ^C end it orderly;
SIGHUP makes it read its password file and its ACL file again.

Example:

    tidegate run --config /etc/tidegate/tidegate.yaml`
}

// Run blocks until ctx is done.
func (c *RunCmd) Run(ctx context.Context, std stdio) (err error) {
	cfg, warnings, err := loadWarned(locate(c.Config))
	if err != nil {
		return err
	}
	log := newLogger(cfg.Gateway.Log, std.Err)
	for _, w := range warnings {
		log.Warn("configuration", "at", w.Error())
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // early: it would end the process
	defer signal.Stop(hangups)
	g, err := newGateway(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	defer g.reloadOn(hangups)()
	addrs, err := g.listen()
	if err != nil {
		return err
	}
	return g.run(ctx, func() {
		for _, a := range addrs {
			fmt.Fprintln(std.Out, "listening on", a)
		}
		debug.FreeOSMemory() // what the start took
		fmt.Fprintln(std.Out, "ready")
	})
}

// newLogger returns the logger that the configuration asks for.
func newLogger(c LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// reloadOn reads again what can be read again, with every signal. stop ends that.
func (g *gateway) reloadOn(hangups <-chan os.Signal) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-hangups:
				g.reload()
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// reload reads the password file and the ACL file again. Everything else in the
// configuration waits for the next start.
func (g *gateway) reload() {
	c := &g.cfg.Broker
	if err := g.broker.Reload(); err != nil {
		g.log.Error("SIGHUP: users and rights stay as they were: correct the files and send it again", "error", err)
		return
	}
	g.log.Info("SIGHUP: users and rights are read again; the rest of the configuration takes a restart",
		"password_file", c.PasswordFile, "acl_file", c.ACLFile)
}
