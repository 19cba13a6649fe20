package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/leak"
)

func TestWhatIsGatheredAndWhenItGoes(t *testing.T) {
	const publish, ping = "\x30", "\xc0"
	large := publish + strings.Repeat("l", maxGathered)
	for name, c := range map[string]struct {
		steps []string // "." flush, else a packet
		want  []string // writes
	}{
		"what is published goes with flush":            {[]string{publish + "1", publish + "2", "."}, []string{publish + "1" + publish + "2"}},
		"it does not go before":                        {[]string{publish + "1", publish + "2"}, nil},
		"a ping goes at once, behind what came before": {[]string{publish + "1", ping, publish + "2", "."}, []string{publish + "1" + ping, publish + "2"}},
		"much is not kept":                             {[]string{publish + "1", large, publish + "2"}, []string{publish + "1" + large}},
		"flush is for what is there":                   {[]string{".", publish + "1", publish + "2", ".", "."}, []string{publish + "1" + publish + "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			g := gather{write: func(b []byte) error { got = append(got, string(b)); return nil }}
			for _, step := range c.steps {
				if step == "." {
					_ = g.flush()
					continue
				}
				g.put([]byte(step))
				_ = g.drive()
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("the writes are %q, want %q", got, c.want)
			}
		})
	}
}

// unplugged is a connection that takes nothing.
type unplugged struct{ net.Conn }

func (unplugged) Write([]byte) (int, error) { return 0, errUnplugged }

var errUnplugged = errors.New("unplugged")

// What was gathered and cannot be written ends the link, whoever has it written.
func TestAWriteThatFailsLaterEndsTheLink(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	w := newWire(unplugged{here}, time.Minute, time.Minute, maxRemaining)
	w.arm()
	if n, err := w.Write([]byte("\x30\x00")); n != 2 || err != nil || w.alive.Err() != nil {
		t.Fatalf("a packet that is kept: %d, %v", n, err)
	}
	if w.flush(); !errors.Is(context.Cause(w.alive), errUnplugged) {
		t.Errorf("the link ended with %v", context.Cause(w.alive))
	}
}

// A server that takes nothing any more is noticed by the write of what was gathered.
func TestAWriteHasATimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		w := newWire(here, time.Hour, 30*time.Second, maxRemaining)
		w.arm()
		_, _ = w.Write([]byte("\x30\x00"))
		begin := time.Now()
		if w.flush(); !errors.Is(context.Cause(w.alive), errNotReading) || time.Since(begin) != 30*time.Second {
			t.Errorf("after %v the link ended with %v", time.Since(begin), context.Cause(w.alive))
		}
	})
}

// counted is a connection that counts writes.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// A server that acknowledges several messages at once gets as many at once.
func TestABacklogGoesInFewWrites(t *testing.T) {
	leak.Check(t)
	const n = 2000
	for _, protocol := range []int{4, 5} {
		t.Run(fmt.Sprintf("protocol %d", protocol), func(t *testing.T) {
			local, writes := newLocal(readings(n)...), atomic.Int64{}
			dial := piped(t, func(_ int, _ string, u upstream) { acknowledgeTogether(protocol, u, n) })
			cfg := testConfig()
			cfg.Protocol = protocol
			r := newRig(t, cfg, local, func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				return counted{conn, &writes}, err
			}).start()
			<-local.empty()
			r.end()
			if w := writes.Load(); w > n/4 {
				t.Errorf("%d writes for %d messages", w, n)
			}
		})
	}
}

// acknowledgeTogether acknowledges n messages, as many at once as the window holds.
func acknowledgeTogether(protocol int, u upstream, n int) {
	var read func(io.Writer)
	if protocol == 5 {
		read = acknowledge5(upstream5(u))
	} else {
		read = acknowledge4(u)
	}
	var acks bytes.Buffer
	for got, lump := 0, firstWindow; got < n; lump = min(2*lump, 100, n-got) {
		acks.Reset()
		for range lump {
			read(&acks)
		}
		got += lump
		_, _ = u.Write(acks.Bytes())
	}
	read(io.Discard) // the end
}

