package broker

import (
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/client"
)

func TestSysTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil; d.opts.Version = "1.2.3" })
		commits := d.st.Stats().Commits
		got := map[string]string{}
		sub := d.in5("sub", func(o *client.Options) {})
		sub.subscribe("$SYS/#", 0)
		all := d.in5("all", func(o *client.Options) {})
		all.subscribe("#", 0)
		time.Sleep(25 * time.Second)
		for len(sub.got) > 0 {
			m := <-sub.got
			got[m.Topic] = string(m.Payload)
		}
		for topic, want := range map[string]string{
			"version": "tidegate version 1.2.3", "uptime": "20 seconds", "clients/connected": "2", "clients/total": "2",
			"clients/maximum": "2", "subscriptions/count": "2", "publish/messages/dropped": "0", "messages/stored": "0",
		} {
			if got[sysPrefix+topic] != want {
				t.Errorf("%s = %q, want %q", topic, got[sysPrefix+topic], want)
			}
		}
		for _, topic := range []string{"bytes/received", "heap/current", "load/messages/received/1min", "load/bytes/sent/15min", "retained messages/count"} {
			if v := got[sysPrefix+topic]; v == "" || v == "0" {
				t.Errorf("%s = %q", topic, v)
			}
		}
		all.wantNothing() // [MQTT-4.7.2-1]
		if n := d.st.Stats().Commits; n != commits {
			t.Errorf("%d commits in 25 idle seconds", n-commits)
		}
	})
}

func TestLoadIsAnAverage(t *testing.T) {
	var l load
	for i := range uint64(600) { // 100 minutes of 6 in 10 s
		l.step(6*(i+1), 10*time.Second)
	}
	for i, v := range l.average {
		if math.Abs(v-36) > 0.1 {
			t.Errorf("average over %d min is %.2f, want 36", loadSpans[i], v)
		}
	}
	before := slices.Clone(l.average[:])
	for range 6 {
		l.step(l.before, 10*time.Second)
	}
	if math.Abs(l.average[0]/before[0]-1/math.E) > 0.01 {
		t.Errorf("after a minute of nothing %.2f is left of %.2f", l.average[0], before[0])
	}
}
