package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"tidegate/admin"
	"tidegate/store"
)

const queueHelp = `Looks at what the gateway keeps on disk: of one that runs through its control socket,
which is in its data directory, of one that is stopped through the files, which only purge
changes. Only who may read that directory can do it.

Examples:

    tidegate queue list
    tidegate queue dump bridge/cloud --limit 20
    tidegate queue list --data-dir /mnt/card/var/lib/tidegate`

// QueueListCmd shows all queues.
type QueueListCmd struct {
	storeFlags
	outputFlag
}

func (c *QueueListCmd) define(p *params) {
	c.storeFlags.define(p)
	c.outputFlag.define(p)
}

// Help is shown by --help.
func (QueueListCmd) Help() string {
	return `Shows the queues of all durable sessions, the longest first: those of clients and of
bridges (bridge/NAME, and bridge/NAME/dead for what the server refuses), and shared
subscriptions. "Unclaimed" is what a bridge has left behind that is not configured any more:
it collects nothing. "On disk" is about what the messages take there, "oldest" how long ago
the first one was published, "lost" what the loss ledger has.

Example:

    tidegate queue list --config /etc/tidegate/tidegate.yaml`
}

// Run prints the table.
func (c *QueueListCmd) Run(ctx context.Context, std stdio) error {
	var list []admin.Queue
	err := c.with(ctx, std, func(g *control) error {
		return g.askJSON(ctx, http.MethodGet, "/api/v1/queues", nil, &list)
	})
	switch {
	case err != nil:
		return err
	case c.Output == "json":
		return printJSON(std, list)
	}
	_, err = io.WriteString(std.Out, queuesText(list))
	return err
}

// with calls fn with the control of the gateway that the flags are about.
func (f storeFlags) with(ctx context.Context, std stdio, fn func(*control) error) error {
	dir, err := f.dir()
	if err != nil {
		return err
	}
	return withControl(ctx, dir, std, fn)
}

func withControl(ctx context.Context, dir string, std stdio, fn func(*control) error) error {
	g, err := reach(ctx, dir, std)
	if err != nil {
		return err
	}
	return errors.Join(fn(g), g.close())
}

// QueueDumpCmd shows messages.
type QueueDumpCmd struct {
	storeFlags
	outputFlag
	Name  string
	After uint64
	Limit uint64
}

func (c *QueueDumpCmd) define(p *params) {
	c.storeFlags.define(p)
	c.outputFlag.define(p)
	p.arg(&c.Name, "NAME", "Client id, bridge/NAME, bridge/NAME/dead, or the filter of a shared subscription.")
	p.Uint64Var(&c.After, "after", 0, "Begin behind the message with this `SEQ` number.")
	p.Uint64Var(&c.Limit, "limit", 100, "Show so `MANY` at most; 0: all.")
}

// Help is shown by --help.
func (QueueDumpCmd) Help() string {
	return `Shows the messages that a queue holds, in order: number, time of publication (UTC; ~ if
the clock was not known to be right), QoS, topic, and payload, in hex if it is no text. They
stay in the queue. With -o json it prints an object per line, as export does.

Example:

    tidegate queue dump bridge/cloud/dead`
}

// Run prints a page of messages.
func (c *QueueDumpCmd) Run(ctx context.Context, std stdio) error {
	return c.with(ctx, std, func(g *control) error {
		if c.Output == "json" {
			return g.messages(ctx, c.Name, c.After, c.Limit, func(body io.Reader) error {
				_, err := io.Copy(std.Out, body)
				return err
			})
		}
		return g.messages(ctx, c.Name, c.After, c.Limit, func(body io.Reader) error { return c.print(std.Out, body) })
	})
}

func (c *QueueDumpCmd) print(w io.Writer, body io.Reader) error {
	out := bufio.NewWriter(w)
	n, last := uint64(0), uint64(0)
	dec := json.NewDecoder(body)
	for {
		var m admin.Message
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if _, err := io.WriteString(out, messageText(&m)); err != nil {
			return err
		}
		n, last = n+1, m.Seq
	}
	if n > 0 && n == c.Limit {
		fmt.Fprintf(out, "-- there may be more: --after %d\n", last)
	}
	return out.Flush()
}

