package bridge

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/internal/units"
)

// lossy is a connection on which one way, or both, lose everything without a word.
type lossy struct {
	net.Conn
	up, down *atomic.Bool
}

func (l lossy) Write(b []byte) (int, error) {
	if l.up.Load() {
		return len(b), nil
	}
	return l.Conn.Write(b)
}

func (l lossy) Read(b []byte) (int, error) {
	for {
		n, err := l.Conn.Read(b)
		if err != nil || !l.down.Load() {
			return n, err
		}
	}
}

// ailing is a server that, from some point on, does not do its part.
type ailing struct {
	hello bool // it answers CONNECT
	pings bool
	acks  int // so many messages
}

func (a ailing) serve(t *testing.T, protocol int, c net.Conn) {
	if protocol == 5 {
		a.serve5(upstream5{t, c})
	} else {
		a.serve4(upstream{t, c})
	}
	for b := make([]byte, 512); ; { // until the bridge hangs up
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

func (a ailing) serve4(u upstream) {
	if !a.hello {
		return
	}
	u.accept(packets.Accepted)
	for {
		p, err := packets.ReadPacket(u)
		switch p := p.(type) {
		case *packets.PublishPacket:
			if a.acks--; a.acks >= 0 {
				u.ack(p)
			}
		case *packets.PingreqPacket:
			if a.pings {
				_ = packets.NewControlPacket(packets.Pingresp).Write(u)
			}
		}
		if err != nil {
			return
		}
	}
}

func (a ailing) serve5(u upstream5) {
	if !a.hello {
		return
	}
	u.accept(nil)
	for {
		p, err := packets5.ReadPacket(u)
		if err != nil {
			return
		}
		switch content := p.Content.(type) {
		case *packets5.Publish:
			if a.acks--; a.acks >= 0 {
				u.ack(content, 0)
			}
		case *packets5.Pingreq:
			if a.pings {
				_, _ = packets5.NewControlPacket(packets5.PINGRESP).WriteTo(u)
			}
		}
	}
}

// Each way in which a server or the network fails without a word ends within a
// stated time: the bridge is connected to the next server, and what it owes arrives
// there. With the defaults: 10s for whatever comes before CONNACK, 30s without an
// acknowledgement, 45s without a sign of life; and up to 2s of back-off.
func TestEveryWayToFailSilentlyEndsAtTheNextServer(t *testing.T) {
	const connect, stall, silence = connectTimeout, 30 * time.Second, 45 * time.Second
	good := ailing{hello: true, pings: true, acks: 1 << 30}
	with := func(change func(*ailing)) ailing { a := good; change(&a); return a }
	lose := func(up, down bool) func(u, d *atomic.Bool) {
		return func(u, d *atomic.Bool) { u.Store(up); d.Store(down) }
	}
	for name, c := range map[string]struct {
		scheme string // of the first server
		server ailing
		faulty func(up, down *atomic.Bool) // when the bridge has been up for a second
		owed   bool                        // else nothing is owed when it begins
		cause  string
		within time.Duration
	}{
		"it takes the connection and never answers CONNECT": {"tcp", ailing{}, nil, true, "connect", connect},
		"the TLS handshake stalls":                          {"tls", ailing{}, nil, true, "tls", connect},
		"the WebSocket handshake stalls":                    {"ws", ailing{}, nil, true, "websocket", connect},
		"it answers CONNECT and never acknowledges":         {"tcp", with(func(a *ailing) { a.acks = 0 }), nil, true, causeStalled, stall},
		"it acknowledges some and then none":                {"tcp", with(func(a *ailing) { a.acks = 5 }), nil, true, causeStalled, stall},
		"it answers nothing, and nothing is owed":           {"tcp", with(func(a *ailing) { a.pings = false }), nil, false, causeSilent, silence},
		"half open, and nothing is owed":                    {"tcp", good, lose(true, true), false, causeSilent, silence},
		"half open, and something is owed":                  {"tcp", good, lose(true, true), true, causeStalled, stall},
		"the way up is lost, and nothing is owed":           {"tcp", good, lose(true, false), false, causeSilent, silence},
		"the way up is lost, and something is owed":         {"tcp", good, lose(true, false), true, causeStalled, stall},
		"the way down is lost, and nothing is owed":         {"tcp", good, lose(false, true), false, causeSilent, silence},
		"the way down is lost, and something is owed":       {"tcp", good, lose(false, true), true, causeStalled, stall},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, protocol int) {
				synctest.Test(t, func(t *testing.T) {
					cfg := testConfig()
					cfg.Protocol, cfg.Servers = protocol, []string{c.scheme + "://one:1883", "tcp://two:1883"}
					var up, down atomic.Bool
					local := newLocal()
					if c.owed && c.faulty == nil {
						local.add(numbered(20)...)
					}
					r := newRig(t, cfg, local, func(ctx context.Context, network, address string) (net.Conn, error) {
						conn, err := piped(t, func(_ int, address string, u upstream) {
							if address == "one:1883" {
								c.server.serve(t, protocol, u)
							} else {
								good.serve(t, protocol, u)
							}
						})(ctx, network, address)
						if address == "one:1883" {
							conn = lossy{conn, &up, &down}
						}
						return conn, err
					}).start()
					begin := time.Now()
					if c.faulty != nil {
						time.Sleep(time.Second) // virtual
						c.faulty(&up, &down)
						begin = time.Now()
						if c.owed {
							local.add(numbered(20)...)
						}
					}
					for s := r.Status(); s.Server != "tcp://two:1883" || s.State != Up || local.left() > 0; s = r.Status() {
						if time.Sleep(100 * time.Millisecond); time.Since(begin) > 5*time.Minute {
							t.Fatalf("after five minutes the status is %+v", s)
						}
					}
					took, s := time.Since(begin), r.Status()
					r.end()
					time.Sleep(20 * time.Minute) // the servers'
					if took > c.within+3*time.Second || took < c.within-30*time.Second || s.Failures[c.cause] != 1 || len(s.Failures) != 1 {
						t.Errorf("took %v, want %v; the failures are %v, want %s", took, c.within, s.Failures, c.cause)
					}
				})
			})
		})
	}
}