// acknowledge4 accepts a client and returns what reads a message of it and writes the
// acknowledgement to w.
func acknowledge4(u upstream) (read func(w io.Writer)) {
	u.accept(packets.Accepted)
	return func(w io.Writer) {
		if p := u.publish(); p != nil {
			answer := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
			answer.MessageID = p.MessageID
			_ = answer.Write(w)
		}
	}
}

// acknowledge5 is acknowledge4 in MQTT 5.
func acknowledge5(u upstream5) (read func(w io.Writer)) {
	u.accept(nil)
	return func(w io.Writer) {
		if p, ok := u.read().(*packets5.Publish); ok {
			answer := packets5.NewControlPacket(packets5.PUBACK)
			answer.Content.(*packets5.Puback).PacketID = p.PacketID
			_, _ = answer.WriteTo(w)
		}
	}
}

// What is brought while somebody writes goes out with the next write, and nobody brings
// without bound.
func TestWhatComesMeanwhileIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		w := newWire(here, time.Hour, time.Hour, maxRemaining)
		w.arm()
		packet := append([]byte("\x30\xfd\x07"), make([]byte, 1021)...)
		brought, done := atomic.Int64{}, make(chan struct{})
		go func() {
			_, _ = w.Write(packet)
			w.flush()
		}()
		synctest.Wait()
		go func() {
			defer close(done)
			for range 100 {
				_, _ = w.Write(packet)
				brought.Add(1)
			}
			w.flush()
		}()
		synctest.Wait()
		if n := brought.Load(); n != maxGathered>>10 {
			t.Errorf("%d packets of 1 KiB wait, want %d", n, maxGathered>>10)
		}
		got, _ := io.ReadFull(there, make([]byte, 101<<10))
		if <-done; got != 101<<10 {
			t.Errorf("%d bytes arrive", got)
		}
		_ = there.Close()
	})
}

// Paho closes the connection as soon as it has handed DISCONNECT over.
func TestWhatIsHandedOverBeforeTheLeaveIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		w := newWire(here, time.Hour, time.Hour, 1024)
		ping, disconnect := []byte{0xc0, 0}, []byte{0xe0, 0}
		go w.Write(ping) // nobody reads yet
		synctest.Wait()
		w.hurry(time.Second)
		if _, err := w.Write(disconnect); err != nil {
			t.Fatal(err)
		}
		go w.Close()
		synctest.Wait()
		if got, err := io.ReadAll(there); err != nil || !bytes.Equal(got, append(ping, disconnect...)) {
			t.Errorf("the server got %x, %v", got, err)
		}
	})
}

// A server that reads nothing does not hold up the leave for long.
func TestTheLeaveOfAServerThatReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		w := newWire(here, time.Hour, time.Hour, 1024)
		go w.Write([]byte{0xc0, 0})
		synctest.Wait()
		w.hurry(time.Second)
		begin := time.Now()
		w.Close()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A write that has failed may have stopped in the middle of a packet: what follows would be
// taken for the rest of it.
func TestNothingFollowsAWriteThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		w := newWire(here, time.Hour, time.Second, 1024)
		w.up.Store(true)
		_, _ = w.Write([]byte{0x30, 5, 0, 1, 'a', 'x', 'y'})
		go w.flush()
		synctest.Wait()
		go w.Write([]byte{0xc0, 0})
		synctest.Wait()
		_, _ = io.ReadFull(there, make([]byte, 5))
		time.Sleep(time.Second + 1)
		if got, err := io.ReadAll(there); err != nil || len(got) > 0 {
			t.Errorf("then the server got %x, %v", got, err)
		}
		if err := context.Cause(w.alive); !errors.Is(err, errNotReading) {
			t.Errorf("the link ended with %v", err)
		}
	})
}
