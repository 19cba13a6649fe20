//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt"
)

// The gateway is killed again and again while a full queue gives up messages, by each
// policy: all that was acknowledged is queued or in the loss ledger.
func TestKillsKeepTheBalance(t *testing.T) {
	leak.Check(t)
	for _, policy := range []string{"drop_newest", "drop_oldest", "thin"} {
		t.Run(policy, func(t *testing.T) {
			dir := t.TempDir()
			g := &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")}
			write(t, g.conf, fmt.Sprintf(`
gateway: {name: e2e, data_dir: %q, log: {level: warn}}
store: {segment_size: 64KiB, compact_interval: 100ms}
admin: {listen: "127.0.0.1:0"}
broker:
  listeners: [{address: "tcp://127.0.0.1:0"}]
  queue: {max_messages: 300, overflow: %s}
`, g.data, policy))
			g.start()
			c, err := g.dial(t.Context(), client.Options{ClientID: "away"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "sensor/#", QoS: mqtt.AtLeastOnce}); err != nil {
				t.Fatal(err)
			}
			c.Close()
			f := newFleet(t, g)
			for round := 1; round <= 6; round++ {
				f.allow(1000 * round)
				f.awaitAcked(t, 1000*round-500)
				g.kill()
				acked := 0
				f.look(func() { acked = f.acked })
				g.start()
				if queued, lost := g.balanceOf("away"); queued+lost < acked {
					t.Errorf("kill %d: %d messages were acknowledged, %d are queued and %d lost", round, acked, queued, lost)
				}
			}
			f.awaitAcked(t, 6000)
			queued, lost := g.balanceOf("away")
			if most := 300 + publishers*window; queued > most || queued+lost < 6000 {
				t.Errorf("of 6000 messages %d are queued, at most %d may be, and %d lost", queued, most, lost)
			}
			t.Logf("%d queued, %d lost", queued, lost)
		})
	}
}

// balanceOf returns how many messages a session has queued, and how many it has lost.
func (g *gateway) balanceOf(id string) (queued, lost int) {
	st := g.status(g.t)
	for _, s := range st.Sessions {
		if s.ID == id {
			queued = int(s.Queued)
		}
	}
	for _, l := range st.Losses {
		if l.Session == id {
			lost += int(l.Count)
		}
	}
	return queued, lost
}
