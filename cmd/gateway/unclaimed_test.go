package main

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/bridge"
	"tidegate/mqtt"
)

// stubborn is a bridge whose server does not answer.
func stubborn(name string) bridge.Config {
	return bridge.Config{Name: name, Servers: []string{"tcp://127.0.0.1:1"}, Out: []bridge.Rule{{Topics: []string{"a/#"}}}}
}

// configured starts the site again, with these bridges.
func (s *site) configured(names ...string) {
	s.t.Helper()
	s.stop()
	s.cfg.Bridges = nil
	for _, name := range names {
		s.cfg.Bridges = append(s.cfg.Bridges, stubborn(name))
	}
	s.cfg.SetDefaults()
	s.start()
}

// queues are the names in `queue list`, each with its state and messages.
func (s *site) queues() string {
	s.t.Helper()
	var list []string
	for line := range strings.Lines(ok(s.t, "queue", "list", "--data-dir", s.dir())) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "bridge" {
			list = append(list, fmt.Sprint(f[0], " ", f[2], " ", f[3]))
		}
	}
	return strings.Join(list, ", ")
}

func (s *site) wantQueues(want string) {
	s.t.Helper()
	if have := s.queues(); have != want {
		s.t.Errorf("queues %q, want %q", have, want)
	}
}

// A bridge that is renamed leaves what it owes, and nothing collects under the old name:
// its server gets the rest when it has the name again.
func TestABridgeThatIsNotConfiguredCollectsNothing(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Bridges = []bridge.Config{stubborn("old")} })
	letter := mqtt.Message{Topic: "$bridge/old/dead/a/b", Payload: []byte("dead"), QoS: 1}
	reading := mqtt.Message{Topic: "a/b", Payload: []byte("21"), QoS: 1}
	s.publish(reading)
	s.publish(letter)
	for _, names := range [][]string{{"new"}, nil} {
		s.configured(names...)
		s.publish(reading)
		s.publish(letter)
	}
	s.wantQueues("bridge/new unclaimed 1, bridge/old unclaimed 1, bridge/old/dead unclaimed 1")
	problems := strings.Join(s.admin.Status().Problems, "\n")
	for _, name := range []string{"bridge/new", "bridge/old", "bridge/old/dead"} {
		if want := "queue " + name + ": no bridge of this name is configured, messages kept: 1"; !strings.Contains(problems, want) {
			t.Errorf("problems without %q:\n%s", want, problems)
		}
	}
	s.stop()
	s.wantQueues("bridge/new unclaimed 1, bridge/old unclaimed 1, bridge/old/dead unclaimed 1")
	s.configured("old")
	s.publish(reading)
	s.publish(letter)
	s.wantQueues("bridge/old absent 2, bridge/old/dead absent 2, bridge/new unclaimed 1")
}

// queue purge removes it, of a gateway that runs or is stopped, and only it.
func TestPurgeRemovesTheQueueOfABridgeThatIsGone(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Bridges = []bridge.Config{stubborn("one"), stubborn("two"), stubborn("kept")} })
	s.publish(mqtt.Message{Topic: "a/b", Payload: []byte("21"), QoS: 1})
	s.configured("kept")
	ok(t, "queue", "purge", "bridge/one", "--yes", "--data-dir", s.dir())
	s.wantQueues("bridge/kept absent 1, bridge/two unclaimed 1, bridge/kept/dead absent 0")
	s.stop()
	ok(t, "queue", "purge", "bridge/two", "--yes", "--data-dir", s.dir())
	ok(t, "queue", "purge", "bridge/kept", "--yes", "--data-dir", s.dir())
	s.wantQueues("bridge/kept absent 0, bridge/kept/dead absent 0")
	s.configured()
	s.wantQueues("")
}
