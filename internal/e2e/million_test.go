//go:build linux

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

var queued = flag.Int("queued", 1_000_000, "messages that TestAMillionQueued queues")

// A backlog of a million goes upstream as fast as window and round trip allow, and what
// is published meanwhile does not notice with live_first. Nothing looks at what goes by,
// and without a round trip the bridge is connected to mosquitto itself: so the processor
// is left to those two, and to another client with the same window before and after,
// which says what there was to be had.
func TestAMillionQueued(t *testing.T) {
	if !isFull() {
		t.Skip("only with TIDEGATE_E2E=full: it takes minutes, and its figures need a quiet machine")
	}
	leak.Check(t)
	t.Log("| protocol, order, round trip, window | messages | msg/s | window / round trip measured | another client before, after | µs of the gateway, of mosquitto | RssAnon | live p99 quiet, draining | local |")
	for _, protocol := range []int{4, 5} {
		for _, order := range []string{"in_order", "live_first"} {
			for _, path := range []struct {
				rtt, window int
				rate        string
			}{{0, 100, "0"}, {0, 250, "0"}, {0, 250, "30000/s"}, {20, 250, "0"}, {200, 1000, "0"}} {
				t.Run(fmt.Sprintf("protocol %d %s %d ms %d at %s", protocol, order, path.rtt, path.window, strings.TrimSuffix(path.rate, "/s")), func(t *testing.T) {
					newYard(t, protocol, order, time.Duration(path.rtt)*time.Millisecond, path.window, path.rate).drain(*queued)
				})
			}
		}
	}
}

// yard is a gateway and mosquitto, with a network between them if it is to delay.
type yard struct {
	t        *testing.T
	protocol int
	order    string
	window   int
	conf     string
	cloud    edge // mosquitto itself
	server   *process
	way      string // to it
	g        *gateway
	quarters quarters
}

func newYard(t *testing.T, protocol int, order string, rtt time.Duration, window int, rate string) *yard {
	y := &yard{t: t, protocol: protocol, order: order, window: window, conf: filepath.Join(t.TempDir(), "mosquitto.conf"), way: testbed.ReserveAddr(t)}
	write(t, y.conf, fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\nuser %s\n", port(y.way), user()))
	if rtt == 0 {
		y.quarters = newQuarters(t)
	}
	y.open(y.way)
	if rtt > 0 {
		network, err := proxy.Listen(y.way)
		if err != nil {
			t.Fatal(err)
		}
		background(t, func(ctx context.Context) { _ = network.Run(ctx) })
		network.SetDelay(rtt / 2)
		y.way = network.Addr()
	}
	y.quarters.start(t, y.quarters.here, func() {
		y.g = newGatewayOf(t, fmt.Sprintf(`
    servers: ["tcp://%s"]
    protocol: %d
    max_inflight: %d
    catch_up: {order: %s, rate: %s}
`, y.way, protocol, window, order, rate))
	})
	y.g.awaitUplink()
	return y
}

// open starts mosquitto.
func (y *yard) open(address string) {
	y.quarters.start(y.t, y.quarters.there, func() { y.server = start(y.t, testbed.Find(y.t, "mosquitto"), "-c", y.conf) })
	y.server.awaitLine(y.t, "running")
	y.cloud.update(func() { y.cloud.address = address })
}

// shut ends mosquitto and returns where it was.
func (y *yard) shut() (address string) {
	y.cloud.update(func() { address, y.cloud.address = y.cloud.address, "" })
	y.server.end(syscall.SIGKILL)
	y.g.process.awaitLine(y.t, "bridge is down")
	return address
}

func (y *yard) drain(n int) {
	t := y.t
	live, local := y.newProbe("sensor/live/n", &y.cloud, prefix), y.newProbe("local/n", &y.g.edge, "")
	live.awaitCount(t, 20)
	urgent(t, true)
	mark(live, local)
	live.awaitCount(t, 1000)
	quiet, quietHere := live.phase(t), local.phase(t)
	urgent(t, false)

	trip := y.roundTrip()
	before := y.reference(n)
	address := y.shut()
	y.queue(n)
	y.open(address)
	live.awaitCount(t, len(live.took)+1)
	peak := y.g.process.measure(50 * time.Millisecond) // seldom: it takes of the gateway's processor
	cost, costThere := y.g.process.processorTime(t), y.server.processorTime(t)
	first := y.awaitBacklog(n - n/50)
	urgent(t, true)
	mark(live, local)
	last := y.awaitBacklog(n / 10) // not near the end: the next look may come after it
	busy, busyHere := live.phase(t), local.phase(t)
	urgent(t, false)
	y.awaitBacklog(100)
	cost, costThere = y.g.process.processorTime(t)-cost, y.server.processorTime(t)-costThere
	after := y.reference(n)
	rate := float64(first.left-last.left) / last.at.Sub(first.at).Seconds()
	nominal := float64(y.window) / trip.Seconds()
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(n) }
	t.Logf("| %d, %s, %.1f ms, %d | %d | %.0f | %.0f: %.0f %% | %.0f, %.0f: %.0f %% | %.1f, %.1f | %.1f MiB | %v, %v | %v, %v |",
		y.protocol, y.order, trip.Seconds()*1000, y.window, n, rate, nominal, 100*rate/nominal, before, after, 200*rate/(before+after),
		each(cost), each(costThere), float64(peak().anon)/(1<<20), quiet, busy, quietHere, busyHere)
}

