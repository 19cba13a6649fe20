//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/internal/testbed"
)

// newNATS is NATS servers with their MQTT, whose streams stand on all of them.
func newNATS(t testing.TB, nodes int) *cluster {
	t.Helper()
	program := natsServer(t)
	c := newCluster(t, nodes)
	c.shared = true
	var routes []string
	for range c.nodes {
		routes = append(routes, testbed.ReserveAddr(t))
	}
	for i, n := range c.nodes {
		dir, monitor := t.TempDir(), testbed.ReserveAddr(t)
		file := dir + "/nats.conf"
		write(t, file, fmt.Sprintf(`
server_name: n%d
listen: "%s"
http: "%s"
jetstream { store_dir: "%s/data" }
mqtt { listen: "%s" }
`, i, testbed.ReserveAddr(t), monitor, dir, n.address)+together(i, routes))
		n.launch = func(n *node) { n.process = start(t, program, "-c", file) }
		n.ready = func(*node) (bool, error) { return isHealthy("http://" + monitor + "/healthz") }
	}
	return c
}

// together is the part of a configuration that makes a cluster of several servers.
func together(i int, routes []string) string {
	if len(routes) == 1 {
		return ""
	}
	return fmt.Sprintf(`cluster { name: c, listen: "%s", routes: [ "nats://%s" ] }`, routes[i], strings.Join(routes, `", "nats://`))
}

// natsServer builds the server that tools.mod names, or skips the test where it
// cannot be had.
func natsServer(t testing.TB) string {
	t.Helper()
	natsBuild.Do(func() {
		build := exec.Command("go", "build", "-modfile=../../tools.mod", "-o", natsPath(), "github.com/nats-io/nats-server/v2")
		natsBuild.said, natsBuild.err = build.CombinedOutput()
	})
	if natsBuild.err != nil {
		t.Skipf("needs nats-server, which go build fetches: %v\n%s", natsBuild.err, natsBuild.said)
	}
	return natsPath()
}

func natsPath() string { return filepath.Join(filepath.Dir(program), "nats-server") }

// natsBuild is done once, by the first test that needs it.
var natsBuild struct {
	sync.Once
	said []byte
	err  error
}

// isHealthy asks a server whether it has caught up with the others.
func isHealthy(url string) (bool, error) {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return false, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s says %s", url, r.Status)
	}
	return true, nil
}
