package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy is a TCP proxy whose network can be made to fail. All methods may be
// called from any goroutine; Run once.
type Proxy struct {
	listener net.Listener

	mu     sync.Mutex // guards the fields below
	target string
	mode   Mode
	delay  time.Duration // of each way
	rate   int           // of each way, bytes per second; 0: no limit
	closed bool
	conns  map[*conn]struct{}
}

// Listen opens a proxy for target, a "host:port", on a free port of 127.0.0.1.
// Clients can connect at once and are served as soon as Run is called.
func Listen(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the proxy to %s: %w", target, err)
	}
	return &Proxy{listener: l, target: target, conns: make(map[*conn]struct{})}, nil
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
		c := &conn{Proxy: p, client: client, gone: make(chan struct{})}
		if p.add(c) {
			serving.Go(func() { p.serve(ctx, c) })
		}
	}
}

// SetMode changes the network. When it returns, connections that the new mode
// does not allow have ended.
func (p *Proxy) SetMode(m Mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		switch {
		case m == Cut, p.mode != m && p.mode.leavesHoles():
			c.closeLocked(reset)
		case m == Drop:
			c.closeLocked(finish)
		case m == HalfOpen:
			c.loseLocked()
		}
	}
	p.mode = m
}

// SetDelay lets what is read from now on arrive later by d, each way. A round
// trip takes twice as long.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// SetRate limits each way of each connection to bytes per second; 0 is no limit.
func (p *Proxy) SetRate(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = bytes
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
	for c := range p.conns {
		c.closeLocked(reset)
	}
	if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the proxy on %s: %w", p.Addr(), err)
	}
	return nil
}

// serve carries one connection to the target and back.
func (p *Proxy) serve(ctx context.Context, c *conn) {
	defer p.drop(c)
	if p.silent() {
		_, _ = io.Copy(io.Discard, c.client) // until the mode changes
		return
	}
	server, err := p.dial(ctx)
	if err != nil {
		reset(c.client)
		return
	}
	if !p.join(c, server) {
		reset(server)
		return
	}
	var back sync.WaitGroup
	back.Go(func() { c.carry(c.client, server, false) })
	c.carry(server, c.client, true)
	back.Wait()
}

func (p *Proxy) dial(ctx context.Context) (net.Conn, error) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	var d net.Dialer
	return d.DialContext(ctx, "tcp", target)
}

func (p *Proxy) silent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode == Silent
}

// add makes c known to SetMode and Close, or ends it if they do not allow it.
func (p *Proxy) add(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mode == Drop && !p.closed:
		finish(c.client)
	case p.closed, p.mode == Cut:
		reset(c.client)
	default:
		p.conns[c] = struct{}{}
		return true
	}
	return false
}

// join gives c its other side, unless it has ended meanwhile.
func (p *Proxy) join(c *conn, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.closed {
		c.server = server
	}
	return !c.closed
}

// drop ends c when both ways have: what they had to say is said.
func (p *Proxy) drop(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.closeLocked(finish)
	delete(p.conns, c)
}
