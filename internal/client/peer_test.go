package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tidegate/mqtt"
)

// peer plays the broker byte by byte. It runs inside a synctest bubble, where
// its deadline costs no time.
type peer struct {
	t    *testing.T
	conn net.Conn
}

const peerTimeout = 24 * time.Hour

// unhex reads bytes in hexadecimal; 'text' in quotes stands for its characters.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	var b []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			b = append(b, part...)
			continue
		}
		raw, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			t.Fatalf("test data %q: %v", s, err)
		}
		b = append(b, raw...)
	}
	return b
}

// expect reads exactly these bytes.
func (p *peer) expect(want string) {
	p.t.Helper()
	raw := unhex(p.t, want)
	got := make([]byte, len(raw))
	p.deadline()
	n, err := io.ReadFull(p.conn, got)
	if err != nil || !bytes.Equal(got, raw) {
		p.t.Fatalf("the client sent %x (%q), %v; want %x", got[:n], got[:n], err, raw)
	}
}

// expectWrite reads what the client sends with one write.
func (p *peer) expectWrite(want string) {
	p.t.Helper()
	raw := unhex(p.t, want)
	got := make([]byte, 1<<20)
	p.deadline()
	n, err := p.conn.Read(got)
	if err != nil || !bytes.Equal(got[:n], raw) {
		p.t.Fatalf("the client sent %x (%q) at once, %v; want %x", got[:n], got[:n], err, raw)
	}
}

// expectEnd reads the end of the connection.
func (p *peer) expectEnd() {
	p.t.Helper()
	_ = p.conn.SetDeadline(time.Now().Add(peerTimeout)) // fails if the end has come already
	if rest, err := io.ReadAll(p.conn); err != nil || len(rest) > 0 {
		p.t.Fatalf("the client sent %x, %v; want the end of the connection", rest, err)
	}
}

func (p *peer) send(s string) {
	p.t.Helper()
	p.deadline()
	if _, err := p.conn.Write(unhex(p.t, s)); err != nil {
		p.t.Fatalf("send %s to the client: %v", s, err)
	}
}

func (p *peer) deadline() {
	p.t.Helper()
	if err := p.conn.SetDeadline(time.Now().Add(peerTimeout)); err != nil {
		p.t.Fatal(err)
	}
}

// result runs f in the background; the answer is what it returns.
func result[T any](f func() T) <-chan T {
	answer := make(chan T, 1)
	go func() { answer <- f() }()
	return answer
}

type opened struct {
	conn *Conn
	err  error
}

// dialPeer begins a connection whose other end is the test's.
func dialPeer(t *testing.T, ctx context.Context, o Options) (*peer, <-chan opened) {
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	return &peer{t, far}, result(func() opened {
		c, err := Connect(ctx, near, o)
		return opened{c, err}
	})
}

// connect opens a clean session of the client id "c".
func connect(t *testing.T, o Options) (*Conn, *peer) {
	t.Helper()
	o.ClientID, o.CleanSession = "c", true
	p, open := dialPeer(t, t.Context(), o)
	got := make([]byte, 15)
	p.deadline()
	if _, err := io.ReadFull(p.conn, got); err != nil || string(got[13:]) != "\x01c" {
		t.Fatalf("CONNECT %x, %v", got, err)
	}
	p.send("20 02 00 00")
	r := <-open
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(r.conn.Close)
	return r.conn, p
}

func message(topic, payload string, q mqtt.QoS) mqtt.Message {
	return mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: q}
}
