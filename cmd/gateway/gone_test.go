package main

import (
	"strings"
	"testing"

	"tidegate/bridge"
	"tidegate/mqtt"
)

// carrying starts the site again, with a bridge whose server does not answer and whose
// rules of out name these topics.
func (s *site) carrying(topics ...string) {
	s.t.Helper()
	s.carryingTo("127.0.0.1:1", topics...)
}

// carryingTo is carrying with another server.
func (s *site) carryingTo(server string, topics ...string) {
	s.t.Helper()
	s.stop()
	cfg := stubborn("cloud")
	cfg.Servers = []string{"tcp://" + server}
	cfg.Out = []bridge.Rule{{Topics: topics}}
	s.cfg.Bridges = []bridge.Config{cfg}
	s.cfg.SetDefaults()
	s.start()
}

// wantGone checks what the status says of topics that are gone from out; "": nothing.
func (s *site) wantGone(want string) {
	s.t.Helper()
	have := ""
	for _, p := range s.admin.Status().Problems {
		if _, gone, ok := strings.Cut(p, " at most: "); ok && strings.Contains(p, "cloud: messages wait for topics that no rule of out names any more") {
			have, _, _ = strings.Cut(gone, ";")
		}
	}
	if have != want {
		s.t.Errorf("gone are %q, want %q; problems: %q", have, want, s.admin.Status().Problems)
	}
}

// Before anything is dropped the status says which topics were taken out of the
// configuration while messages waited, at each start, until they are there again or
// nothing waits.
func TestTopicsThatAreGoneFromOut(t *testing.T) {
	s := newSite(t, nil)
	s.carrying("a/#", "b/#", "c/+")
	s.carrying("b/#", "c/+") // nothing waits yet
	s.wantGone("")
	s.carrying("a/#", "b/#", "c/+")
	for _, topic := range []string{"a/1", "a/2", "b/1"} {
		s.publish(mqtt.Message{Topic: topic, QoS: 1})
	}
	s.carrying("b/#", "c/+")
	s.wantGone(`"a/#"`)
	s.carrying("b/#", "c/+")
	s.wantGone(`"a/#"`)
	s.carrying("b/#", "c/#") // has what c/+ had
	s.wantGone(`"a/#"`)
	s.carrying("c/#")
	s.wantGone(`"a/#", "b/#"`)
	s.carrying("c/#", "a/#")
	s.wantGone(`"b/#"`)
	s.wantQueues("bridge/cloud absent 3, bridge/cloud/dead absent 0")
	s.carrying("+/#")
	s.wantGone("")
	s.carrying("c/#")
	s.wantGone(`"+/#"`)
	ok(t, "queue", "purge", "bridge/cloud", "--yes", "--data-dir", s.dir())
	s.wantGone("")
	s.carrying("c/#")
	s.publish(mqtt.Message{Topic: "c/1", QoS: 1})
	s.carrying("c/#")
	s.wantGone("")
}

// Once all had their turn the queue forgets it, so that the next start says nothing.
func TestTopicsThatAreGoneAreForgotten(t *testing.T) {
	s := newSite(t, nil)
	up := &site{t: t, cfg: cloudConfig(t.TempDir())}
	up.start()
	arrived, err := up.broker.OpenInbox(t.Context(), "test", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "b/#", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.carrying("a/#", "b/#")
	s.publish(mqtt.Message{Topic: "a/1", QoS: 1})
	s.publish(mqtt.Message{Topic: "b/1", QoS: 1})
	s.carryingTo(up.mqttAddr().String(), "b/#")
	if m, err := arrived.Recv(t.Context()); err != nil || m.Topic != "b/1" {
		t.Fatalf("upstream %q arrives, %v", m.Topic, err)
	}
	s.carrying("b/#") // the stop waits until all is acknowledged
	s.wantQueues("bridge/cloud absent 0, bridge/cloud/dead absent 0")
	s.publish(mqtt.Message{Topic: "b/2", QoS: 1})
	s.carrying("b/#")
	s.wantGone("")
	s.wantQueues("bridge/cloud absent 1, bridge/cloud/dead absent 0")
}
