//go:build linux

package e2e

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// tap hands the bridge's connections on to a server and reads what passes.
//
// A message has arrived upstream when the server has answered it with PUBACK on
// the connection over which it came. That is the only thing a bridge can know,
// and it is the truth even if the server is killed the moment after. Whether the
// bridge gets to see the PUBACK is another matter: the proxy is before the tap.
type tap struct {
	watched
	t         testing.TB
	listener  net.Listener
	target    string // of new connections; empty: they are reset
	used      int    // connections over which something was published
	carrying  int    // those of them that stand
	active    int    // connections that stand
	published *ledger
	acked     *ledger
}

// newTap starts a tap without a target. What it sees goes into published and acked.
func newTap(t testing.TB, published, acked *ledger) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tp := &tap{t: t, listener: l, published: published, acked: acked}
	background(t, tp.run)
	return tp
}

func (tp *tap) address() string { return tp.listener.Addr().String() }

// setTarget sends new connections to target; an empty one resets them.
func (tp *tap) setTarget(target string) { tp.update(func() { tp.target = target }) }

func (tp *tap) run(ctx context.Context) {
	var serving sync.WaitGroup
	defer serving.Wait()
	defer context.AfterFunc(ctx, func() { _ = tp.listener.Close() })()
	for {
		client, err := tp.listener.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { tp.serve(ctx, client) })
	}
}

// serve carries one connection to the server and back.
func (tp *tap) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	var target string
	tp.look(func() { target = tp.target })
	if target == "" {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })()
	tp.update(func() { tp.active++ })
	defer tp.update(func() { tp.active-- })
	c := tapped{tap: tp, aliases: make(map[uint32][]byte), pending: make(map[uint16]message)}
	var back sync.WaitGroup
	back.Go(func() {
		c.carry(client, server, c.fromServer)
		_ = client.Close()
	})
	c.carry(server, client, c.fromClient)
	_ = server.Close()
	back.Wait()
	if c.publishes {
		tp.update(func() { tp.carrying-- })
	}
}

// tapped is one connection through the tap.
type tapped struct {
	*tap
	aliases   map[uint32][]byte // topics of MQTT 5's topic aliases; of fromClient
	publishes bool              // so does this; of fromClient

	mu      sync.Mutex
	version packet.Version     // of the CONNECT
	pending map[uint16]message // by packet identifier, what waits for its PUBACK
}

// carry copies whole packets from src to dst until either ends, and has each
// seen before it is handed on.
func (c *tapped) carry(dst, src net.Conn, see func(packet.Frame)) {
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		whole := c.see(buf, see)
		if _, failed := dst.Write(buf[:whole]); failed != nil || err != nil {
			return
		}
		buf = buf[:copy(buf, buf[whole:])]
	}
}

// see calls fn with the packets at the start of b and returns their size.
func (c *tapped) see(b []byte, fn func(packet.Frame)) (size int) {
	for {
		f, n, _, err := packet.Split(b[size:], packet.MaxSize)
		if err != nil {
			c.t.Errorf("what the tap reads is no MQTT: %v", err)
		}
		if n == 0 {
			return size
		}
		fn(f)
		size += n
	}
}

func (c *tapped) fromClient(f packet.Frame) {
	switch f.Type() {
	case packet.TypeConnect:
		var p packet.Connect
		if err := p.Decode(f); err != nil {
			c.t.Errorf("the bridge sends a CONNECT that is none: %v", err)
		}
		c.mu.Lock()
		c.version = p.Version
		c.mu.Unlock()
	case packet.TypePublish:
		c.publish(c.versioned(f))
	}
}

// versioned returns f as one of the connection's protocol.
func (c *tapped) versioned(f packet.Frame) packet.Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.Version = c.version
	return f
}

func (c *tapped) publish(f packet.Frame) {
	var p packet.Publish
	if err := p.Decode(f); err != nil {
		c.t.Errorf("the bridge sends a PUBLISH that is none: %v", err)
		return
	}
	if alias, ok := p.Properties.Uint(packet.PropTopicAlias); ok {
		if len(p.Topic) > 0 {
			c.aliases[alias] = bytes.Clone(p.Topic)
		}
		p.Topic = c.aliases[alias]
	}
	n, ok := number(p.Payload)
	if !ok {
		return
	}
	if p.QoS != mqtt.AtLeastOnce {
		c.t.Errorf("the bridge sends message %d of %s at QoS %d", n, p.Topic, p.QoS)
	}
	c.published.add(string(p.Topic), p.Payload)
	if !c.publishes {
		c.publishes = true
		c.tap.update(func() { c.used++; c.carrying++ })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[p.ID] = message{string(p.Topic), n}
}

func (c *tapped) fromServer(f packet.Frame) {
	if f.Type() != packet.TypePuback {
		return
	}
	var a packet.Ack
	if err := a.Decode(c.versioned(f)); err != nil {
		c.t.Errorf("the server sends a PUBACK that is none: %v", err)
		return
	}
	if m, ok := c.take(a.ID); ok && a.Reason < 0x80 {
		c.acked.update(func() { c.acked.of(m.topic).add(m.n) })
	}
}

func (c *tapped) take(id uint16) (message, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.pending[id]
	delete(c.pending, id)
	return m, ok
}
