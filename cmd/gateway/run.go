package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// RunCmd runs the gateway.
type RunCmd struct {
	configFlag `embed:""`
}

// Help is shown by --help.
func (RunCmd) Help() string {
	return `Prints one line per listening address, then "ready". SIGTERM and ^C end it orderly.

Example:

    tidegate run --config /etc/tidegate/tidegate.yaml`
}

// Run blocks until ctx is done.
func (c *RunCmd) Run(ctx context.Context, std stdio) (err error) {
	cfg, err := Load(locate(c.Config))
	if err != nil {
		return err
	}
	log := newLogger(cfg.Gateway.Log, std.Err)
	defer ignoreHangup(log)()
	g, err := newGateway(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	addrs, err := g.listen()
	if err != nil {
		return err
	}
	return g.run(ctx, func() {
		for _, a := range addrs {
			fmt.Fprintln(std.Out, "listening on", a)
		}
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

// ignoreHangup keeps SIGHUP, which asks other daemons to read their configuration
// again, from ending the gateway.
func ignoreHangup(log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-hangups:
				log.Warn("SIGHUP changes nothing in this version: restart the gateway to read its configuration again")
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(done)
	}
}