// urgent has the threads of this program run before those of all others, or like them
// again, so that what it measures is not its own wait for a processor: in the field those
// who publish and who subscribe stand elsewhere. It needs root. The monitor of this program's
// runtime does not go first: it looks every 20 µs, and would take the gateway's processor each time.
func urgent(t testing.TB, on bool) {
	t.Helper()
	policy, priority := 0, int32(0) // SCHED_OTHER
	if on {
		policy, priority = 1, 1 // SCHED_FIFO
	}
	for _, id := range threads(t) {
		_, _, err := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(id), uintptr(policy), uintptr(unsafe.Pointer(&priority)))
		switch err {
		case 0, syscall.ESRCH: // it has ended meanwhile
		case syscall.EPERM:
			t.Log("without the right to go first, the waits of the measuring program are measured as well")
			return
		default:
			t.Fatal(err)
		}
	}
}

// threads returns those of this program but for the runtime's monitor, which is the first that it
// starts.
func threads(t testing.TB) (ids []int) {
	t.Helper()
	folder, err := os.Open("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(0) // in the order in which they were started
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Delete(names, 1, 2) {
		id, _ := strconv.Atoi(name)
		ids = append(ids, id)
	}
	return ids
}

// newProbe is a probe whose subscriber comes back.
func (y *yard) newProbe(topic string, to *edge, prefix string) *probe {
	p := &probe{sent: make(map[int]time.Time)}
	background(y.t, func(ctx context.Context) {
		for ctx.Err() == nil {
			sub, err := to.dial(ctx, client.Options{CleanSession: true, Handler: func(m client.Message) { p.arrived(m.Payload) }})
			if err != nil {
				return
			}
			if _, err := sub.Subscribe(ctx, mqtt.Subscription{Filter: prefix + topic, QoS: mqtt.AtLeastOnce}); err == nil {
				select {
				case <-sub.Done():
				case <-ctx.Done():
				}
			}
			sub.Close()
			pause(ctx)
		}
	})
	pub, err := y.g.dial(y.t.Context(), client.Options{CleanSession: true, Window: 1000})
	if err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(pub.Close)
	background(y.t, func(ctx context.Context) { p.run(ctx, pub, topic) })
	return p
}

// left is how much of a backlog there was when.
type left struct {
	left int64
	at   time.Time
}

// awaitBacklog waits until at most n messages are queued.
func (y *yard) awaitBacklog(n int) left {
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	late := time.After(time.Hour)
	for {
		select {
		case <-look.C:
		case <-late:
			y.t.Fatalf("more than %d messages are queued after an hour", n)
		}
		if b := y.g.status(y.t).Bridges[0].Backlog; b <= int64(n) {
			return left{b, time.Now()}
		}
	}
}

// queue publishes n messages of 128 bytes.
func (y *yard) queue(n int) {
	const publishers = 4
	var publishing sync.WaitGroup
	for i := range publishers {
		publishing.Go(func() {
			conn, err := y.g.dial(y.t.Context(), client.Options{CleanSession: true, Window: 1000})
			if err != nil {
				y.t.Error(err)
				return
			}
			defer conn.Close()
			publishAll(y.t, conn, fmt.Sprintf("sensor/p%d/n", i), n/publishers)
		})
	}
	publishing.Wait()
}

// publishAll publishes n messages of 128 bytes and returns when all are acknowledged.
func publishAll(t testing.TB, conn *client.Conn, topic string, n int) {
	payload, done, left := []byte(strings.Repeat(".", 128)), make(chan struct{}), atomic.Int64{}
	left.Store(int64(n))
	for range n {
		err := conn.PublishAsync(t.Context(), mqtt.Message{Topic: topic, Payload: payload, QoS: mqtt.AtLeastOnce}, func(err error) {
			if err != nil {
				t.Error(err)
			}
			if left.Add(-1) == 0 {
				close(done)
			}
		})
		if err != nil {
			t.Error(err)
			return
		}
	}
	<-done
}

// another connects another client with a window.
func (y *yard) another(window int) *client.Conn {
	version := packet.V311
	if y.protocol == 5 {
		version = packet.V5
	}
	conn, err := client.Dial(y.t.Context(), y.way, client.Options{CleanSession: true, Window: window, Version: version})
	if err != nil {
		y.t.Fatal(err)
	}
	return conn
}

// reference returns how many messages a second mosquitto takes of another client with
// the bridge's window, over the same way.
func (y *yard) reference(n int) float64 {
	conn := y.another(y.window)
	defer conn.Close()
	publishAll(y.t, conn, prefix+"sensor/p0/n", y.window)
	n = min(n, 50_000)
	began := time.Now()
	publishAll(y.t, conn, prefix+"sensor/p0/n", n)
	return float64(n) / time.Since(began).Seconds()
}

// roundTrip returns the median time of a message to mosquitto and its acknowledgement back.
func (y *yard) roundTrip() time.Duration {
	conn := y.another(1)
	defer conn.Close()
	var took []time.Duration
	for range 51 {
		began := time.Now()
		publishAll(y.t, conn, prefix+"sensor/p0/n", 1)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// processorTime is what the process has used up.
func (p *process) processorTime(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, system := 0, 0
	_, _ = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}
