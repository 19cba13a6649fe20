package load

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"

	"tidegate/internal/leak"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// relay is a broker that does to messages what brokers should not: it sends every
// subscriber, at QoS 0, what mangle makes of each message, in the order of their
// arrival. It acknowledges all of them.
type relay struct {
	listener net.Listener
	mangle   func(n int, payload []byte) [][]byte
	wg       sync.WaitGroup

	mu    sync.Mutex // guards what follows, and writes
	count int        // messages that came
	conns map[net.Conn]bool
	subs  []net.Conn
}

// startRelay runs a relay until the test ends.
func startRelay(t *testing.T, mangle func(n int, payload []byte) [][]byte) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: ln, mangle: mangle, conns: make(map[net.Conn]bool)}
	r.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[nc] = true
			r.mu.Unlock()
			r.wg.Go(func() { r.serve(nc) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		for nc := range r.conns {
			nc.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

// serve answers the packets of a client of MQTT 3.1.1.
func (r *relay) serve(nc net.Conn) {
	defer nc.Close()
	var in []byte
	chunk := make([]byte, 4096)
	for {
		n, err := nc.Read(chunk)
		if err != nil {
			return
		}
		in = append(in, chunk[:n]...)
		for {
			f, n, _, err := packet.Split(in, maxPacket)
			if err != nil || n == 0 {
				break
			}
			r.handle(nc, f)
			in = in[n:]
		}
	}
}

func (r *relay) handle(nc net.Conn, f packet.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch f.Type() {
	case packet.TypeConnect:
		nc.Write((&packet.Connack{}).Append(nil))
	case packet.TypeSubscribe:
		var s packet.Subscribe
		s.Decode(f)
		r.subs = append(r.subs, nc)
		nc.Write((&packet.Suback{ID: s.ID, Codes: make([]mqtt.QoS, len(s.Subscriptions))}).Append(nil))
	case packet.TypePublish:
		var p packet.Publish
		p.Decode(f)
		for _, payload := range r.mangle(r.count, append([]byte{}, p.Payload...)) {
			for _, sub := range r.subs {
				sub.Write((&packet.Publish{Topic: p.Topic, Payload: payload}).Append(nil))
			}
		}
		r.count++
		nc.Write((&packet.Ack{Type: packet.TypePuback, ID: p.ID}).Append(nil))
	}
}

// What a broker does wrong is counted as it is.
func TestMistakesOfBrokers(t *testing.T) {
	var held []byte
	for _, c := range []struct {
		name   string
		mangle func(n int, payload []byte) [][]byte
		want   Report // its counts
	}{
		{"none", func(_ int, p []byte) [][]byte { return [][]byte{p} }, Report{Received: 100}},
		{
			"loses each tenth",
			func(n int, p []byte) [][]byte {
				if n%10 == 9 {
					return nil
				}
				return [][]byte{p}
			},
			Report{Received: 90, Lost: 10},
		},
		{"sends all twice", func(_ int, p []byte) [][]byte { return [][]byte{p, p} }, Report{Received: 200, Duplicates: 100}},
		{
			"swaps neighbours",
			func(n int, p []byte) [][]byte {
				if n%2 == 0 {
					held = p
					return nil
				}
				return [][]byte{p, held}
			},
			Report{Received: 100, Unordered: 50},
		},
		{"sends something else", func(int, []byte) [][]byte { return [][]byte{[]byte("21.4")} }, Report{Lost: 100, Foreign: 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			leak.Check(t)
			o := lawful(startRelay(t, c.mangle).listener.Addr().String())
			o.Scenario, o.N = "fanin", 1
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			got := Report{Received: r.Received, Lost: r.Lost, Duplicates: r.Duplicates, Unordered: r.Unordered, Foreign: r.Foreign}
			if got != c.want {
				t.Errorf("counted %+v, want %+v", got, c.want)
			}
			if r.Error != "" || r.Sent != 100 || r.Acked != 100 || r.Expected != 100 {
				t.Errorf("report %+v", r)
			}
		})
	}
}

// Losses narrow the end-to-end window only until they are given up.
func TestLossesDoNotStopPublishers(t *testing.T) {
	o := lawful(startRelay(t, func(int, []byte) [][]byte { return nil }).listener.Addr().String())
	o.Scenario, o.N, o.Count, o.E2E, o.Drain = "fanin", 1, 3, 1, 1
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent != 3 || r.Lost != 3 || r.Error != "" {
		t.Errorf("sent %d, lost %d, error %q; want 3, 3 and none", r.Sent, r.Lost, r.Error)
	}
}

func TestRunStops(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	relay := startRelay(t, func(n int, _ []byte) [][]byte {
		if n == 5 {
			cancel()
		}
		return nil
	})
	o := lawful(relay.listener.Addr().String())
	o.Scenario, o.N, o.E2E, o.Drain = "fanin", 1, 6, maxTime
	if _, err := Run(ctx, o); err == nil {
		t.Error("a run that was interrupted has a report")
	}
}

func TestBrokerGone(t *testing.T) {
	leak.Check(t)
	var r *relay
	r = startRelay(t, func(n int, p []byte) [][]byte {
		if n == 5 {
			for nc := range r.conns { // mangle is called under the lock
				nc.Close()
			}
		}
		return [][]byte{p}
	})
	o := lawful(r.listener.Addr().String())
	o.Scenario, o.N = "fanin", 1
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(report.Error, "publisher 0") || report.ConnectionsLost != 1 {
		t.Errorf("error %q and %d lost connections, want the publisher's and 1", report.Error, report.ConnectionsLost)
	}
}

func TestReportText(t *testing.T) {
	for _, c := range []struct {
		name string
		r    Report
		want string
	}{
		{
			"messages",
			Report{
				Scenario: "p2p", Version: 5, QoS: 1, Sent: 1000, Expected: 1000, Received: 998, Lost: 3, Duplicates: 1, Seconds: 2, MsgPerSecond: 499, SentPerSecond: 500,
				Latency: &Latency{P50: 71.2, P90: 120, P99: 210.4, Max: 3000}, GeneratorCPU: .25,
				Broker: &Cost{CPU: .05, CPUPerMsg: 46.1, RSSPeak: 8_800_000, AnonPeak: 2_300_000, DiskPerMsg: 208, DiskStored: 140},
			},
			"p2p, MQTT 5, QoS 1: 997 of 1000 delivered in 2.00 s (499/s), sent at 500/s; 3 lost, 1 twice, 0 out of order; p50 71 µs, p90 120 µs, p99 210 µs, max 3000 µs; broker 0.05 s CPU (46.10 µs a message), 208 B to disk a message (140 before the client came back), RSS 8.8 MB (anonymous 2.3); generator 0.25 s CPU",
		},
		{
			"connections, of a broker that is not measured",
			Report{Scenario: "conns", Version: 4, N: 1000, Connections: 990, Seconds: .5, ConnectionsPerSecond: 1980, ConnectionsLost: 2, Error: "refused"},
			"conns, MQTT 3.1.1, QoS 0: 990 of 1000 connections in 0.50 s (1980/s), 2 lost; generator 0.00 s CPU; FAILED: refused",
		},
	} {
		if got := c.r.String(); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		if text, err := json.Marshal(&c.r); err != nil || !json.Valid(text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
