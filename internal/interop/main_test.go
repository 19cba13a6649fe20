//go:build linux

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/internal/testbed"
)

// program is the path of the gateway's binary, which TestMain builds.
var program string

func TestMain(m *testing.M) {
	os.Exit(testbed.RunWithProgram(m, &program))
}

// gateway is a running gateway with a listener of each scheme that it has.
type gateway struct {
	ca  string            // file with the certificate that its own is signed by
	url map[string]string // of its listeners, by scheme
}

// startGateway returns when the gateway is ready.
func startGateway(t *testing.T) *gateway {
	t.Helper()
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	listeners := []string{"{address: 'tcp://127.0.0.1:0'}"}
	for _, l := range []string{
		fmt.Sprintf("{address: 'tls://127.0.0.1:0', cert: %s, key: %s}", cert, key),
		"{address: 'ws://127.0.0.1:0/mqtt'}",
		fmt.Sprintf("{address: 'wss://127.0.0.1:0/mqtt', cert: %s, key: %s}", cert, key),
	} {
		if out, err := exec.Command(program, "check", "--config", configure(t, dir, l)).CombinedOutput(); err == nil {
			listeners = append(listeners, l)
		} else {
			t.Logf("this gateway has no such listener: %s", out)
		}
	}
	p := start(t, t.Context(), "", program, "run", "--config", configure(t, dir, listeners...))
	g := &gateway{ca: cert, url: make(map[string]string)}
	for line := range p.lines {
		if url, found := strings.CutPrefix(line, "listening on "); found {
			scheme, _, _ := strings.Cut(url, ":")
			g.url[scheme] = url
		}
		if line == "ready" {
			go p.drain()
			return g
		}
	}
	t.Fatal("the gateway ended before it was ready")
	return nil
}

// configure writes a configuration with these listeners and returns its path.
func configure(t *testing.T, dir string, listeners ...string) string {
	t.Helper()
	path := filepath.Join(dir, "tidegate.yaml")
	text := fmt.Sprintf("gateway: {name: interop, data_dir: %s}\nadmin: {listen: '127.0.0.1:0'}\nbroker:\n  listeners: [%s]\n",
		filepath.Join(dir, "data"), strings.Join(listeners, ", "))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
