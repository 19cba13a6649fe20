package bridge

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/leak"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// listen plays a server over TCP until the test has ended: script gets each
// connection with its number, from 0.
func listen(t *testing.T, script func(n int, u upstream)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				script(n, upstream{t, conn})
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

func tcpRig(t *testing.T, address string, local *fakeLocal) *rig {
	t.Helper()
	cfg := testConfig()
	cfg.Servers = []string{"tcp://" + address}
	cfg.Backoff = Backoff{units.Duration(time.Millisecond), units.Duration(2 * time.Millisecond)}
	var dialer net.Dialer
	return newRig(t, cfg, local, dialer.DialContext).start()
}

// A lost connection leaves nothing of its paho client behind, whatever was under
// way, and costs no time.
func TestManyLostConnectionsLeaveNothingBehind(t *testing.T) {
	leak.Check(t)
	const connections = 100
	local := newLocal(numbered(2000)...)
	address := listen(t, func(n int, u upstream) {
		u.accept(packets.Accepted)
		for i := 0; i < 10 || n >= connections; i++ {
			p := u.publish()
			if p == nil {
				return
			}
			u.ack(p)
		}
		if n%2 == 0 { // and else an orderly end
			_ = u.Conn.(*net.TCPConn).SetLinger(0)
		}
	})
	begin := time.Now()
	r := tcpRig(t, address, local)
	<-local.empty()
	r.end() // only then has the last message been counted
	s := r.Status()
	if s.Connects < connections || s.Acknowledged != 2000 {
		t.Errorf("the status is %+v", s)
	}
	if took := time.Since(begin); took > 20*time.Second { // a client that is left to its time-outs takes 30s
		t.Errorf("took %v", took)
	}
}

func TestStoppingWhileTheServerDoesNotRead(t *testing.T) {
	leak.Check(t)
	release := make(chan struct{})
	address := listen(t, func(_ int, u upstream) {
		u.accept(packets.Accepted)
		<-release
	})
	r := tcpRig(t, address, newLocal(large(200)...))
	awaitStuck(r)
	r.endsInTime()
	close(release)
}

// endsInTime ends the bridge, which takes drainTimeout and closeTimeout at most, and
// what a busy machine adds. Without them it would wait until the server counts as
// stalled, for 30s.
func (r *rig) endsInTime() {
	r.t.Helper()
	if took := r.end(); took > 20*time.Second {
		r.t.Errorf("stopping took %v, want %v at most", took, drainTimeout+closeTimeout)
	}
}

// large returns messages of which 200 are more than the socket buffers hold.
func large(n int) (messages []mqtt.Message) {
	for i := range n {
		messages = append(messages, mqtt.Message{Topic: fmt.Sprint("sensor/", i), Payload: make([]byte, 256<<10)})
	}
	return messages
}

// awaitStuck waits until the number of messages under way stands still.
func awaitStuck(r *rig) {
	for stuck := 0; stuck < 50; stuck++ {
		before := r.Status().InFlight
		<-time.After(time.Millisecond)
		if before == 0 || r.Status().InFlight != before {
			stuck = 0
		}
	}
}
