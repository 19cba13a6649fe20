package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"tidegate/admin"
	"tidegate/broker"
	"tidegate/internal/clock"
	"tidegate/store"
)

// storeFlags say which gateway's data a command is about.
type storeFlags struct {
	configFlag
	DataDir string
}

func (f *storeFlags) define(p *params) {
	f.configFlag.define(p)
	p.StringVar(&f.DataDir, "data-dir", "", "Data `DIR`ectory. Default: gateway.data_dir of the configuration.")
}

// dir returns the data directory.
func (f storeFlags) dir() (string, error) {
	if f.DataDir != "" {
		return filepath.Clean(f.DataDir), nil
	}
	c, err := f.load()
	if err != nil {
		return "", err
	}
	return filepath.Clean(c.Gateway.DataDir), nil
}

// control reaches the control socket of a gateway.
type control struct {
	dir     string
	client  http.Client
	running bool         // the gateway runs; else its store is open here, for reading only
	close   func() error // has to be called
}

// reach returns the control of the gateway with the data in dir: the one that runs,
// or one made here on the store as it is.
func reach(ctx context.Context, dir string, std stdio) (*control, error) {
	nc, err := admin.DialControl(ctx, dir)
	switch {
	case err == nil:
		nc.Close()
		return newControl(dir, dir, true, func() error { return nil }), nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the gateway in %s runs, but user id %d may not talk to it: use sudo, or be the user it runs as", dir, os.Getuid())
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return openStopped(ctx, dir, std)
	}
	return nil, fmt.Errorf("reach the gateway in %s: %w", dir, err)
}

func newControl(dir, socket string, running bool, closing func() error) *control {
	c := &control{dir: dir, running: running, close: closing}
	c.client.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return admin.DialControl(ctx, socket) },
	}
	return c
}

// openStopped serves what stands in dir, which is only read, over a socket in a
// folder of its own.
func openStopped(ctx context.Context, dir string, std stdio) (*control, error) {
	st, err := store.OpenReadOnly(dir, store.Options{Log: warnings(std)})
	if err != nil {
		return nil, stoppedError(dir, err)
	}
	src, err := stoppedSources(dir, st)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return serveStopped(ctx, dir, src, std)
}

// serveStopped serves src. The store is closed in the end.
func serveStopped(ctx context.Context, dir string, src admin.Sources, std stdio) (*control, error) {
	tmp, err := os.MkdirTemp("", "tidegate-")
	if err != nil {
		return nil, errors.Join(err, src.Store.Close())
	}
	stop, err := serveControl(ctx, admin.NewControl(tmp, src, warnings(std)))
	if err != nil {
		return nil, errors.Join(err, src.Store.Close(), os.RemoveAll(tmp))
	}
	return newControl(dir, tmp, false, func() error { return errors.Join(stop(), src.Store.Close(), os.RemoveAll(tmp)) }), nil
}

// warnings is the log of a command.
func warnings(std stdio) *slog.Logger {
	return slog.New(slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: slog.LevelError}))
}

// stoppedSources are the parts of a gateway that does not run. Its queues have no
// bounds, so that none gives anything up because somebody looks.
func stoppedSources(dir string, st *store.Store) (admin.Sources, error) {
	cfg := Default().Broker
	cfg.Listeners = nil
	cfg.Queue.MaxDisk = math.MaxInt64
	line := clock.Peek(dir)
	b, err := broker.New(cfg, broker.Options{Store: st, Line: line.Now})
	return admin.Sources{Version: thisBuild().Version, Broker: b, Store: st, Clock: line}, err
}

// serveControl returns when c can be reached. stop ends it.
func serveControl(ctx context.Context, c *admin.Control) (stop func() error, err error) {
	if err := c.Listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx) }()
	return func() error {
		cancel()
		return <-served
	}, nil
}

// stoppedError says what to do when the store in dir cannot be opened.
func stoppedError(dir string, err error) error {
	damage := new(store.CorruptError)
	switch {
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("a process has %s open and does not answer on its control socket: is a gateway starting or stopping, or an older version? Try again (%w)", dir, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no gateway has its data in %s: name its configuration with --config, or the directory with --data-dir (%w)", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("user id %d may not read %s: use sudo, or be the user that the gateway runs as (%w)", os.Getuid(), dir, err)
	case errors.As(err, &damage):
		return fmt.Errorf("%w; the gateway sets it aside when it starts, then the rest can be seen; tidegate queue verify says more", err)
	}
	return err
}

// ask sends a request and returns the answer, whose body has to be closed.
func (c *control) ask(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "gateway", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway in %s: %w", c.dir, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	return nil, fmt.Errorf("the gateway in %s answers: %s", c.dir, reason(text))
}

// askJSON asks for a document.
func (c *control) askJSON(ctx context.Context, method, path string, query url.Values, to any) error {
	resp, err := c.ask(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(to); err != nil {
		return fmt.Errorf("read the answer of the gateway in %s: %w", c.dir, err)
	}
	return nil
}

// incomplete returns what an answer that was read to its end lacks, or nil.
func incomplete(resp *http.Response) error {
	if why := resp.Trailer.Get(admin.ErrorTrailer); why != "" {
		return errors.New(printable(why))
	}
	return nil
}
