package bridge

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"tidegate/mqtt"
)

func TestRoutes(t *testing.T) {
	drop := false
	routes := newRoutes(&Config{Out: []Rule{{Topics: []string{"a/#"}, Retain: &drop}, {Topics: []string{"#"}, Prefix: "x/"}}})
	for range 2 { // looked for, and kept
		m, err := routes.of("a/b").carry(mqtt.Message{Topic: "a/b", Retain: true})
		if err != nil || m.Retain {
			t.Errorf("retain: false is passed over: %+v, %v", m, err)
		}
		m, err = routes.of("x/b").carry(mqtt.Message{Topic: "x/b", Retain: true})
		if err != nil || !m.Retain || m.Topic != "x/x/b" {
			t.Errorf("got %+v, %v", m, err)
		}
		if _, err := routes.of("x/x/b").carry(mqtt.Message{Topic: "x/x/b"}); !errors.Is(err, errCircle) {
			t.Errorf("a topic that grows with each round is refused with %v", err)
		}
	}
}

func TestRoutesAreBounded(t *testing.T) {
	routes := newRoutes(&Config{Out: []Rule{{Topics: []string{"#"}, Prefix: "x/"}}})
	for n := range 3 * mostRoutes {
		topic := fmt.Sprintf("a/%d", n)
		if way := routes.of(topic); way.topic != "x/"+topic || len(routes.kept) > mostRoutes {
			t.Fatalf("%s goes to %s, with %d kept", topic, way.topic, len(routes.kept))
		}
	}
	kept := len(routes.kept)
	if long := strings.Repeat("a", longestTopic+1); routes.of(long).topic != "x/"+long || len(routes.kept) != kept {
		t.Error("a long topic is kept, or has no route")
	}
}