// The same over real sockets, with the network between that does it, and something
// owed: the stall is noticed, and what was owed arrives over the other server. On a
// busy machine a good server may be slower than the stall time here, and be left, too.
func TestSilentNetworksEndAtTheNextServer(t *testing.T) {
	for _, mode := range []proxy.Mode{proxy.Silent, proxy.HalfOpen, proxy.UpOnly, proxy.DownOnly} {
		t.Run(mode.String(), func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, protocol int) {
				leak.Check(t)
				network := newNetwork(t, serveOn(t, nil, func(c net.Conn) { serveWhat(t, protocol, c) }))
				other := serveOn(t, nil, func(c net.Conn) { serveWhat(t, protocol, c) })
				cfg := testConfig()
				cfg.Protocol, cfg.Servers = protocol, []string{"tcp://" + network.Addr(), "tcp://" + other}
				cfg.StallTimeout, cfg.Backoff = seconds(1), Backoff{units.Duration(time.Millisecond), units.Duration(2 * time.Millisecond)}
				local := newLocal(numbered(100)...)
				r := newRig(t, cfg, local, new(net.Dialer).DialContext).start()
				<-local.empty()
				network.SetMode(mode)
				begin := time.Now()
				local.add(numbered(100)...)
				<-local.empty()
				took, s := time.Since(begin), r.Status()
				r.end()
				t.Logf("took %v", took)
				if s.Server != "tcp://"+other || s.Failures[causeStalled] == 0 || took > time.Minute {
					t.Errorf("after %v the status is %+v", took, s)
				}
			})
		})
	}
}

// A server that answers CONNECT and then reads no more, until the socket is full. It
// takes real sockets: the client waits for a lock meanwhile, which no bubble can.
func TestAServerThatReadsNoMoreIsLeft(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol int) {
		leak.Check(t)
		release := make(chan struct{})
		stuck := serveOn(t, nil, func(c net.Conn) {
			if protocol == 5 {
				upstream5{t, c}.accept(nil)
			} else {
				upstream{t, c}.accept(packets.Accepted)
			}
			<-release
		})
		other := serveOn(t, nil, func(c net.Conn) { serveWhat(t, protocol, c) })
		cfg := testConfig()
		cfg.Protocol, cfg.Servers = protocol, []string{"tcp://" + stuck, "tcp://" + other}
		cfg.StallTimeout, cfg.Backoff = seconds(1), Backoff{units.Duration(time.Millisecond), units.Duration(2 * time.Millisecond)}
		local := newLocal(large(100)...)
		for i := range local.queue {
			local.queue[i].QoS = 1
		}
		begin := time.Now()
		r := newRig(t, cfg, local, new(net.Dialer).DialContext).start()
		<-local.empty()
		took, s := time.Since(begin), r.Status()
		r.end()
		close(release)
		t.Logf("took %v, %v", took, s.Failures)
		if s.Failures[causeStalled]+s.Failures[causeUnread] == 0 || took > time.Minute {
			t.Errorf("after %v the status is %+v", took, s)
		}
	})
}

// serveWhat is a good server.
func serveWhat(t *testing.T, protocol int, c net.Conn) {
	if protocol == 5 {
		upstream5{t, c}.serve(nil)
	} else {
		upstream{t, c}.serve()
	}
}
