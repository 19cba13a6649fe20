package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"tidegate/admin"
	"tidegate/broker"
	"tidegate/store"
)

// QueuePurgeCmd drops messages.
type QueuePurgeCmd struct {
	storeFlags
	outputFlag
	Name string
	Yes  bool
}

func (c *QueuePurgeCmd) define(p *params) {
	c.storeFlags.define(p)
	c.outputFlag.define(p)
	p.arg(&c.Name, "NAME", "Client id, bridge/NAME, bridge/NAME/dead, or the filter of a shared subscription.")
	p.BoolVar(&c.Yes, "yes", false, "Do not ask.")
}

// Help is shown by --help.
func (QueuePurgeCmd) Help() string {
	return `Drops the messages that a queue holds at the moment. They are lost to this queue only, and
stand in the loss ledger with the reason "purged". What was sent to a consumer that is
connected stays until it acknowledges it. Session and subscriptions stay; only what is
unclaimed goes altogether. "tidegate queue export" first keeps a copy.

Examples:

    tidegate queue purge bridge/cloud/dead
    tidegate queue purge old-display --yes`
}

// Run asks, and drops.
func (c *QueuePurgeCmd) Run(ctx context.Context, std stdio) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	if err := c.confirm(ctx, dir, std); err != nil {
		return err
	}
	done, err := c.purge(ctx, dir, std)
	switch {
	case err != nil:
		return err
	case c.Output == "json":
		return printJSON(std, done)
	}
	_, err = fmt.Fprintf(std.Out, "messages dropped: %d, left: %d\n", done.Messages, done.Left)
	return err
}

// confirm finds the queue, shows it and reads the answer.
func (c *QueuePurgeCmd) confirm(ctx context.Context, dir string, std stdio) error {
	var list []admin.Queue
	err := withControl(ctx, dir, std, func(g *control) error {
		return g.askJSON(ctx, http.MethodGet, "/api/v1/queues", nil, &list)
	})
	if err != nil {
		return err
	}
	for i := range list {
		if list[i].Name != c.Name {
			continue
		}
		if c.Yes {
			return nil
		}
		fmt.Fprintf(std.Err, "%s\ndrop %d messages of %q for good? Write yes: ", queuesText(list[i:i+1]), list[i].Messages, printable(c.Name))
		answer, _ := bufio.NewReader(std.In).ReadString('\n') // nothing is no yes
		if strings.TrimSpace(answer) != "yes" {
			return errors.New("nothing was dropped")
		}
		return nil
	}
	return fmt.Errorf("%q: %w", c.Name, broker.ErrNoQueue)
}

// purge has the gateway do it, or does it on the store of one that is stopped.
func (c *QueuePurgeCmd) purge(ctx context.Context, dir string, std stdio) (done broker.Purged, err error) {
	nc, err := admin.DialControl(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return purgeStopped(ctx, dir, c.Name, std)
	}
	if err == nil {
		nc.Close()
	}
	err = withControl(ctx, dir, std, func(g *control) error {
		return g.askJSON(ctx, http.MethodPost, "/api/v1/queues/purge", url.Values{"queue": {c.Name}}, &done)
	})
	return done, err
}

// purgeStopped runs a broker without listeners on the store in dir.
func purgeStopped(ctx context.Context, dir, name string, std stdio) (done broker.Purged, err error) {
	if err := checkOwner(dir); err != nil {
		return done, err
	}
	st, err := store.Open(dir, store.Options{Log: warnings(std)})
	if err != nil {
		return done, stoppedError(dir, err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	src, err := stoppedSources(dir, st)
	if err != nil {
		return done, err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- src.Broker.Serve(serving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	return src.Broker.Purge(ctx, name)
}

// checkOwner refuses to write for somebody else: the gateway could not write the
// files that this makes.
func checkOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return stoppedError(dir, err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user id %d: run it as that user, as in sudo -u '#%d' %s queue purge", dir, owner.Uid, owner.Uid, program)
	}
	return nil
}
