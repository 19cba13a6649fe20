package testbed

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Mosquitto is Debian's broker, in a process of its own that can be killed and
// started again with the same port and state.
type Mosquitto struct {
	Addr    string // HOST:PORT, on the loopback interface
	Dir     string // a temporary folder with its configuration; persistence_location, if it is asked to persist
	Process *os.Process

	t       testing.TB
	program string
	lines   []string
	logged  chan error // gets one value when the process has ended
}

// StartMosquitto returns when the broker runs with these lines of configuration
// beside its listener. Its log is shown if the test fails.
func StartMosquitto(t testing.TB, config ...string) *Mosquitto {
	t.Helper()
	m := &Mosquitto{t: t, program: Find(t, "mosquitto"), Dir: t.TempDir()}
	t.Cleanup(func() {
		m.End(syscall.SIGKILL)
		if t.Failed() {
			t.Log(strings.Join(m.lines, "\n"))
		}
	})
	m.Addr = ReserveAddr(t)
	m.configure(config)
	m.Start()
	return m
}

// Port is that of Addr.
func (m *Mosquitto) Port() string {
	_, port, _ := net.SplitHostPort(m.Addr)
	return port
}

func (m *Mosquitto) configure(config []string) {
	m.t.Helper()
	lines := append([]string{
		"listener " + m.Port() + " 127.0.0.1", "log_dest stderr", "persistence_location " + m.Dir + "/",
	}, config...)
	if os.Geteuid() == 0 {
		lines = append(lines, "user root") // else it gives up the right to read its files
	}
	if err := os.WriteFile(m.conf(), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Mosquitto) conf() string { return filepath.Join(m.Dir, "mosquitto.conf") }

// Start starts the broker, also again after End, and returns when it runs.
func (m *Mosquitto) Start() {
	m.t.Helper()
	if err := m.launch(); err != nil {
		m.t.Fatalf("%v:\n%s", err, strings.Join(m.lines, "\n"))
	}
}

// launch starts the process and returns when it says that it runs.
func (m *Mosquitto) launch() error {
	cmd := exec.Command(m.program, "-c", m.conf())
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start mosquitto: %w", err)
	}
	m.Process, m.logged = cmd.Process, make(chan error, 1)
	running := make(chan bool, 1)
	go func() {
		m.follow(bufio.NewScanner(log), running)
		m.logged <- cmd.Wait()
	}()
	if !<-running {
		m.End(syscall.SIGKILL)
		return errors.New("mosquitto ends before it runs")
	}
	return nil
}

// follow reads a log to its end, and tells whether it ever says that the broker runs.
func (m *Mosquitto) follow(log *bufio.Scanner, running chan<- bool) {
	said := false
	for log.Scan() {
		m.lines = append(m.lines, log.Text())
		if !said && strings.HasSuffix(log.Text(), " running") {
			said = true
			running <- true
		}
	}
	if !said {
		running <- false
	}
}

// End ends the broker with a signal and returns when it is gone. One that has
// ended is left alone.
func (m *Mosquitto) End(sig syscall.Signal) {
	if m.Process == nil {
		return
	}
	_ = m.Process.Signal(sig) // it may have ended by itself
	<-m.logged
	m.Process = nil
}

// packages are the Debian packages that have a program, where its name does not say it.
var packages = map[string]string{"mosquitto_pub": "mosquitto-clients", "mosquitto_sub": "mosquitto-clients"}

// Find returns the path of an installed program, or skips the test.
func Find(t testing.TB, program string) string {
	t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program} { // which only root has in its PATH
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed: on Debian, apt install %s", program, packageOf(program))
	return ""
}

func packageOf(program string) string {
	if name, other := packages[program]; other {
		return name
	}
	return program
}
