package bridge

import (
	"context"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/mqtt"
)

// The tests of this file run a real paho client in a bubble, where hours pass
// at once, against a scripted server at the other end of a pipe. A bubble ends
// only when all goroutines have, paho's too.

func TestEverythingArrivesInOrderAndIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, got := newLocal(readings(300)...), make(chan []string, 1)
		cfg := testConfig()
		cfg.MaxInflight, cfg.Username, cfg.Password = 7, "pump", "secret"
		r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) { got <- u.serve() })).start()
		<-local.empty()
		synctest.Wait()
		if s := r.Status(); s.State != Up || s.Acknowledged != 300 || s.InFlight != 0 || s.Connects != 1 || s.LastAck.IsZero() || s.Error != "" {
			t.Errorf("the status is %+v", s)
		}
		r.end()
		var want []string
		for _, m := range local.queue {
			want = append(want, "site/sensor/a "+string(m.Payload))
		}
		if got := <-got; !slices.Equal(got, want) {
			t.Errorf("the server got %q", got)
		}
		if want := []string{"0", "1", "0"}; !slices.Equal(local.states, want) {
			t.Errorf("the state topic had %q, want %q", local.states, want)
		}
		if r.log.count("level=INFO") != 2 || r.log.count("level=") != 2 || r.log.count("secret") != 0 {
			t.Errorf("the log is\n%s", r.log.text.String())
		}
	})
}

func TestConnectPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, connects := testConfig(), make(chan *packets.ConnectPacket, 1)
		cfg.Username, cfg.Password = "pump", "secret"
		r := newRig(t, cfg, newLocal(), piped(t, func(_ int, _ string, u upstream) {
			connects <- u.accept(packets.Accepted)
			u.publish()
		})).start()
		p := <-connects
		r.end()
		if p.ProtocolVersion != 4 || p.ClientIdentifier != "tidegate-pump-house-cloud" || p.Username != "pump" ||
			string(p.Password) != "secret" || !p.CleanSession || p.Keepalive != 30 {
			t.Errorf("CONNECT is %v", p)
		}
	})
}

func TestWhatALostConnectionOwesComesAgainInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, got := newLocal(readings(20)...), make(chan string, 100)
		cfg := testConfig()
		cfg.MaxInflight = 5
		r := newRig(t, cfg, local, piped(t, func(n int, _ string, u upstream) {
			u.accept(packets.Accepted)
			for i := 0; ; i++ {
				p := u.publish()
				if p == nil || n < 2 && i == 8 { // the first two connections lose five acknowledgements each
					return
				}
				got <- string(p.Payload)
				if n == 2 || i < 3 {
					u.ack(p)
				}
			}
		})).start()
		<-local.empty()
		r.end()
		synctest.Wait()
		close(got)
		var all strings.Builder
		for payload := range got {
			all.WriteString(payload)
		}
		if want := "abcdefgh" + "defghijk" + "ghijklmnopqrst"; all.String() != want {
			t.Errorf("the server got %s, want %s", all.String(), want)
		}
	})
}

func TestAStalledServerIsLeftForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal(readings(3)...)
		cfg := testConfig()
		cfg.Servers = []string{"tcp://deaf", "tcp://good:1884"}
		var begin, stalledAt time.Time
		r := newRig(t, cfg, local, piped(t, func(n int, address string, u upstream) {
			if address == "good:1884" {
				u.serve()
				return
			}
			begin = time.Now()
			u.accept(packets.Accepted)
			for u.publish() != nil { // never acknowledged
			}
			stalledAt = time.Now()
		})).start()
		<-local.empty()
		s := r.Status()
		r.end()
		synctest.Wait()
		if d := stalledAt.Sub(begin); d != 30*time.Second {
			t.Errorf("the stalled connection stood for %v, want 30s", d)
		}
		if s.Server != "tcp://good:1884" || s.Connects != 2 || !strings.Contains(s.Error, "tcp://deaf accepts but acknowledges nothing for 30s") {
			t.Errorf("the status is %+v", s)
		}
	})
}

func TestAConnectionWithNothingOwedDoesNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		r := newRig(t, testConfig(), local, piped(t, func(_ int, _ string, u upstream) { u.serve() })).start()
		time.Sleep(24 * time.Hour) // virtual
		local.add(readings(1)...)
		<-local.empty()
		synctest.Wait()
		if s := r.Status(); s.Connects != 1 || s.State != Up || time.Since(s.Since) != 24*time.Hour {
			t.Errorf("after a quiet day the status is %+v", s)
		}
		r.end()
	})
}

func TestASilentServerIsLeftAfterItsPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := make(chan time.Duration, 10)
		r := newRig(t, testConfig(), newLocal(), piped(t, func(n int, _ string, u upstream) {
			begin := time.Now()
			u.accept(packets.Accepted)
			for {
				if _, err := packets.ReadPacket(u); err != nil { // pings stay unanswered
					up <- time.Since(begin)
					return
				}
			}
		})).start()
		if d := <-up; d != 45*time.Second {
			t.Errorf("the silent connection stood for %v, want keepalive and 15s", d)
		}
		synctest.Wait()
		s := r.Status()
		r.end()
		if !strings.Contains(s.Error, "was silent for 45s in spite of pings") {
			t.Errorf("the error is %q", s.Error)
		}
	})
}

func TestHoursWithoutAServerAreOneLogLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, dials, back := newLocal(readings(1)...), 0, time.Now().Add(6*time.Hour)
		serve := piped(t, func(_ int, _ string, u upstream) { u.serve() })
		r := newRig(t, testConfig(), local, func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			if time.Now().Before(back) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			return serve(ctx, network, address)
		})
		begin := time.Now()
		r.start()
		time.Sleep(3 * time.Hour) // virtual
		if s := r.Status(); s.State != Down || !s.Since.Equal(begin) || !strings.HasPrefix(s.Error, "one:1883 refuses connections: is the broker running") {
			t.Errorf("after three hours the status is %+v", s)
		}
		if local.isOpen() {
			t.Error("the inbox is open though there is no link")
		}
		<-local.empty()
		if late := time.Since(back); late > 2*time.Minute {
			t.Errorf("came back %v late", late)
		}
		r.end()
		if dials < 180 || dials > 1000 { // from 2 minutes each to a third of that
			t.Errorf("dialed %d times in 6 hours", dials)
		}
		if r.log.count("level=WARN") != 1 || r.log.count("level=") != 3 {
			t.Errorf("the log is\n%s", r.log.text.String())
		}
	})
}

func TestOnlyAnAcknowledgementResetsTheBackOff(t *testing.T) {
	for name, acks := range map[string]bool{"acknowledges one message and closes": true, "closes after one message": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				connections := 0
				cfg := testConfig()
				r := newRig(t, cfg, newLocal(readings(100000)...), piped(t, func(n int, _ string, u upstream) {
					connections = n + 1
					u.accept(packets.Accepted)
					if p := u.publish(); p != nil && acks {
						u.ack(p)
						u.publish()
					}
				})).start()
				time.Sleep(20 * time.Minute) // virtual
				s := r.Status()
				r.end()
				synctest.Wait()
				if few := connections < 100; few == acks {
					t.Errorf("%d connections in 20 minutes", connections)
				}
				if !strings.Contains(s.Error, `another client uses the client id "tidegate-pump-house-cloud"`) {
					t.Errorf("the error is %q", s.Error)
				}
			})
		})
	}
}

func TestAConnectionThatStoodIdleResetsTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, testConfig(), newLocal(), piped(t, func(_ int, _ string, u upstream) {
			u.accept(packets.Accepted)
			time.Sleep(35 * time.Second) // virtual
		})).start()
		time.Sleep(2 * time.Hour) // virtual
		s := r.Status()
		r.end()
		time.Sleep(time.Minute) // the script's
		if s.Connects < 190 {   // of 7200s / (35s and a second or two)
			t.Errorf("only %d connections in two hours", s.Connects)
		}
	})
}

