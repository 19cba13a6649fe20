package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// DemoCmd plays the whole story without hardware.
type DemoCmd struct {
	For time.Duration
}

func (c *DemoCmd) define(p *params) {
	p.DurationVar(&c.For, "for", 0, "End by itself after this `TIME`; exit code 0 only if nothing was lost.")
}

// Help is shown by --help.
func (DemoCmd) Help() string {
	return `A serial sensor played over a pty, the gateway, a second broker as the cloud, and an
uplink that goes down and comes back. Prints what is queued, drained and lost.

Example:

    tidegate demo --for 30s`
}

// The acts of the story. With --for they are scaled to fit.
const (
	actOnline  = 6 * time.Second
	actOffline = 12 * time.Second
	actDrain   = 6 * time.Second
	actAll     = actOnline + actOffline + actDrain
	curtain    = 10 * time.Second // the longest wait for the queue to drain at the end
	refresh    = 500 * time.Millisecond
)

// Run plays until ctx is done or the time is over.
func (c *DemoCmd) Run(ctx context.Context, std stdio) (err error) {
	dir, err := os.MkdirTemp("", "tidegate-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	stage, err := newStage(dir, std.Err)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.close()) }()
	return stage.play(ctx, newView(std.Out), c.For)
}

// play runs the story act by act until ctx is done or the time is over, then
// lets the queue drain and says what was lost.
func (s *stage) play(ctx context.Context, v view, length time.Duration) error {
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	ended := s.start(running, stop)
	defer func() {
		stop(nil)
		<-ended
	}()
	if err := s.untilConnected(running); err != nil {
		return err
	}
	v.intro(s)
	s.acts(ctx, running, v, length)
	s.sensor.stop()
	s.uplinkUp()
	v.say("the sensor stops; the uplink stays up until everything has arrived")
	s.untilDrained(running, v)
	if err := context.Cause(running); err != nil {
		return err
	}
	return v.summary(s)
}

// acts plays the acts in turn until ctx is done or length is over.
func (s *stage) acts(ctx, running context.Context, v view, length time.Duration) {
	scale := 1.0
	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
		scale = min(1, float64(length)/float64(actAll))
	}
	for ctx.Err() == nil && running.Err() == nil {
		v.say("the uplink is up: readings pass straight through, nothing is written to disk")
		s.watch(ctx, v, time.Duration(float64(actOnline)*scale))
		if ctx.Err() != nil {
			return
		}
		s.uplinkDown()
		v.say("the uplink is down: readings are queued on disk")
		s.watch(ctx, v, time.Duration(float64(actOffline)*scale))
		s.uplinkUp()
		v.say("the uplink is back: the queue drains, in order")
		s.watch(ctx, v, time.Duration(float64(actDrain)*scale))
	}
}

// watch shows the numbers until the act is over.
func (s *stage) watch(ctx context.Context, v view, act time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, act)
	defer cancel()
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		v.show(s.numbers())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// untilDrained shows the numbers until everything that was sent has arrived.
func (s *stage) untilDrained(ctx context.Context, v view) {
	ctx, cancel := context.WithTimeout(ctx, curtain)
	defer cancel()
	tick := time.NewTicker(refresh / 5)
	defer tick.Stop()
	for n := s.numbers(); n.Lost > 0 && ctx.Err() == nil; n = s.numbers() {
		v.show(n)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	v.show(s.numbers())
}

// isTerminal reports whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
