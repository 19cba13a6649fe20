package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"

	"tidegate/admin"
	"tidegate/store"
)

// RestoreCmd makes a data directory.
type RestoreCmd struct {
	storeFlags
	File string
}

func (c *RestoreCmd) define(p *params) {
	c.storeFlags.define(p)
	p.arg(&c.File, "FILE", "Archive that backup made, or - for standard input.")
}

// Help is shown by --help.
func (RestoreCmd) Help() string {
	return `Makes the data directory from an archive. It has to be empty or not there, and no gateway
may run on it. Everything in the archive is checked before the first file gets its place:
a damaged archive, or one that a newer version made, leaves the directory as it was. If
root restores, the files belong to the owner of the directory.

What was delivered after the backup was made is delivered again; do not let the old gateway
and its copy run at the same time with the same names.

Example:

    systemctl stop tidegate && mv /var/lib/tidegate /var/lib/tidegate.old
    install -d -o tidegate -m 700 /var/lib/tidegate
    tidegate restore /media/stick/pump-house.tar && systemctl start tidegate`
}

// Run unpacks the archive.
func (c *RestoreCmd) Run(ctx context.Context, std stdio) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	if nc, err := admin.DialControl(ctx, dir); err == nil {
		nc.Close()
		return fmt.Errorf("a gateway runs on %s: stop it, and move the directory away", dir)
	}
	in := std.In
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		defer f.Close()
		in = f
	}
	done, err := store.Restore(interruptible{ctx, in}, dir)
	if err != nil {
		return err
	}
	return c.say(std, dir, done)
}

func (c *RestoreCmd) say(std stdio, dir string, done *store.Restored) error {
	for _, l := range done.Manifest.Lacks {
		fmt.Fprintf(std.Err, "the disk of the backup did not give all of %s: %s\n", l.Name, printable(l.Why))
	}
	if len(done.Report.Damage) > 0 {
		fmt.Fprint(std.Err, "the store was damaged when the backup was made; the gateway sets aside what it cannot read:\n", reportText(done.Report))
	}
	_, err := fmt.Fprintf(std.Out, "%s has the data of %s as of %s, made by version %s: %d files, %d records\n", dir, printable(cmp.Or(done.Info.Gateway, "a gateway")),
		done.Info.Made.Format("2006-01-02 15:04:05 MST"), printable(done.Info.Version), len(done.Manifest.Files), done.Report.Records)
	return err
}

// interruptible ends with ctx.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(b)
}