// messages hands to fn what the queue called name holds, a line for each message.
func (c *control) messages(ctx context.Context, name string, after, limit uint64, fn func(io.Reader) error) error {
	resp, err := c.ask(ctx, http.MethodGet, "/api/v1/queues/messages", url.Values{
		"queue": {name}, "after": {strconv.FormatUint(after, 10)}, "limit": {strconv.FormatUint(limit, 10)},
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := fn(resp.Body); err != nil {
		return fmt.Errorf("read the queue %q: %w", name, err)
	}
	return incomplete(resp)
}

// QueueExportCmd writes messages for programs.
type QueueExportCmd struct {
	storeFlags
	Name  string
	After uint64
}

func (c *QueueExportCmd) define(p *params) {
	c.storeFlags.define(p)
	p.arg(&c.Name, "NAME", "Client id, bridge/NAME, bridge/NAME/dead, or the filter of a shared subscription.")
	p.Uint64Var(&c.After, "after", 0, "Begin behind the message with this `SEQ` number.")
}

// Help is shown by --help.
func (QueueExportCmd) Help() string {
	return `Writes all messages that a queue holds to standard output, in order, as an object of JSON
on each line: seq, time, topic, qos, retain, payload (or payload_base64 if it is no text),
and the properties of MQTT 5. They stay in the queue. "tidegate pub --json-lines" publishes
such lines. Ends with 1 if the disk has damage in between; all else is written.

Examples:

    tidegate queue export bridge/cloud > backlog.ndjson
    tidegate queue export bridge/cloud | tidegate pub -h broker.example.com --json-lines`
}

// Run writes the lines.
func (c *QueueExportCmd) Run(ctx context.Context, std stdio) error {
	return c.with(ctx, std, func(g *control) error {
		return g.messages(ctx, c.Name, c.After, 0, func(body io.Reader) error {
			_, err := io.Copy(std.Out, body)
			return err
		})
	})
}

// QueueVerifyCmd looks for damage.
type QueueVerifyCmd struct {
	storeFlags
	outputFlag
}

func (c *QueueVerifyCmd) define(p *params) {
	c.storeFlags.define(p)
	c.outputFlag.define(p)
}

// Help is shown by --help.
func (QueueVerifyCmd) Help() string {
	return `Reads every file of the store and checks pages, order and checksums. Says of each damaged
file what is wrong with it and how many records and rows that concerns, and ends with 1 if
there is one. It changes nothing: the gateway sets a damaged file aside when it meets it.

Example:

    tidegate queue verify --config /etc/tidegate/tidegate.yaml`
}

// Run prints the report.
func (c *QueueVerifyCmd) Run(ctx context.Context, std stdio) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	r, err := inspect(ctx, dir, std)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = printJSON(std, r)
	} else {
		_, err = io.WriteString(std.Out, reportText(r))
	}
	switch {
	case err == nil && len(r.Damage) > 0:
		err = fmt.Errorf("%s: damaged files: %d", dir, len(r.Damage))
	case err == nil && len(r.Missing) > 0:
		err = fmt.Errorf("%s: queues that miss records: %d", dir, len(r.Missing))
	}
	return err
}

// inspect asks the gateway in dir, or looks itself if none runs: also at a store
// that nothing else could open.
func inspect(ctx context.Context, dir string, std stdio) (*store.Report, error) {
	nc, err := admin.DialControl(ctx, dir)
	if err != nil {
		r, err := store.Inspect(dir)
		if err != nil {
			return nil, stoppedError(dir, err)
		}
		return r, nil
	}
	nc.Close()
	g, err := reach(ctx, dir, std)
	if err != nil {
		return nil, err
	}
	r := new(store.Report)
	return r, errors.Join(g.askJSON(ctx, http.MethodGet, "/api/v1/store/verify", nil, r), g.close())
}
