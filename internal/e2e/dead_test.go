//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/internal/testbed"
)

// More is refused upstream than dead_letters lets stand: the oldest make room and are
// counted, over a restart as well, and what the server takes goes on.
func TestDeadLettersAreBounded(t *testing.T) {
	leak.Check(t)
	const bound, refused = 10, 60
	address, dir := testbed.ReserveAddr(t), t.TempDir()
	up := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
	write(t, up.conf, fmt.Sprintf("gateway: {name: up, data_dir: %s}\nadmin: {listen: \"127.0.0.1:0\"}\n"+
		"broker: {listeners: [{address: \"tcp://%s\"}], limits: {max_packet_size: 4KiB}}\n", up.data, address))
	up.start()
	there := up.watch(t, "site/#")
	g := newPeer(t, "edge", testbed.ReserveAddr(t), address,
		fmt.Sprintf("protocol: 5\n    dead_letters: {max_messages: %d}\n    out: [{topics: [\"x/#\"], prefix: site/}]", bound))
	g.awaitUplink()
	here, large := g.watch(t, "none"), strings.Repeat("x", 8<<10)
	check := func(when string) {
		t.Helper()
		deadline := time.After(patience)
		for {
			st := g.status(t)
			lost := uint64(0)
			for _, l := range st.Losses {
				if l.Session == "bridge/peer/dead" && l.Reason == "max_messages" {
					lost += l.Count
				}
			}
			if b := st.Bridges[0]; b.DeadLetters == bound && lost == refused-bound && b.Backlog == 0 {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("%s: %+v, lost %d", when, st.Bridges[0], lost)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	for range refused {
		here.publish(t, "x/large", large)
	}
	here.publish(t, "x/small", "1")
	there.awaitPayload(t, "site/x/small", "1")
	check("before the restart")
	g.stop()
	g.start()
	check("after the restart")
}
