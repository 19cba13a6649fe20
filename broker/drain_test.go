//go:build unix

package broker

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"tidegate/mqtt"
)

// queued serves a broker with n messages of 128 bytes on disk, on a few topics, for an
// inbox that is absent.
func queued(tb testing.TB, n int) *Broker {
	d := benchBroker(tb)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			tb.Error(err)
		}
	})
	openDrain(tb, d, false).Close()
	m := mqtt.Message{Payload: make([]byte, 128), QoS: mqtt.AtLeastOnce}
	for i := range n {
		m.Topic = fmt.Sprint("site/a/sensor/", i%10)
		if err := d.PublishAsync(ctx, m, nil); err != nil {
			tb.Fatal(err)
		}
	}
	if err := d.Publish(ctx, m); err != nil { // all before it are on disk then
		tb.Fatal(err)
	}
	return d
}

func openDrain(tb testing.TB, d *Broker, liveFirst bool) mqtt.Inbox {
	o := mqtt.InboxOptions{LiveFirst: liveFirst}
	in, err := d.OpenInbox(tb.Context(), "up", o, mqtt.Subscription{Filter: "#", QoS: mqtt.AtLeastOnce})
	if err != nil {
		tb.Fatal(err)
	}
	return in
}

// atOnce is less than a window, of which some places are kept for live messages.
const atOnce = standardInflight * 3 / 4

// takeWindow receives n messages and then acknowledges them.
func takeWindow(tb testing.TB, in mqtt.Inbox, n int) {
	var seqs [atOnce]uint64
	for i := range n {
		d, err := in.Recv(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		seqs[i] = d.Seq
	}
	for _, seq := range seqs[:n] {
		in.Ack(seq)
	}
}

// BenchmarkDrain takes what an inbox is owed from the disk, a window at a time, while the
// committer writes its position. With live_first somebody waits for live messages, as a
// bridge does.
func BenchmarkDrain(b *testing.B) {
	for _, liveFirst := range []bool{false, true} {
		b.Run(fmt.Sprint("live first ", liveFirst), func(b *testing.B) {
			d := queued(b, b.N)
			in := openDrain(b, d, liveFirst)
			b.Cleanup(in.Close)
			if liveFirst {
				go in.RecvLive(context.Background()) // until it is closed
			}
			commits := d.commit.store.Stats().Commits
			b.ReportAllocs()
			b.ResetTimer()
			before := processorTime(b)
			for left := b.N; left > 0; left -= atOnce {
				takeWindow(b, in, min(left, atOnce))
			}
			b.StopTimer()
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(d.commit.store.Stats().Commits-commits)/float64(b.N), "commits/op")
		})
	}
}

// BenchmarkDrainOverALink drains the queue of an inbox from the disk over links of two
// lengths, and says how often and how much it writes for that.
func BenchmarkDrainOverALink(b *testing.B) {
	for _, trip := range []time.Duration{0, 20 * time.Millisecond} {
		for _, liveFirst := range []bool{false, true} {
			b.Run(fmt.Sprintf("%v/live first %v", trip, liveFirst), func(b *testing.B) {
				d := queued(b, b.N)
				in := openDrain(b, d, liveFirst)
				b.Cleanup(in.Close)
				st, n := d.commit.store, float64(b.N)
				commits, written := st.Stats().Commits, st.Written()
				b.ResetTimer()
				before := processorTime(b)
				link{trip, 20 * time.Microsecond}.drain(context.Background(), in, in.Recv, b.N, nil)
				b.StopTimer()
				b.ReportMetric(float64(processorTime(b)-before)/n, "cpu-ns/op")
				b.ReportMetric(n/b.Elapsed().Seconds(), "msg/s")
				b.ReportMetric(n/float64(st.Stats().Commits-commits), "msg/commit")
				b.ReportMetric(float64(st.Written()-written)/n, "written-B/op")
			})
		}
	}
}

// processorTime is what this process has used up.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
