package bridge

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/clock"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// A board starts at a wrong time, its uplink is there at once, and the clock is set
// half a minute later: what was measured before goes upstream behind that, with the
// time at which it was.
func TestReadingsWaitForTheClock(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		ahead time.Duration // of the board's clock
		set   time.Duration // when it is set; 0: never
		wait  time.Duration
		cut   bool // the server ends the connection after 20 s
		text  bool // the message has no time in it

		at      time.Duration // when it arrives
		quality clock.Quality
	}{
		"from 1970":                   {-30 * year, 30 * time.Second, time.Minute, false, false, 30 * time.Second, clock.Corrected},
		"ten years ahead":             {10 * year, 30 * time.Second, time.Minute, false, false, 30 * time.Second, clock.Corrected},
		"ten years behind":            {-10 * year, 30 * time.Second, time.Minute, false, false, 30 * time.Second, clock.Corrected},
		"over two connections":        {-10 * year, 30 * time.Second, time.Minute, true, false, 30 * time.Second, clock.Corrected},
		"nobody sets it":              {-10 * year, 0, time.Minute, false, false, time.Minute, clock.Unsynced},
		"nobody, two connections":     {-10 * year, 0, time.Minute, true, false, time.Minute, clock.Unsynced},
		"it is not to wait":           {-10 * year, 30 * time.Second, 0, false, false, 0, clock.Unsynced},
		"there is no time to correct": {-10 * year, 30 * time.Second, time.Minute, false, true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line, set := clock.NewTest(t, c.ahead)
				measured, begin := time.Now(), time.Now()
				payload := fmt.Sprintf(`{"value":1,"time":"%s","time_quality":"unsynced"}`, line.Now().UTC().Format(timeFormat))
				if c.text {
					payload = `{"value":1}`
				}
				cfg, got := testConfig(), make(chan string, 9)
				cfg.ClockWait = units.Duration(c.wait)
				local := newLocal(mqtt.Message{Topic: "sensor/a", Payload: []byte(payload), QoS: mqtt.AtLeastOnce})
				r := newRig(t, cfg, local, piped(t, func(n int, _ string, u upstream) {
					if c.cut && n == 0 {
						u.accept(packets.Accepted)
						time.Sleep(20 * time.Second)
						return
					}
					for _, m := range u.serve() {
						got <- m
					}
				}))
				r.UseClock(line)
				r.start()
				if c.set > 0 {
					time.AfterFunc(c.set, set)
				}
				<-local.empty()
				took := time.Since(begin)
				local.add(numbered(1)...) // waits for nothing any more
				<-local.empty()
				r.end()
				if took < c.at || took > c.at+3*time.Second {
					t.Errorf("arrived after %v, want %v", took, c.at)
				}
				var m struct {
					Time    time.Time     `json:"time"`
					Quality clock.Quality `json:"time_quality"`
				}
				text := (<-got)[len("site/sensor/a "):]
				if err := json.Unmarshal([]byte(text), &m); err != nil || m.Quality != c.quality {
					t.Errorf("%v: %s, want it %s", err, text, c.quality)
				}
				if off := m.Time.Sub(measured).Abs(); c.quality == clock.Corrected && off > time.Second {
					t.Errorf("%s is %v off", text, off)
				}
			})
		})
	}
}
