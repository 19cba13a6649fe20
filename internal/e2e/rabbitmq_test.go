//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/internal/testbed"
)

// rabbitmqServer is where Debian has the program that starts a node as the user
// who calls it, with the data that the environment says.
const rabbitmqServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// newRabbitMQ is RabbitMQ nodes with the MQTT plugin, whose queues stand on all of
// them. Nothing of it touches the node of the Debian package: names,
// ports, cookie, data and the port mapper are the test's.
func newRabbitMQ(t testing.TB, nodes int) *cluster {
	t.Helper()
	r := &rabbitmq{t: t, home: t.TempDir()}
	c := newCluster(t, nodes)
	c.shared = true
	r.startMapper()
	write(t, filepath.Join(r.home, ".erlang.cookie"), "tidegate")
	if err := os.Chmod(filepath.Join(r.home, ".erlang.cookie"), 0o400); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.home, "plugins"), "[rabbitmq_mqtt].\n")
	for i, n := range c.nodes {
		env := r.configure(i, nodes, n)
		n.launch = func(n *node) { n.process = launch(t, command(env, rabbitmqServer)) }
		n.ready = func(n *node) (bool, error) { return len(n.process.with("Server startup complete")) > 0, nil }
	}
	return c
}

// newRabbitMQ5 is newRabbitMQ where it speaks MQTT 5.
func newRabbitMQ5(t testing.TB, nodes int) *cluster {
	t.Helper()
	if !rabbitMQSpeaks5(t) {
		t.Skip("needs RabbitMQ 3.13 or newer for MQTT 5: Debian has it since trixie")
	}
	return newRabbitMQ(t, nodes)
}

// rabbitMQSpeaks5 looks at the version in the name of the folder that Debian installs
// it in. Without RabbitMQ it does.
func rabbitMQSpeaks5(t testing.TB) bool {
	t.Helper()
	const folder = "/usr/lib/rabbitmq/lib/rabbitmq_server-"
	found, err := filepath.Glob(folder + "*")
	if err != nil || len(found) == 0 {
		return true
	}
	var major, minor int
	if _, err := fmt.Sscanf(found[0], folder+"%d.%d", &major, &minor); err != nil {
		t.Fatalf("the version of %s: %v", found[0], err)
	}
	return major > 3 || major == 3 && minor >= 13
}

// rabbitmq is what the nodes have in common.
type rabbitmq struct {
	t      testing.TB
	home   string
	mapper string // port of epmd, which knows the ports of nodes
}

// startMapper starts epmd, or skips the test where there is no RabbitMQ.
func (r *rabbitmq) startMapper() {
	r.t.Helper()
	program, err := exec.LookPath("epmd")
	if _, missing := os.Stat(rabbitmqServer); err != nil || missing != nil {
		r.t.Skip("needs RabbitMQ: on Debian, apt install rabbitmq-server")
	}
	r.mapper = port(testbed.ReserveAddr(r.t))
	start(r.t, program, "-port", r.mapper, "-address", "127.0.0.1", "-relaxed_command_check")
}

// configure writes the configuration of a node and returns its environment.
func (r *rabbitmq) configure(i, nodes int, n *node) []string {
	r.t.Helper()
	dir := filepath.Join(r.home, fmt.Sprint("node", i))
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	conf := filepath.Join(dir, "rabbitmq.conf")
	text := fmt.Sprintf("listeners.tcp.1 = %s\nmqtt.listeners.tcp.1 = %s\n", testbed.ReserveAddr(r.t), n.address) + `
mqtt.allow_anonymous = true
mqtt.durable_queue_type = quorum
log.console = true
log.file = false
cluster_formation.peer_discovery_backend = classic_config
`
	for i := range nodes {
		text += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, r.name(i))
	}
	write(r.t, conf, text)
	return []string{
		"HOME=" + r.home,
		"ERL_EPMD_PORT=" + r.mapper,
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=" + r.name(i),
		"RABBITMQ_DIST_PORT=" + port(testbed.ReserveAddr(r.t)),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_CONFIG_FILE=" + conf,
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(r.home, "plugins"),
		"RABBITMQ_MNESIA_BASE=" + dir,
		"RABBITMQ_LOG_BASE=" + dir,
		"RABBITMQ_LOGS=-",
		"RUNNING_UNDER_SYSTEMD=1", // the script becomes the node and does not stand beside it
	}
}

func (r *rabbitmq) name(i int) string { return fmt.Sprintf("node%d@localhost", i) }

// command is a program in an environment of its own, apart from the path.
func command(env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "RABBITMQ_") || strings.HasPrefix(v, "ERL_")
	}), env...)
	return cmd
}
