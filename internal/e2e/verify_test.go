//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
)

// The envelope tells, from what is upstream alone, that nothing is missing although
// the gateway was killed, and what came twice.
func TestVerifyFindsNothingMissingAfterAKill(t *testing.T) {
	leak.Check(t)
	const n = 500
	u := &upstream{t: t, conf: t.TempDir() + "/mosquitto.conf"}
	server := u.startServer()
	subscribeFor(t, server, "auditor")
	g := newPeer(t, "pump-house", testbed.ReserveAddr(t), server, "envelope: json\n    max_inflight: 20\n    out: [{topics: [\"x/#\"], prefix: site/}]")
	g.awaitUplink()
	w := g.watch(t, "none")
	for i := range n {
		w.publish(t, "x/a", fmt.Sprint(i))
	}
	g.kill()
	g.start()
	w = g.watch(t, "none")
	for i := range n {
		w.publish(t, "x/a", fmt.Sprint(i))
	}
	host, port := split(t, server)
	out, err := exec.Command(program, "verify", "-h", host, "-p", port, "-i", "auditor", "-t", "site/#", "-C", strconv.Itoa(2*n)).CombinedOutput()
	if err != nil {
		t.Fatalf("verify: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	found := regexp.MustCompile(`(?m)^pump-house/peer: (\d+) messages, 0 missing, (\d+) duplicates, 0 late, [01] starts`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("verify says\n%s", out)
	}
	messages, _ := strconv.Atoi(string(found[1]))
	duplicates, _ := strconv.Atoi(string(found[2]))
	if messages+duplicates != 2*n || duplicates > 20 {
		t.Errorf("%d messages and %d duplicates; want %d together, and at most 20 duplicates", messages, duplicates, 2*n)
	}
}

// subscribeFor leaves a session behind in which the server queues what comes.
func subscribeFor(t testing.TB, server, id string) {
	t.Helper()
	if err := leaveSession(t.Context(), server, id); err != nil {
		t.Fatal(err)
	}
}

func leaveSession(ctx context.Context, server, id string) error {
	conn, err := client.Dial(ctx, server, client.Options{ClientID: id})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Subscribe(ctx, mqtt.Subscription{Filter: "site/#", QoS: mqtt.AtLeastOnce}); err != nil {
		return err
	}
	return conn.Disconnect()
}

func split(t testing.TB, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
