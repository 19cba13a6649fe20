//go:build unix

package bridge

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tidegate/mqtt"
)

// BenchmarkUplink measures how fast a backlog of 200-byte messages drains from
// a queue in memory into a mosquitto on the same machine, at QoS 1 with the
// default window of 100, and with how many writes. Nobody subscribes there.
func BenchmarkUplink(b *testing.B) {
	for _, protocol := range []int{4, 5} {
		b.Run(fmt.Sprintf("protocol %d", protocol), func(b *testing.B) { benchmarkUplink(b, protocol) })
	}
}

func benchmarkUplink(b *testing.B, protocol int) {
	server := newMosquitto(b)
	cfg := testConfig()
	cfg.Servers, cfg.Protocol = []string{"tcp://" + server.Addr}, protocol
	messages := make([]mqtt.Message, b.N)
	payload := make([]byte, 200)
	for i := range messages {
		messages[i] = mqtt.Message{Topic: "sensor/weather/temperature", Payload: payload, QoS: mqtt.AtLeastOnce}
	}
	local, writes := newLocal(messages...), atomic.Int64{}
	var dialer net.Dialer
	r := newRig(b, cfg, local, func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return countedSocket{conn.(*net.TCPConn), &writes}, nil
	})
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime(b)
	r.start()
	<-local.empty()
	b.StopTimer()
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(writes.Load())/float64(b.N), "writes/op")
	r.end()
}

// processorTime is what this process has used up, without mosquitto.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// countedSocket is a socket that counts writes.
type countedSocket struct {
	*net.TCPConn
	writes *atomic.Int64
}

func (c countedSocket) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return countedCalls{raw, c.writes}, err
}

type countedCalls struct {
	syscall.RawConn
	writes *atomic.Int64
}

func (c countedCalls) Write(call func(fd uintptr) bool) error {
	c.writes.Add(1)
	return c.RawConn.Write(call)
}
