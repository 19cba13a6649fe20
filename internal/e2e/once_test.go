//go:build linux

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/mqtt"
)

// Commands that come down at QoS 2 are there once and in order for a client that keeps its
// session, however often the gateway is killed while the server has some under way.
func TestCommandsComeDownOnceOverKills(t *testing.T) {
	for _, protocol := range []int{4, 5} {
		t.Run(fmt.Sprint("protocol ", protocol), func(t *testing.T) {
			leak.Check(t)
			rng := random(t)
			u := &upstream{t: t, conf: filepath.Join(t.TempDir(), "mosquitto.conf")}
			server := u.startServer()
			g := newGatewayTo(t, protocol, []string{slowly(t, server)}, "    in: [{topics: [ready, \"command/#\"], qos: 2}]\n")
			g.awaitUplink()
			account := newAccount("actuator", "command/", false)
			newKeeper(t, g, "actuator", "command/#", mqtt.ExactlyOnce, account, rng)
			cloud, err := client.Dial(t.Context(), server, client.Options{CleanSession: true})
			if err != nil {
				t.Fatal(err)
			}
			defer cloud.Close()
			awaitCommands(t, g, cloud)

			count := scale(3000)
			background(t, func(context.Context) { sendCommands(t, cloud, count) })
			kills := 0
			for next := 0; next < count; kills++ {
				next = min(count, next+between(rng, 1, 200))
				account.await(t, fmt.Sprint("command ", next), func() bool { return account.last["x"] >= next || len(account.faults) > 0 })
				awaitNewCommand(t, g, account, count)
				g.kill()
				g.start()
			}
			g.awaitUplink()
			account.report(t)
			t.Logf("MQTT %d: %d commands, %d kills", protocol, account.count, kills)
		})
	}
}

// awaitNewCommand waits until the gateway has got something new since its start. A
// mosquitto 2.0 that is cut off before has not yet repeated all that it has to release, and
// would send it over the next connection as if it never had.
func awaitNewCommand(t *testing.T, g *gateway, a *account, count int) {
	t.Helper()
	for all := false; !all && g.status(t).Bridges[0].In.Received == 0; pause(t.Context()) {
		a.look(func() { all = a.last["x"] >= count || len(a.faults) > 0 })
	}
}

// slowly returns an address over which bytes take some milliseconds to server and
// back, so that much is under way.
func slowly(t *testing.T, server string) string {
	t.Helper()
	network, err := proxy.Listen(server)
	if err != nil {
		t.Fatal(err)
	}
	network.SetDelay(3 * time.Millisecond)
	background(t, func(ctx context.Context) {
		if err := network.Run(ctx); err != nil {
			t.Errorf("the proxy ends: %v", err)
		}
	})
	return network.Addr()
}

// awaitCommands waits until what is published upstream comes down to g.
func awaitCommands(t *testing.T, g *gateway, c *client.Conn) {
	t.Helper()
	for g.status(t).Bridges[0].In.Received == 0 {
		if err := c.Publish(t.Context(), mqtt.Message{Topic: "ready"}); err != nil {
			t.Fatal(err)
		}
		pause(t.Context())
	}
}

// sendCommands has the server take count numbered commands.
func sendCommands(t *testing.T, c *client.Conn, count int) {
	for n := 1; n <= count; n++ {
		m := mqtt.Message{Topic: "command/x", Payload: []byte(text(message{"x", n}, mqtt.ExactlyOnce)), QoS: mqtt.ExactlyOnce}
		if err := c.Publish(t.Context(), m); err != nil {
			t.Error(err)
			return
		}
	}
}
