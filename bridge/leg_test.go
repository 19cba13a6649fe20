package bridge

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A server that is left gets DISCONNECT, and what it was sent is not sent again.
func TestReconnectTakesLeaveAndDialsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, leaves := newLocal(readings(3)...), 0
		var got []string
		r := newRig(t, testConfig(), local, piped(t, func(_ int, _ string, u upstream) {
			u.accept(packets.Accepted)
			for {
				switch p := u.read().(type) {
				case *packets.PublishPacket:
					got = append(got, string(p.Payload))
					u.ack(p)
				case *packets.DisconnectPacket:
					leaves++
				case nil:
					return
				}
			}
		})).start()
		<-local.empty()
		synctest.Wait()
		time.Sleep(time.Hour) // virtual
		r.Reconnect()
		synctest.Wait()
		if s := r.Status(); s.State != Up || s.Connects != 2 || !s.Since.Equal(time.Now()) || s.Error != "" || len(s.Failures) != 0 {
			t.Errorf("the status is %+v", s)
		}
		local.add(readings(4)[3])
		<-local.empty()
		r.end()
		synctest.Wait()
		if !slices.Equal(got, []string{"a", "b", "c", "d"}) || leaves != 2 {
			t.Errorf("the server got %q and %d DISCONNECT", got, leaves)
		}
		if want := []string{"0", "1", "0", "1", "0"}; !slices.Equal(local.states, want) {
			t.Errorf("the state topic had %q, want %q", local.states, want)
		}
		if r.log.count("level=WARN") != 0 || r.log.count("connects anew") != 1 {
			t.Errorf("the log is\n%s", r.log.text.String())
		}
	})
}

// A connection that hangs cannot hold it up for longer than a stop.
func TestReconnectLeavesAServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal(readings(3)...)
		r := newRig(t, testConfig(), local, piped(t, func(n int, _ string, u upstream) {
			if n > 0 {
				u.serve()
				return
			}
			u.accept(packets.Accepted)
			for u.publish() != nil { // never acknowledged
			}
		})).start()
		synctest.Wait()
		begin := time.Now()
		r.Reconnect()
		<-local.empty()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		r.end()
	})
}

// After it the waits begin at backoff.min again.
func TestReconnectEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials, last atomic.Int64
		r := newRig(t, testConfig(), newLocal(readings(1)...), func(_ context.Context, network, _ string) (net.Conn, error) {
			dials.Add(1)
			last.Store(time.Now().UnixNano())
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		})
		r.cfg.Backoff.Min, r.cfg.Backoff.Max = seconds(1), seconds(3600)
		r.start()
		for range 10 {
			time.Sleep(time.Hour) // virtual
			synctest.Wait()
			n := dials.Load()
			r.Reconnect()
			synctest.Wait()
			if dials.Load() != n+1 || last.Load() != time.Now().UnixNano() {
				t.Fatalf("%d dials more, %v ago", dials.Load()-n, time.Duration(time.Now().UnixNano()-last.Load()))
			}
			time.Sleep(2 * time.Second) // virtual; twice backoff.min
			synctest.Wait()
			if dials.Load() < n+2 {
				t.Error("the next wait is longer than the first one may be")
			}
		}
		r.end()
	})
}

// A try that would take its time gives way to another, and is no failure.
func TestReconnectEndsATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, n := newLocal(readings(1)...), 0
		serve := piped(t, func(_ int, _ string, u upstream) { u.serve() })
		r := newRig(t, testConfig(), local, func(ctx context.Context, network, address string) (net.Conn, error) {
			if n++; n == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return serve(ctx, network, address)
		}).start()
		synctest.Wait()
		if s := r.Status(); s.State != Dialing {
			t.Fatalf("the status is %+v", s)
		}
		begin := time.Now()
		r.Reconnect()
		<-local.empty()
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v", took)
		}
		if s := r.Status(); s.Error != "" || len(s.Failures) != 0 {
			t.Errorf("the status is %+v", s)
		}
		r.end()
	})
}

// The server that the bridge is at stays the one.
func TestReconnectStaysAtItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := &twoServers{t: t}, newLocal(numbered(1)...)
		r := twoServerRig(t, s, local, 10*time.Minute)
		<-local.empty()
		synctest.Wait()
		r.Reconnect()
		synctest.Wait()
		if st := r.Status(); st.Server != "tcp://two:1883" || st.State != Up || st.Connects != 2 {
			t.Errorf("the status is %+v", st)
		}
		r.end()
	})
}
