package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// written returns how many bytes this process has written to files and sockets.
func written(t *testing.T) (n float64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("this system does not count what is written")
	}
	_, rest, _ := strings.Cut(string(text), "wchar: ")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// near fails unless have is within a share of want.
func near(t *testing.T, what string, have, want, share float64) {
	t.Helper()
	t.Logf("%s: %.0f measured, %.0f planned (%+.1f %%)", what, have, want, (want/have-1)*100)
	if math.Abs(want/have-1) > share {
		t.Errorf("%s: %.0f bytes are measured, %.0f planned", what, have, want)
	}
}

// The plan says what a real store takes.
func TestPlanAgreesWithTheDisk(t *testing.T) {
	for _, size := range []units.Size{16, 128, 1000, 3000, 10000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := newSite(t, func(c *Config) { c.Broker.Queue.MaxDisk = units.GiB })
			s.absent("absent", "sensor/#")
			topic := "sensor/weather/temperature-out"
			c := PlanCmd{Rate: 100, Size: size, Topic: units.Size(len(topic)), Hours: 1, Card: 1, Cycles: 1, Amplification: 1}
			publish := func(n int, wait func(m mqtt.Message)) (bytes float64) {
				before := written(t)
				for range n {
					wait(mqtt.Message{Topic: topic, Payload: make([]byte, size), QoS: 1})
				}
				return written(t) - before
			}
			alone := publish(100, func(m mqtt.Message) { s.publish(m) })
			near(t, "written by a commit of one", alone/100, (planCommit+leafPages(1, float64(size)+float64(len(topic))+planRecord))*planPage, 0.2)
			many := int(min(8_000_000/size, 20_000))
			together := publish(1, func(m mqtt.Message) {
				var all sync.WaitGroup
				for range many {
					all.Add(1)
					err := s.broker.PublishAsync(t.Context(), m, func(error) { all.Done() })
					if err != nil {
						t.Fatal(err)
					}
				}
				all.Wait()
			})
			near(t, "written by large commits", together/float64(many), c.plan(s.cfg).BytesPerMessage, 0.25)
			near(t, "on the disk", float64(s.store.Stats().JournalBytes), float64(many+100)*c.plan(s.cfg).BytesPerMessage, 0.15)
		})
	}
}

func TestPlan(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a.yaml": `
store: {commit_interval: 100ms}
bridges:
  - {name: cloud, servers: ["tcp://a:1"], out: [{topics: ["sensor/#"]}], queue: {max_disk: 512MiB}}
`})
	args := []string{"plan", "--config", dir + "/a.yaml", "--rate", "50", "--size", "128B", "--hours", "72"}
	golden(t, "plan", ok(t, args...))
	var p plan
	if err := json.Unmarshal([]byte(ok(t, append(args, "-o", "json")...)), &p); err != nil || p.Messages != 12_960_000 || len(p.Writing) != 2 || len(p.Limits) != 3 || !p.Limits[0].Exceeded {
		t.Errorf("%+v, %v", p, err)
	}
	for _, wrong := range [][]string{{"--rate", "0"}, {"--hours", "-1"}, {"--rate", "NaN"}, {"--topic", "0"}, {"--size", "much"}} {
		if code, _, _ := call(t, append(args, wrong...)...); code != exitUsage {
			t.Errorf("%v ends with %d", wrong, code)
		}
	}
}
