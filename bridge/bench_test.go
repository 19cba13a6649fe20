//go:build unix

package bridge

import (
	"net"
	"testing"

	"tidegate/mqtt"
)

// BenchmarkUplink measures how fast a backlog of 200-byte messages drains from
// a queue in memory into a mosquitto on the same machine, at QoS 1 with the
// default window of 100. Nobody subscribes there.
func BenchmarkUplink(b *testing.B) {
	server := newMosquitto(b)
	cfg := testConfig()
	cfg.Servers = []string{"tcp://" + server.Addr}
	messages := make([]mqtt.Message, b.N)
	payload := make([]byte, 200)
	for i := range messages {
		messages[i] = mqtt.Message{Topic: "sensor/weather/temperature", Payload: payload, QoS: mqtt.AtLeastOnce}
	}
	local := newLocal(messages...)
	var dialer net.Dialer
	r := newRig(b, cfg, local, dialer.DialContext)
	b.ReportAllocs()
	b.ResetTimer()
	r.start()
	<-local.empty()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	r.end()
}
