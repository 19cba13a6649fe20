package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"tidegate/internal/backoff"
)

// listener is an open address. What it accepts is TCP or a Unix socket; what TLS
// and WebSocket add to that is agreed on in the goroutine of each connection, by
// its first Read, so that connect_timeout bounds it together with the CONNECT.
type listener struct {
	net.Listener
	url  string                  // what clients connect to, with the port that was found
	wrap func(net.Conn) net.Conn // adds what the scheme asks for, without I/O
}

// caller is what a listener knows of a client beside its CONNECT.
type caller struct {
	certified bool   // it has proved that it owns a certificate of client_ca
	user      string // the certificate's common name with `identity: cn`, never empty then; it stands for the user name of the CONNECT
}

// caller returns what is known of the client. It is for the reading goroutine, and
// complete from the first packet on.
func (c *conn) caller() caller {
	if s, ok := c.t.(stream); ok {
		return callerOf(s.Conn)
	}
	return caller{}
}

func callerOf(nc net.Conn) caller {
	if known, ok := nc.(interface{ caller() caller }); ok {
		return known.caller()
	}
	return caller{}
}

// Listen opens the listeners, so that their addresses are known before
// [Broker.Serve]. If it fails, none of them is open.
func (b *Broker) Listen() error {
	for _, cfg := range b.cfg.Listeners {
		l, err := b.listen(cfg)
		if err != nil {
			b.closeListeners()
			b.listeners = nil
			return fmt.Errorf("listen on %s: %w", cfg.Address, err)
		}
		b.listeners = append(b.listeners, l)
	}
	return nil
}

// listen opens one address.
func (b *Broker) listen(cfg Listener) (*listener, error) {
	p, _ := cfg.place()
	timeout := time.Duration(b.cfg.Limits.ConnectTimeout)
	wrap := func(nc net.Conn) net.Conn { return nc }
	if p.tls {
		t, err := newTLSServer(cfg, timeout, b.log)
		if err != nil {
			return nil, err
		}
		wrap = t.wrap
	}
	if p.path != "" {
		secured, w := wrap, newWebSocket(p.path, timeout, b.openToWebPages(cfg))
		wrap = func(nc net.Conn) net.Conn { return w.wrap(secured(nc)) }
	}
	ln, err := p.listen()
	if err != nil {
		return nil, err
	}
	return &listener{Listener: ln, url: p.scheme + "://" + ln.Addr().String() + p.path, wrap: wrap}, nil
}

func (p place) listen() (net.Listener, error) {
	if p.network == "unix" {
		return listenUnix(p.addr)
	}
	ln, err := net.Listen(p.network, p.addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: is another broker or gateway running here?", err)
	}
	return ln, err
}

// socketMode lets the owner and the group of a socket file connect.
const socketMode = 0o660

// listenUnix opens the socket file at path. One that a crash left behind is in
// the way of that and removed, but only if nobody listens there.
func listenUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		ln.Close()
		return nil, fmt.Errorf("let owner and group connect: %w", err)
	}
	return ln, nil
}

// removeStale removes the socket file at path if there is one that nobody
// listens at.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: move it away, or choose another path", path)
	}
	nc, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		nc.Close()
		return fmt.Errorf("somebody listens at %s already: is another gateway running?", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("find out whether somebody listens at the socket that is there: %w", err)
	}
	return os.Remove(path)
}

// Addrs returns the addresses of the listeners, in the order of the configuration.
func (b *Broker) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(b.listeners))
	for i, l := range b.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// URLs returns what clients connect to, in the order of the configuration: as
// the addresses there, with the ports that were found for 0.
func (b *Broker) URLs() []string {
	urls := make([]string, len(b.listeners))
	for i, l := range b.listeners {
		urls[i] = l.url
	}
	return urls
}

func (b *Broker) closeListeners() {
	for _, l := range b.listeners {
		l.Close()
	}
}

// The wait after a connection could not be accepted.
const (
	minAcceptWait = 5 * time.Millisecond
	maxAcceptWait = time.Second
)

// accept serves what connects to l until l is closed.
func (b *Broker) accept(ctx context.Context, l *listener) {
	wait := backoff.Backoff{Min: minAcceptWait, Max: maxAcceptWait}
	failing := false
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if failed := err != nil; failed != failing {
			failing = failed
			b.tellAccepting(l, err)
			wait.Reset()
		}
		if err != nil { // out of descriptors, most likely: others have to go first
			select {
			case <-time.After(wait.Next()):
			case <-ctx.Done():
			}
			continue
		}
		c := newConn(b, l.wrap(nc))
		c.door = l.url
		b.admit(c)
	}
}

// tellAccepting logs that l cannot accept connections because of err, or that it
// can again.
func (b *Broker) tellAccepting(l *listener, err error) {
	if err != nil {
		b.log.Error("cannot accept a connection", "listener", l.url, "error", err)
		return
	}
	b.log.Info("accepts connections again", "listener", l.url)
}
