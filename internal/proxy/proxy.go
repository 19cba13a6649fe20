// Package proxy plays a bad network between a client and a server, so that an
// outage can be rehearsed on one machine.
//
// There are two nouns. A [Proxy] listens on the loopback interface and hands
// each connection on to its target. A [Mode] is what the network does just now:
// pass everything, cut everything, or swallow every byte without a word, as a
// radio link or a dead NAT entry does.
//
// [Proxy.Run] accepts and joins one goroutine per connection, which joins one
// more for the way back; they end when either side closes, the mode cuts them,
// or the proxy closes.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Mode is what the network does to connections.
type Mode int

// The modes.
const (
	// Pass hands bytes on in both directions.
	Pass Mode = iota

	// Cut resets every connection, and each new one as soon as it is accepted.
	Cut

	// Silent keeps connections open and accepts new ones, but swallows every
	// byte and every end of a connection in both directions. A connection
	// that went through it has holes, so it is reset when the mode changes.
	Silent
)

// String names the mode.
func (m Mode) String() string {
	switch m {
	case Pass:
		return "pass"
	case Cut:
		return "cut"
	case Silent:
		return "silent"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Proxy is a TCP proxy whose network can be made to fail. All methods may be
// called from any goroutine; Run once.
type Proxy struct {
	listener net.Listener

	mu     sync.Mutex // guards the fields below
	target string
	mode   Mode
	closed bool
	conns  map[net.Conn]struct{} // both ends of every connection
}

// Listen opens a proxy for target, a "host:port", on a free port of 127.0.0.1.
// Clients can connect at once and are served as soon as Run is called.
func Listen(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the proxy to %s: %w", target, err)
	}
	return &Proxy{listener: l, target: target, conns: make(map[net.Conn]struct{})}, nil
}

// Addr is the "host:port" that clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Run serves connections until ctx is done or Close is called, and returns when
// all of them have ended.
func (p *Proxy) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = p.Close() })()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			_ = p.Close()
			return fmt.Errorf("accept on %s: %w", p.Addr(), err)
		}
		if p.add(client) {
			serving.Go(func() { p.serve(ctx, client) })
		}
	}
}

// SetMode changes the network. When it returns, connections that the new mode
// does not allow are reset.
func (p *Proxy) SetMode(m Mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m == Cut || p.mode == Silent && m != Silent {
		p.resetLocked()
	}
	p.mode = m
}

// SetTarget sends new connections to target; those that stand stay.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Close stops listening and resets every connection; Run joins them.
func (p *Proxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.resetLocked()
	if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the proxy on %s: %w", p.Addr(), err)
	}
	return nil
}

// serve carries one connection to the target and back.
func (p *Proxy) serve(ctx context.Context, client net.Conn) {
	defer p.drop(client)
	if p.silent() {
		p.carry(nil, client)
		return
	}
	server, err := p.dial(ctx)
	if err != nil {
		reset(client)
		return
	}
	if !p.add(server) {
		return
	}
	defer p.drop(server)
	var back sync.WaitGroup
	back.Go(func() { p.carry(client, server) })
	p.carry(server, client)
	back.Wait()
}

func (p *Proxy) dial(ctx context.Context) (net.Conn, error) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	var d net.Dialer
	return d.DialContext(ctx, "tcp", target)
}

// carry copies from src to dst until src ends, and hands the end on. In silence
// it hands nothing on; a nil dst is for connections that began there.
func (p *Proxy) carry(dst, src net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if p.silent() || dst == nil {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				reset(src)
				return
			}
		}
		if err != nil {
			end(dst, err)
			return
		}
	}
}

// end hands on to dst that its other side ended with err.
func end(dst net.Conn, err error) {
	t, ok := dst.(*net.TCPConn)
	if !ok || !errors.Is(err, io.EOF) || t.CloseWrite() != nil {
		reset(dst)
	}
}

func (p *Proxy) silent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode == Silent
}

// add makes c known to SetMode and Close, or resets it if they do not allow it.
func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.mode == Cut {
		reset(c)
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = c.Close()
	delete(p.conns, c)
}

func (p *Proxy) resetLocked() {
	for c := range p.conns {
		reset(c)
	}
}

// reset closes c so that the other side gets an error and not an orderly end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
