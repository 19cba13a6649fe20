//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt"
	"tidegate/store"
)

// The gateway listens within a second, however much is in its journal. With
// TIDEGATE_E2E=full these are 1 and 10 GB, which takes some minutes to write.
func TestStartTime(t *testing.T) {
	leak.Check(t)
	sizes := []int64{0, 200e6}
	if scale(1) > 1 {
		sizes = []int64{0, 1e9, 10e9}
	}
	for _, size := range sizes {
		g := backlogged(t, size)
		var took []time.Duration
		for range 5 {
			g.kill() // so that nothing was prepared for the next start
			g.slowest = 0
			g.start()
			took = append(took, g.slowest)
		}
		slices.Sort(took)
		files, _ := filepath.Glob(filepath.Join(g.data, "journal", "*.seg"))
		t.Logf("%.1f GB in %d files: ready after %v, at the slowest %v", float64(size)/1e9, len(files), took[2].Round(time.Millisecond), took[4].Round(time.Millisecond))
		if took[2] > time.Second {
			t.Errorf("with %d bytes in the journal the gateway is ready after %v", size, took[2])
		}
		g.kill()
		os.RemoveAll(g.data)
	}
}

// backlogged returns a gateway that has so many bytes of messages for a client that
// is away.
func backlogged(t *testing.T, size int64) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	write(t, g.conf, fmt.Sprintf(`
gateway: {name: e2e, data_dir: %s}
admin: {listen: "127.0.0.1:0"}

broker:
  listeners: [{address: "tcp://127.0.0.1:0"}]
  queue: {max_disk: 64GiB}
`, g.data))
	g.start()
	c, err := g.dial(t.Context(), client.Options{ClientID: "away"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a/#", QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if code, _ := g.stop(); code != 0 {
		t.Fatalf("the gateway ended with %d", code)
	}
	fill(t, g.data, size)
	g.start()
	return g
}

// fill puts messages into the queue of the only session there is, as the broker
// does (docs/format.md).
func fill(t *testing.T, dir string, size int64) {
	t.Helper()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var queue store.Queue
	err = st.Rows("sessions", func(key, value []byte) error {
		if string(key) == "away" {
			queue.ID, queue.Acked = binary.BigEndian.Uint32(value[1:]), binary.BigEndian.Uint64(value[5:])
		}
		return nil
	})
	if err != nil || queue.ID == 0 {
		t.Fatalf("the session has no queue: %v", err)
	}
	data := append([]byte{0, 0, 3, 'a', '/', 'b'}, make([]byte, 1000)...)
	for written := int64(0); written < size; {
		var b store.Batch
		for range 4000 {
			seq := st.LastSeq() + uint64(len(b.Records)) + 1
			owner := store.Owner{Queue: queue.ID, Tag: uint32(uint16(seq)|1) | 1<<16}
			b.Records = append(b.Records, store.Record{Seq: seq, Owners: []store.Owner{owner}, Data: data})
			written += int64(len(data))
		}
		queue.Pending += uint64(len(b.Records))
		b.Queues = []store.Queue{queue}
		if err := st.Commit(&b); err != nil {
			t.Fatal(err)
		}
	}
}