func TestStopIsQuickInEveryState(t *testing.T) {
	idle := func(u upstream) { u.accept(packets.Accepted); u.publish() }
	for name, c := range map[string]struct {
		dial  dialFunc
		owed  int
		limit time.Duration
		state State
	}{
		"backing off": {
			func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED },
			0, 0, Down,
		},
		"dialing": {
			func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			0, 0, Dialing,
		},
		"waiting for CONNACK": {
			piped(t, func(_ int, _ string, u upstream) { u.read(); u.read() }), 0, 0, Dialing,
		},
		"idle": {
			piped(t, func(_ int, _ string, u upstream) { idle(u) }), 0, 0, Up,
		},
		"idle, and the server does not read": {
			piped(t, func(_ int, _ string, u upstream) { u.accept(packets.Accepted); time.Sleep(time.Minute) }),
			0, closeTimeout / 2, Up,
		},
		"the server owes": {
			piped(t, func(_ int, _ string, u upstream) { u.accept(packets.Accepted); u.publish(); u.publish(); u.publish() }),
			2, drainTimeout, Up,
		},
		"the server does not read": {
			piped(t, func(_ int, _ string, u upstream) { u.accept(packets.Accepted); time.Sleep(time.Minute) }),
			200, drainTimeout + closeTimeout, Up,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, testConfig(), newLocal(readings(c.owed)...), c.dial).start()
				time.Sleep(999 * time.Millisecond) // virtual; the first back-off takes a second at least
				synctest.Wait()
				if s := r.Status(); s.State != c.state {
					t.Errorf("the state is %v, want %v", s.State, c.state)
				}
				if took := r.end(); took > c.limit {
					t.Errorf("stopping took %v, want %v at most", took, c.limit)
				}
				time.Sleep(time.Minute) // the script's
			})
		})
	}
}

func TestStoppingWaitsForAcknowledgementsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal(readings(firstWindow)...)
		disconnected := make(chan bool, 1)
		r := newRig(t, testConfig(), local, piped(t, func(_ int, _ string, u upstream) {
			u.accept(packets.Accepted)
			var got []*packets.PublishPacket
			for range firstWindow {
				got = append(got, u.publish())
			}
			time.Sleep(500 * time.Millisecond) // virtual
			for _, p := range got {
				u.ack(p)
			}
			_, polite := u.read().(*packets.DisconnectPacket)
			disconnected <- polite
		})).start()
		synctest.Wait()
		r.stop()
		synctest.Wait()
		if s := r.Status(); s.State != Draining || s.InFlight != firstWindow {
			t.Errorf("while stopping the status is %+v", s)
		}
		if took := r.end(); took != 500*time.Millisecond {
			t.Errorf("stopping took %v, want the server's 500ms", took)
		}
		if n := local.left(); n != 0 {
			t.Errorf("%d messages are left, and will arrive twice", n)
		}
		if !<-disconnected {
			t.Error("the server got no DISCONNECT")
		}
	})
}

func TestWhatCannotBeCarriedDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Out = []Rule{{Topics: []string{"command/#"}, Strip: "command"}, {Topics: []string{"sensor/#"}}}
		message := func(topic string) mqtt.Message { return mqtt.Message{Topic: topic} }
		local := newLocal(message("command"), message("sensor/a"), message("command"), message("old/rule"), message("command/x"))
		got := make(chan []string, 1)
		r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) { got <- u.serve() })).start()
		<-local.empty()
		s := r.Status()
		r.end()
		if s.Refused != 2 || s.Unmatched != 1 || s.LastUnmatched != "old/rule" {
			t.Errorf("the status is %+v", s)
		}
		if want := []string{"not_carried command", "not_carried command", "unmatched old/rule"}; !slices.Equal(local.lost, want) {
			t.Errorf("lost are %q, want %q", local.lost, want)
		}
		if got, want := <-got, []string{"sensor/a ", "/x "}; !slices.Equal(got, want) {
			t.Errorf("the server got %q, want %q", got, want)
		}
		if r.log.count("level=WARN") != 2 || r.log.count("filter=command/#") != 1 {
			t.Errorf("the log is\n%s", r.log.text.String())
		}
	})
}

func TestQoS0IsAcknowledgedWhenItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, zero := testConfig(), mqtt.AtMostOnce
		cfg.Out = append([]Rule{{Topics: []string{"fast/#"}, QoS: &zero}}, cfg.Out...)
		local := newLocal(readings(1)[0], mqtt.Message{Topic: "fast/x", Retain: true})
		got := make(chan *packets.PublishPacket, 2)
		r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
			u.accept(packets.Accepted)
			got <- u.publish()
			got <- u.publish()
			u.publish()
		})).start()
		first, second := <-got, <-got
		synctest.Wait()
		if first.Qos != 1 || second.Qos != 0 || !second.Retain || second.TopicName != "fast/x" {
			t.Errorf("the server got %v and %v", first, second)
		}
		if s := r.Status(); s.Acknowledged != 1 || s.InFlight != 1 || local.acked[0] || !local.acked[1] {
			t.Errorf("the status is %+v, acknowledged are %v", s, local.acked)
		}
		r.end()
	})
}

func TestAnInboxThatIsTakenAwayEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		r := newRig(t, testConfig(), local, piped(t, func(_ int, _ string, u upstream) { u.serve() })).start()
		synctest.Wait()
		if err := r.Declare(context.Background()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := r.Status(); s.State != Down || !strings.Contains(s.Error, "read the queue: closed") {
			t.Errorf("the status is %+v", s)
		}
		local.add(readings(1)...)
		<-local.empty()
		r.end()
		if local.opens != 3 {
			t.Errorf("the inbox was opened %d times, want 3", local.opens)
		}
	})
}

func TestGarbageFromTheServerEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal(readings(50)...)
		r := newRig(t, testConfig(), local, piped(t, func(n int, _ string, u upstream) {
			if n > 0 {
				u.serve()
				return
			}
			u.accept(packets.Accepted)
			u.publish()
			_, _ = u.Write([]byte{0xf0, 0x00}) // packet type 15
			for u.publish() != nil {
			}
		})).start()
		<-local.empty()
		if s := r.Status(); s.Connects != 2 || !strings.HasPrefix(s.Error, "connection to tcp://one:1883 lost") {
			t.Errorf("the status is %+v", s)
		}
		r.end()
	})
}

func TestDeclareOpensTheQueueAndLeavesIt(t *testing.T) {
	local := newLocal()
	r := newRig(t, testConfig(), local, nil)
	if err := r.Declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []mqtt.Subscription{
		{Filter: "sensor/#", QoS: 1, NoLocal: true, RetainAsPublished: true},
		{Filter: "$bridge/cloud/again/#", QoS: 1},
	}; !slices.Equal(local.subs, want) || local.opens != 1 || local.isOpen() {
		t.Errorf("opened %d times with %v", local.opens, local.subs)
	}
}

// A connection may end at any byte, with any number of messages under way.
func TestAConnectionMayEndAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections = 200
		local, n := newLocal(readings(connections)...), 0
		serve := piped(t, func(n int, _ string, u upstream) { u.serve() })
		r := newRig(t, testConfig(), local, cutting(serve, connections, &n)).start()
		<-local.empty()
		r.end()
	})
}

// cutting makes each of so many connections end a little later than the one before.
func cutting(dial dialFunc, connections int, n *int) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if *n++; *n < connections {
			conn = &shortConn{Conn: conn, left: *n * 3}
		}
		return conn, err
	}
}

// shortConn ends after a number of bytes in both directions together.
type shortConn struct {
	net.Conn
	left int
}

func (c *shortConn) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		_ = c.Conn.Close()
	}
	return c.Conn.Write(b)
}
