package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/testbed"
)

// patience is for what must happen but may take its time on a busy machine.
const patience = time.Minute

// echo is a server that sends back what it gets and counts its connections.
type echo struct {
	net.Listener
	accepted chan net.Conn
}

func newEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{l, make(chan net.Conn, 100)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.accepted <- c
			serving.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return e
}

// newSink is a server whose connections are the test's.
func newSink(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{l, make(chan net.Conn, 100)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			e.accepted <- c
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
		for len(e.accepted) > 0 {
			_ = (<-e.accepted).Close()
		}
	})
	return e
}

// start runs a proxy to target until the test has ended.
func start(t *testing.T, target string) *Proxy {
	t.Helper()
	p, err := Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returns %v", err)
		}
	})
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// exchange sends text through c and reports whether it came back.
func exchange(t *testing.T, c net.Conn, text string) bool {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		return false
	}
	got := make([]byte, len(text))
	_, err := io.ReadFull(c, got)
	return err == nil && string(got) == text
}

// isReset reports whether c ends with an error that is no orderly end.
func isReset(c net.Conn) bool {
	_, err := io.Copy(io.Discard, c)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// refuses reports whether a new connection is reset, be it as early as in dial.
func refuses(p *Proxy) bool {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return true
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	return isReset(c)
}

func TestPassCarriesEveryByteAndTheEnd(t *testing.T) {
	leak.Check(t)
	p := start(t, newEcho(t).Addr().String())
	c, sent := dial(t, p), make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
}

func TestCutResetsWhatStandsAndWhatComes(t *testing.T) {
	leak.Check(t)
	p := start(t, newEcho(t).Addr().String())
	before := dial(t, p)
	if !exchange(t, before, "one") {
		t.Fatal("the proxy does not pass")
	}
	p.SetMode(Cut)
	if !isReset(before) {
		t.Error("the old connection was not reset")
	}
	if !refuses(p) {
		t.Error("a new connection was not reset")
	}
	p.SetMode(Pass)
	if !exchange(t, dial(t, p), "two") {
		t.Error("the proxy does not pass after the cut")
	}
}

func TestSilentKeepsConnectionsAndSwallowsBytes(t *testing.T) {
	leak.Check(t)
	server := newEcho(t)
	p := start(t, server.Addr().String())
	before := dial(t, p)
	if !exchange(t, before, "one") {
		t.Fatal("the proxy does not pass")
	}
	behind := <-server.accepted
	p.SetMode(Silent)
	during := dial(t, p)
	for _, c := range []net.Conn{before, during, behind} {
		if _, err := c.Write(make([]byte, 16<<20)); err != nil { // more than the sockets hold, so the proxy has it
			t.Errorf("writing into the silence: %v", err)
		}
	}
	for _, c := range []net.Conn{before, during} {
		if !isDeaf(c) {
			t.Error("something comes out of the silence")
		}
	}
	if n := len(server.accepted); n != 0 {
		t.Errorf("%d connections reached the server", n)
	}
	p.SetMode(Pass)
	if !isReset(before) || !isReset(during) {
		t.Error("a connection with holes was not reset")
	}
	if !exchange(t, dial(t, p), "two") {
		t.Error("the proxy does not pass after the silence")
	}
}

func TestSilentHidesTheEnd(t *testing.T) {
	leak.Check(t)
	server := newEcho(t)
	p := start(t, server.Addr().String())
	c := dial(t, p)
	if !exchange(t, c, "one") {
		t.Fatal("the proxy does not pass")
	}
	behind := <-server.accepted
	p.SetMode(Silent)
	_ = behind.Close()
	if !isDeaf(c) {
		t.Error("the client heard of the end")
	}
}

func TestTargetMayMoveOrBeDown(t *testing.T) {
	leak.Check(t)
	p := start(t, testbed.ReserveAddr(t))
	if !refuses(p) {
		t.Error("a connection to a dead target was not reset")
	}
	p.SetTarget(newEcho(t).Addr().String())
	if !exchange(t, dial(t, p), "two") {
		t.Error("the proxy does not pass to its new target")
	}
}

func TestCloseEndsRun(t *testing.T) {
	leak.Check(t)
	p, err := Listen(newEcho(t).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- p.Run(t.Context()) }()
	c := dial(t, p)
	if !exchange(t, c, "one") {
		t.Fatal("the proxy does not pass")
	}
	if err := errors.Join(p.Close(), <-ended, p.Close()); err != nil {
		t.Error(err)
	}
	if !isReset(c) {
		t.Error("the connection was not reset")
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		_ = c.Close()
		t.Error("the proxy still listens")
	}
}

// hears reports whether a byte comes to c.
func hears(c net.Conn) bool {
	n, _ := c.Read(make([]byte, 1))
	return n > 0
}

// isDeaf reports whether for a moment nothing comes to c, not even its end.
func isDeaf(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	defer c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

func TestDropEndsInAnOrderlyWay(t *testing.T) {
	leak.Check(t)
	p := start(t, newEcho(t).Addr().String())
	before := dial(t, p)
	if !exchange(t, before, "one") {
		t.Fatal("the proxy does not pass")
	}
	p.SetMode(Drop)
	for name, c := range map[string]net.Conn{"old": before, "new": dial(t, p)} {
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("the %s connection ends with %v", name, err)
		}
	}
	p.SetMode(Pass)
	if !exchange(t, dial(t, p), "two") {
		t.Error("the proxy does not pass afterwards")
	}
}

func TestOneWay(t *testing.T) {
	leak.Check(t)
	for _, mode := range []Mode{UpOnly, DownOnly} {
		t.Run(mode.String(), func(t *testing.T) {
			server := newSink(t)
			p := start(t, server.Addr().String())
			c := dial(t, p)
			behind := <-server.accepted
			p.SetMode(mode)
			for _, end := range []net.Conn{c, behind} {
				if _, err := end.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			there, lost := behind, c
			if mode == DownOnly {
				there, lost = c, behind
			}
			if !hears(there) || !isDeaf(lost) {
				t.Error("passes nothing, or both ways")
			}
			p.SetMode(Pass)
			if !isReset(c) {
				t.Error("a connection with holes was not reset")
			}
		})
	}
}

func TestHalfOpenIsNewsForTheServerOnly(t *testing.T) {
	leak.Check(t)
	server := newSink(t)
	p := start(t, server.Addr().String())
	c := dial(t, p)
	behind := <-server.accepted
	if _, err := c.Write([]byte("a")); err != nil || !hears(behind) { // only then the proxy has both sides
		t.Fatalf("nothing passes: %v", err)
	}
	p.SetMode(HalfOpen)
	if !isReset(behind) {
		t.Error("the server did not hear of it")
	}
	if _, err := c.Write(make([]byte, 1<<20)); err != nil || !isDeaf(c) {
		t.Errorf("the client heard of it: %v", err)
	}
	p.SetMode(Pass)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("the client heard of it: %v", err)
	}
	next := dial(t, p)
	if _, err := next.Write([]byte("y")); err != nil || !hears(<-server.accepted) {
		t.Errorf("a new connection does not pass: %v", err)
	}
}

func TestDelayIsNoLimitToTheRate(t *testing.T) {
	leak.Check(t)
	p := start(t, newEcho(t).Addr().String())
	const delay = 100 * time.Millisecond
	p.SetDelay(delay)
	c, begin := dial(t, p), time.Now()
	if !exchange(t, c, "one") {
		t.Fatal("the proxy does not pass")
	}
	if took := time.Since(begin); took < 2*delay {
		t.Errorf("a round trip takes %v, less than twice the delay", took)
	}
	begin = time.Now()
	go func() { _, _ = c.Write(make([]byte, 100*readSize)) }()
	if _, err := io.ReadFull(c, make([]byte, 100*readSize)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 100*delay {
		t.Errorf("a hundred reads take %v: one waits for the other", took)
	}
}

func TestRate(t *testing.T) {
	leak.Check(t)
	server := newSink(t)
	p := start(t, server.Addr().String())
	const rate = 100_000
	p.SetRate(rate)
	c := dial(t, p)
	behind, begin := <-server.accepted, time.Now()
	if _, err := c.Write(make([]byte, rate/4)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(behind, make([]byte, rate/4)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 150*time.Millisecond {
		t.Errorf("a quarter of a second's bytes took %v", took)
	}
}

func TestModesHaveNames(t *testing.T) {
	names := map[Mode]string{Pass: "pass", Cut: "cut", Drop: "drop", Silent: "silent", UpOnly: "up only", DownOnly: "down only", HalfOpen: "half-open", 9: "Mode(9)"}
	for m, want := range names {
		if got := m.String(); got != want {
			t.Errorf("mode %d is called %q, want %q", int(m), got, want)
		}
	}
}
