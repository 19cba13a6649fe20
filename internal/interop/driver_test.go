//go:build linux

package interop

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a driver can do. It ends with 0 when it has done it.
const (
	publish = "publish" // send each line of the standard input, and wait until all are acknowledged
	retain  = "retain"  // the same with the retain flag
	receive = "receive" // subscribe, print "ready", then each message until the payload "end"
	leave   = "leave"   // subscribe in a session that is kept, and disconnect
	back    = "return"  // come back to the session and print each message until the payload "end"
	will    = "will"    // connect with the will "gone", print "ready", and stay
)

// job is what a driver is told to do. Messages are printed as lines of
// "message", retain flag, QoS and payload in hexadecimal digits. A driver that comes
// back also prints "session 1" or "session 0", if its library tells.
type job struct {
	mode    string
	url     string
	version int // protocol level: 3, 4 or 5
	client  string
	qos     int
	topic   string
	ca      string // file; empty without TLS
}

// driver is a program of a client.
type driver struct {
	name     string
	versions []int                   // protocol levels that it can speak
	schemes  []string                // listeners that it can connect to
	ready    map[string]string       // other words than "ready", by mode
	command  func(job) []string      // program and arguments
	install  func(t *testing.T) bool // makes it ready to run, or says that it is not here
	release  string                  // of the client, once installed
}

// drivers returns all drivers. dir is for what is built.
func drivers(dir string) []*driver {
	everywhere := []string{"tcp", "tls", "ws", "wss"}
	python, c := &driver{name: "paho for Python", versions: []int{3, 4, 5}, schemes: everywhere}, &driver{name: "paho for C", versions: []int{3, 4, 5}, schemes: everywhere}
	python.install, python.command = python.findPython, withArgs("") // findPython sets the program
	c.install, c.command = func(t *testing.T) bool { return c.compile(t, dir) }, withArgs(filepath.Join(dir, "client"))
	js := &driver{name: "MQTT.js", versions: []int{3, 4, 5}, schemes: everywhere}
	js.install, js.command = js.findNode, withArgs("node", "testdata/client.js")
	m := &driver{name: "mosquitto_pub, mosquitto_sub", versions: []int{3, 4, 5}, schemes: []string{"tcp", "tls"}, command: mosquitto}
	m.ready = map[string]string{receive: "received SUBACK", will: "received SUBACK"}
	m.install = m.findMosquitto
	return []*driver{m, python, c, js}
}

// withArgs is the command of a driver from testdata.
func withArgs(program ...string) func(job) []string {
	return func(j job) []string {
		args := append(slices.Clone(program), j.mode, j.url, strconv.Itoa(j.version), j.client, strconv.Itoa(j.qos), j.topic)
		if j.ca != "" {
			args = append(args, j.ca)
		}
		return args
	}
}

// mosquitto is the command of mosquitto_pub or mosquitto_sub.
func mosquitto(j job) []string {
	u, _ := url.Parse(j.url) // of the gateway
	qos := strconv.Itoa(j.qos)
	version := map[int]string{3: "mqttv31", 4: "mqttv311", 5: "mqttv5"}[j.version]
	args := []string{"-h", u.Hostname(), "-p", u.Port(), "-V", version, "-i", j.client, "-q", qos, "-t", j.topic}
	if j.ca != "" {
		args = append(args, "--cafile", j.ca)
	}
	switch j.mode {
	case publish:
		return append([]string{"mosquitto_pub", "-l"}, args...)
	case retain:
		return append([]string{"mosquitto_pub", "-l", "-r"}, args...)
	case will:
		args = append(args, "--will-topic", j.topic, "--will-payload", "gone", "--will-qos", qos)
	case leave, back:
		args = append(args, "-c")
		if j.version == 5 {
			args = append(args, "-x", "300")
		}
	}
	if j.mode == leave {
		args = append(args, "-E")
	}
	if j.mode == receive || j.mode == back {
		args = append(args, "-C", strconv.Itoa(len(payloads)))
	}
	return append([]string{"stdbuf", "-oL", "mosquitto_sub", "-d", "-F", "message %r %q %x"}, args...)
}

func (d *driver) findMosquitto(*testing.T) bool {
	_, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		return false
	}
	out, _ := exec.Command("mosquitto_sub", "--version").CombinedOutput() // ends with 1
	if _, rest, found := strings.Cut(string(out), "version "); found {
		d.release, _, _ = strings.Cut(rest, " ")
	}
	return d.release != ""
}

// findPython looks for a Python that has paho: the distribution's may not be the
// first on the path.
func (d *driver) findPython(*testing.T) bool {
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.Command(python, "-c", "import paho.mqtt; print(paho.mqtt.__version__)").Output()
		if err == nil {
			d.release = strings.TrimSpace(string(out))
			d.command = withArgs(python, "testdata/client.py")
			return true
		}
	}
	return false
}

// findNode looks for MQTT.js where node does, which is in NODE_PATH, too.
func (d *driver) findNode(*testing.T) bool {
	out, err := exec.Command("node", "-p", `require("mqtt/package.json").version`).Output()
	d.release = strings.TrimSpace(string(out))
	return err == nil
}

// compile builds the driver in C if there are a compiler and the library.
func (d *driver) compile(t *testing.T, dir string) bool {
	if _, err := exec.LookPath("gcc"); err != nil {
		return false
	}
	version := filepath.Join(dir, "version.c")
	text := "#include <stdio.h>\n#include <string.h>\n#include <MQTTClient.h>\nint main(void) {\n" +
		"for (MQTTClient_nameValue *v = MQTTClient_getVersionInfo(); v->name; v++)\n" +
		"if (strcmp(v->name, \"Version\") == 0) puts(v->value);\n}\n"
	if err := os.WriteFile(version, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	asks := filepath.Join(dir, "version")
	if exec.Command("gcc", "-o", asks, version, "-lpaho-mqtt3cs").Run() != nil {
		return false // no library
	}
	out, err := exec.Command(asks).Output()
	if err != nil {
		t.Fatal(err)
	}
	d.release = strings.TrimSpace(string(out))
	build := exec.Command("gcc", "-Wall", "-Werror", "-o", filepath.Join(dir, "client"), "testdata/client.c", "-lpaho-mqtt3cs")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("compile testdata/client.c: %v\n%s", err, out)
	}
	return true
}
