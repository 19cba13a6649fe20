package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tidegate/broker"
	"tidegate/store"
)

// socketName is the name of the control socket in the data directory.
const socketName = "control.sock"

// Control answers those who may do anything with the gateway: read its queues,
// empty them, copy the store. They reach it by HTTP over a Unix socket in the data
// directory, for whoever may write there can do all that anyway. Browsers and
// other users cannot.
type Control struct {
	dir      string
	src      Sources
	log      *slog.Logger
	listener net.Listener
	conns    *conns

	requeuing sync.Mutex // held by whoever puts dead letters back
}

// NewControl returns what answers on the socket in dir, of which the caller has
// the lock. It starts nothing and opens nothing.
func NewControl(dir string, src Sources, log *slog.Logger) *Control {
	return &Control{dir: dir, src: src, log: log, conns: newConns()}
}

// Listen opens the socket, in place of one that a crash has left.
func (c *Control) Listen() error {
	path := filepath.Join(c.dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open the control socket: %w", err)
	}
	err := withAddress(c.dir, func(address string) (err error) {
		c.listener, err = net.Listen("unix", address)
		return err
	})
	if err != nil {
		return fmt.Errorf("open the control socket %s: %w", path, err)
	}
	c.listener.(*net.UnixListener).SetUnlinkOnClose(false) // its address may be good for the moment only
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("open the control socket: %w", err), c.close())
	}
	return nil
}

func (c *Control) close() error {
	return errors.Join(c.listener.Close(), os.Remove(filepath.Join(c.dir, socketName)))
}

// DialControl connects to the gateway that has its data in dir. The error is
// [fs.ErrNotExist] or a refused connection if none runs.
func DialControl(ctx context.Context, dir string) (nc net.Conn, err error) {
	err = withAddress(dir, func(address string) (err error) {
		nc, err = new(net.Dialer).DialContext(ctx, "unix", address)
		return err
	})
	return nc, err
}

// maxAddress is how long the address of a Unix socket may be on every system.
const maxAddress = 100

// withAddress calls fn with an address of the socket in dir. That of a long dir is
// good until fn returns.
func withAddress(dir string, fn func(address string) error) error {
	path := filepath.Join(dir, socketName)
	if len(path) <= maxAddress {
		return fn(path)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
}

// Serve answers requests until ctx is done, as [Server.Serve] does. It must be
// called once, after Listen.
func (c *Control) Serve(ctx context.Context) error {
	if c.listener == nil {
		return errors.New("serve the control socket: Listen was not called")
	}
	srv := &http.Server{
		Handler:           c.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         c.conns.changed,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelWarn),
	}
	defer os.Remove(filepath.Join(c.dir, socketName)) // what stays is replaced by the next start
	if err := serve(ctx, srv, c.listener, c.conns); err != nil {
		return fmt.Errorf("serve the control socket: %w", err)
	}
	return nil
}

// task is what one path of the control socket is for.
type task struct {
	method string
	serve  http.HandlerFunc
}

func (c *Control) handler() http.Handler {
	tasks := map[string]task{
		"/api/v1/queues":          {http.MethodGet, c.src.serveQueues},
		"/api/v1/queues/messages": {http.MethodGet, c.src.serveMessages},
		"/api/v1/queues/purge":    {http.MethodPost, c.servePurge},
		"/api/v1/bridges":         {http.MethodGet, c.src.serveBridges},
		"/api/v1/bridges/requeue": {http.MethodPost, c.serveRequeue},
		"/api/v1/store/verify":    {http.MethodGet, c.serveVerify},
		"/api/v1/store/backup":    {http.MethodGet, c.serveBackup},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, known := tasks[r.URL.Path]
		if _, ok := reconnects(r.URL.Path); ok {
			t, known = task{http.MethodPost, c.serveReconnect}, true
		}
		switch {
		case !known:
			fail(w, http.StatusNotFound, "this version has no %s: is the program that asks a newer one?", r.URL.Path)
		case r.Method != t.method:
			w.Header().Set("Allow", t.method)
			fail(w, http.StatusMethodNotAllowed, "%s is for %s", r.URL.Path, t.method)
		case r.ContentLength != 0:
			w.Header().Set("Connection", "close") // so that nobody reads the body
			fail(w, http.StatusRequestEntityTooLarge, "%s takes no body", r.URL.Path)
		default:
			t.serve(w, r)
		}
	})
}

func (c *Control) serveVerify(w http.ResponseWriter, _ *http.Request) {
	r, err := c.src.Store.Inspect()
	if err != nil {
		fail(w, http.StatusInternalServerError, "%v", err)
		return
	}
	answerJSON(w, http.StatusOK, r)
}

// serveBackup writes an archive of the data directory.
func (c *Control) serveBackup(w http.ResponseWriter, _ *http.Request) {
	out := newStream(w, "application/x-tar")
	m, err := c.src.Store.Backup(out, store.BackupInfo{Gateway: c.src.Name, Version: c.src.Version, Made: time.Now().UTC()})
	if err == nil {
		c.log.Info("the data directory was backed up", "files", len(m.Files), "unreadable", len(m.Lacks))
	}
	out.end(err)
}

// servePurge drops what a queue holds.
func (c *Control) servePurge(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("queue")
	done, err := c.src.Broker.Purge(r.Context(), name)
	switch {
	case errors.Is(err, broker.ErrNoQueue):
		fail(w, http.StatusNotFound, "%v", err)
	case err != nil:
		fail(w, http.StatusInternalServerError, "%d messages are dropped; then: %v", done.Messages, err)
	default:
		c.log.Warn("a queue was purged", "queue", name, "messages", done.Messages, "left", done.Left)
		answerJSON(w, http.StatusOK, done)
	}
}

// oneLine is err without line breaks.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
