//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tidegate/broker/auth"
	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/mqtt/packet"
)

// guarded is a gateway that has users and rights, whose files stand beside its
// configuration.
type guarded struct {
	*gateway
	passwords, rules string
}

func newGuarded(t *testing.T, rules string) *guarded {
	t.Helper()
	dir := t.TempDir()
	g := &guarded{
		gateway:   &gateway{t: t, conf: filepath.Join(dir, "tidegate.yaml"), data: filepath.Join(dir, "data")},
		passwords: filepath.Join(dir, "passwd"), rules: filepath.Join(dir, "acl"),
	}
	write(t, g.conf, fmt.Sprintf(`
gateway: {name: e2e, data_dir: %s}
admin: {listen: "127.0.0.1:0"}
broker:
  listeners: [{address: "tcp://127.0.0.1:0"}]
  allow_anonymous: false
  password_file: passwd
  acl_file: acl
`, g.data))
	for _, user := range []string{"alice", "bob"} {
		g.password(user, "of-"+user)
	}
	write(t, g.rules, rules)
	g.start()
	return g
}

func (g *guarded) password(user, password string) {
	g.t.Helper()
	if err := auth.SetPassword(g.passwords, user, []byte(password)); err != nil {
		g.t.Fatal(err)
	}
}

// hangUp sends SIGHUP and waits until the log says what has come of it.
func (g *guarded) hangUp(words string) {
	g.t.Helper()
	before := len(g.process.with("SIGHUP: users and rights"))
	if err := g.process.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		g.t.Fatal(err)
	}
	g.process.await(g.t, "the reload", func() bool {
		return g.process.ended || len(g.process.withLocked([]string{"SIGHUP: users and rights"})) > before
	})
	lines := g.process.with("SIGHUP: users and rights")
	if len(lines) <= before || !strings.Contains(lines[len(lines)-1], words) {
		g.t.Fatalf("the log says %q after SIGHUP, want %q", lines, words)
	}
}

// mosquitto runs mosquitto_pub or mosquitto_sub against the gateway and returns
// what it prints, and its exit code.
func (g *guarded) mosquitto(program, user, password string, args ...string) (out string, code int) {
	g.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		g.t.Skipf("needs %s: install the package mosquitto-clients", program)
	}
	host, port, err := net.SplitHostPort(g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args = append([]string{"-h", host, "-p", port, "-u", user, "-P", password, "-q", "1"}, args...)
	b, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		g.t.Fatalf("%s: %v", program, err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(b), code
}

const homeRules = "user alice\ntopic readwrite home/#\ntopic deny home/safe\nuser bob\ntopic read home/#\n"

func TestMosquittoClientsLogIn(t *testing.T) {
	leak.Check(t)
	g := newGuarded(t, homeRules)
	if out, code := g.mosquitto("mosquitto_pub", "alice", "of-alice", "-r", "-t", "home/door", "-m", "shut"); code != 0 {
		t.Fatalf("mosquitto_pub ends with %d: %s", code, out)
	}
	for _, version := range []string{"mqttv311", "mqttv5"} {
		if out, code := g.mosquitto("mosquitto_sub", "bob", "of-bob", "-V", version, "-t", "home/#", "-C", "1", "-v", "-W", "20"); code != 0 || out != "home/door shut\n" {
			t.Errorf("%s: mosquitto_sub ends with %d: %q", version, code, out)
		}
		if out, code := g.mosquitto("mosquitto_pub", "alice", "wrong", "-V", version, "-t", "home/door", "-m", "open"); code == 0 {
			t.Errorf("%s: a wrong password is right: %s", version, out)
		}
		if _, code := g.mosquitto("mosquitto_pub", "alice", "of-alice", "-V", version, "-t", "home/safe", "-r", "-m", "no"); version == "mqttv311" && code != 0 {
			t.Errorf("%s: mosquitto_pub ends with %d; MQTT 3.1.1 has no word for a refused message", version, code)
		}
		if out, _ := g.mosquitto("mosquitto_sub", "bob", "of-bob", "-V", version, "-t", "attic/#", "-C", "1", "-W", "20"); !strings.Contains(out, "denied") && !strings.Contains(out, "rejected") {
			t.Errorf("%s: mosquitto_sub of what may not be read says %q", version, out)
		}
	}
	if out, _ := g.mosquitto("mosquitto_sub", "bob", "of-bob", "-t", "home/safe", "-t", "home/door", "-C", "1", "-v", "-W", "20"); out != "home/door shut\n" {
		t.Errorf("what must not be published is there: %q", out)
	}
	if lines := g.process.with("wrong"); len(lines) > 0 && strings.Contains(strings.Join(lines, ""), "of-") {
		t.Errorf("the log has a password: %q", lines)
	}
}

// SIGHUP reads both files again. A wrong file changes nothing, and neither ends
// a connection.
func TestHangUpReloadsUsersAndRights(t *testing.T) {
	leak.Check(t)
	g := newGuarded(t, homeRules)
	login := func(user, password string) (*client.Conn, error) {
		return client.Dial(t.Context(), g.address, client.Options{ClientID: "c-" + user, CleanSession: true, Username: user, Password: password})
	}
	stays, err := login("alice", "of-alice")
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()

	write(t, g.rules, homeRules+"topik read x\n")
	g.password("carol", "of-carol")
	g.hangUp("acl:6: ")
	if c, err := login("carol", "of-carol"); err == nil {
		c.Close()
		t.Error("carol is let in although the ACL file is wrong")
	}

	write(t, g.rules, "user alice\ntopic read nothing\n")
	g.hangUp("read again")
	carol, err := login("carol", "of-carol")
	if err != nil {
		t.Fatal(err)
	}
	carol.Close()
	var refusal *client.RefusedError
	if _, err := login("carol", "wrong"); !errors.As(err, &refusal) || refusal.Code != packet.RefusedCredentials {
		t.Errorf("a wrong password: %v", err)
	}
	select {
	case <-stays.Done():
		t.Errorf("alice is gone: %v", stays.Err())
	default:
	}
	if out, _ := g.mosquitto("mosquitto_sub", "alice", "of-alice", "-t", "home/#", "-C", "1", "-W", "20"); !strings.Contains(out, "denied") && !strings.Contains(out, "rejected") {
		t.Errorf("the new rules do not count: %q", out)
	}
	if code, took := g.stop(); code != 0 {
		t.Errorf("exit code %d after %v", code, took)
	}
}
