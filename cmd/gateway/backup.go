package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"tidegate/store"
)

// BackupCmd copies the data directory.
type BackupCmd struct {
	storeFlags
	File string
}

func (c *BackupCmd) define(p *params) {
	c.storeFlags.define(p)
	p.arg(&c.File, "FILE", "Archive to make, or - for standard output.")
}

// Help is shown by --help.
func (BackupCmd) Help() string {
	return `Writes all that the gateway keeps in its data directory to a tar archive: queues, sessions,
retained messages, loss ledger, clock. Of a gateway that runs, too: it goes on meanwhile,
and every message that it had acknowledged when the backup began is in it. Checksums of all
files are in the archive; backup reads them back before it gives the archive its name. The
configuration is not in it. Damaged files that were set aside are left out; sectors that
cannot be read become zeros, and are said.

Examples:

    tidegate backup /media/stick/pump-house.tar
    ssh pi@pump-house sudo tidegate backup - > pump-house.tar`
}

// Run makes the archive.
func (c *BackupCmd) Run(ctx context.Context, std stdio) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	if c.File == "-" {
		return c.copy(ctx, dir, std, std.Out)
	}
	if err := c.checkPlace(dir); err != nil {
		return &usageError{"backup", err}
	}
	return c.write(ctx, dir, std)
}

// checkPlace refuses a file that is there, and one that the next backup would copy.
func (c *BackupCmd) checkPlace(dir string) error {
	if _, err := os.Lstat(c.File); err == nil {
		return fmt.Errorf("%s is there already: choose another name", c.File)
	}
	in, err1 := os.Stat(filepath.Dir(c.File))
	data, err2 := os.Stat(dir)
	if err1 == nil && err2 == nil && os.SameFile(in, data) {
		return fmt.Errorf("%s is in the data directory: choose a place outside, best on another disk", c.File)
	}
	return nil
}

// write makes the file aside, and gives it its name when it is complete and durable.
func (c *BackupCmd) write(ctx context.Context, dir string, std stdio) error {
	aside := c.File + ".part"
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	err = c.copy(ctx, dir, std, f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(aside, c.File)
	}
	if err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	return nil
}

// copy writes the archive to w and checks what it writes.
func (c *BackupCmd) copy(ctx context.Context, dir string, std stdio, w io.Writer) error {
	return withControl(ctx, dir, std, func(g *control) error {
		resp, err := g.ask(ctx, http.MethodGet, "/api/v1/store/backup", nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		taken := &counter{w: w}
		_, m, err := store.CheckArchive(io.TeeReader(resp.Body, taken))
		if _, rest := io.Copy(taken, resp.Body); rest != nil { // for the reason behind the end
			return errors.Join(err, rest)
		}
		if why := incomplete(resp); why != nil {
			return why
		}
		if err != nil {
			return err
		}
		return sayBackup(std, g, m, taken.n)
	})
}

// sayBackup tells what was made. It is no part of the archive, which may go to
// standard output.
func sayBackup(std stdio, g *control, m *store.Manifest, bytes int64) error {
	state := "stopped"
	if g.running {
		state = "running"
	}
	for _, l := range m.Lacks {
		fmt.Fprintf(std.Err, "the disk does not give all of %s: %s\n", l.Name, printable(l.Why))
	}
	_, err := fmt.Fprintf(std.Err, "%d files, %s, of a gateway that is %s\n", len(m.Files), size(bytes), state)
	return err
}

// counter counts what goes through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
