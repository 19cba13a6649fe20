//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/bridge"
	"tidegate/internal/clock"
	"tidegate/internal/leak"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

const (
	day    = 24 * time.Hour
	decade = 3652 * day
)

// Thirty days without an uplink, on a board whose clock begins in 1970 with each
// of three starts, the second after a power cut. The clock is set to ten years
// ahead and back while messages wait, and set right in the second and the third
// start only. When the uplink is back, all that was measured arrives, once and in
// order; what is known of its time is right; what has expired has done so by the
// time that has passed. A normal run has days of 72 minutes.
func TestThirtyDaysWithoutUplink(t *testing.T) {
	leak.Check(t)
	t.Run("protocol 5", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { withoutUplink(t, 5, "properties") })
	})
	if isFull() {
		t.Run("protocol 4", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { withoutUplink(t, 4, "json") })
		})
	}
}

func withoutUplink(t *testing.T, protocol int, envelope string) {
	u := day / 20
	if isFull() {
		u = day
	}
	b, sensor := &board{t: t, dir: t.TempDir(), uplink: &shore{t: t}}, &hourly{each: 20}
	cfg := bridge.Config{
		Name: "cloud", Servers: []string{"tcp://shore:1883"}, Protocol: protocol, Envelope: envelope, Will: new(false),
		Out: []bridge.Rule{{Topics: []string{"sensor/#", "expires/#"}}},
	}
	publish := func(topic string, expiry time.Duration) {
		b.must(b.broker.Publish(t.Context(), mqtt.Message{Topic: topic, Payload: []byte(`"x"`), QoS: mqtt.AtLeastOnce, Expiry: expiry}))
	}
	began := time.Now()
	until := func(at time.Duration) { time.Sleep(at - time.Since(began)) }

	b.boot(cfg, sensor)
	time.Sleep(time.Minute)
	publish("expires/after", 40*u)
	publish("expires/before", 5*u)
	until(10 * u)
	b.cut()
	until(10*u + u/12)
	second := sensor.count()
	b.boot(cfg, sensor)
	until(12 * u)
	b.setClock(b.now().Add(decade), false)
	until(15 * u)
	b.setClock(b.now().Add(-decade), false)
	until(17 * u)
	known := sensor.count()
	b.setClock(time.Now(), true)
	until(18 * u)
	b.setClock(b.now().Add(decade), false)
	until(19 * u)
	b.stop()
	until(20 * u)
	third := sensor.count()
	b.boot(cfg, sensor)
	until(22 * u)
	b.setClock(b.now().Add(decade), false)
	until(30*u - time.Minute)
	publish("expires/after", time.Hour)
	b.setClock(time.Now(), true)
	until(30 * u)
	synced := sensor.count()
	b.uplink.reopen()
	until(30*u + 3*time.Hour)
	b.stop()

	a := audit{t: t, sensor: sensor, got: b.uplink.got}
	a.wants(0, second, 1, clock.Unsynced)
	a.wants(second, known, 2, clock.Corrected)
	a.wants(known, third, 2, clock.Synced)
	a.wants(third, synced, 3, clock.Corrected)
	a.wants(synced, sensor.count(), 3, clock.Synced)
	a.numbers()
	var left []time.Duration
	for _, m := range a.got {
		if m.topic == "expires/before" {
			t.Errorf("a message that has expired arrives")
		}
		if m.topic == "expires/after" {
			left = append(left, m.expiry)
		}
	}
	off := u/12 + u // the line does not go on meanwhile
	if first := 10*u + off; len(left) != 2 || protocol == 5 && (apart(left[0], first) > 11*time.Minute || apart(left[1], time.Hour) > 4*time.Minute) {
		t.Errorf("messages arrive that expire in %v, want about %v and an hour", left, first)
	}
	if lost := fmt.Sprint(b.broker.Losses()); strings.Count(lost, "expired") != 1 {
		t.Errorf("the loss ledger has %s", lost)
	}
	checkDials(t, b.uplink.dials, 30*u)
	t.Logf("%v without uplink, 3 starts, 4 steps of the clock: %d readings of %d lost, %d dials",
		units.Duration(30*u), sensor.count()-len(a.readings()), sensor.count(), len(b.uplink.dials))
}

// checkDials holds the waits between connections against the configured back-off,
// which nothing that happened to the clock may have changed.
func checkDials(t *testing.T, dials []time.Time, outage time.Duration) {
	t.Helper()
	const most = 2 * time.Minute
	waits := 0
	for i := range dials[1:] {
		if dials[i+1].Sub(dials[i]) > most {
			waits++
		}
	}
	if waits > 2 { // while the board was off
		t.Errorf("%d waits were longer than %v", waits, most)
	}
	if n, mean := len(dials), outage/time.Duration(len(dials)); mean < most/4 || mean > most {
		t.Errorf("%d dials in %v, one every %v", n, outage, mean)
	}
}

// audit holds what has arrived against what was measured.
type audit struct {
	t      *testing.T
	sensor *hourly
	got    []landed
}

// readings are the messages that are readings, in the order of their arrival.
func (a *audit) readings() (list []landed) {
	for _, m := range a.got {
		if m.topic == "sensor/probe/n" {
			list = append(list, m)
		}
	}
	return list
}

// wants checks the readings from number from up to, but without, to.
func (a *audit) wants(from, to int, boot uint32, q clock.Quality) {
	a.t.Helper()
	list := a.readings()
	if len(list) < to {
		a.t.Errorf("%d readings arrive, want %d", len(list), to)
		return
	}
	for n := from; n < to; n++ {
		m := list[n]
		var reading struct {
			Value   int           `json:"value"`
			Time    time.Time     `json:"time"`
			Quality clock.Quality `json:"time_quality"`
		}
		if err := json.Unmarshal(m.payload, &reading); err != nil {
			a.t.Fatalf("reading %d: %v", n, err)
		}
		if reading.Quality == "" {
			reading.Quality = clock.Synced
		}
		stamped, err := time.Parse(time.RFC3339, m.Time)
		a.mustParse(err)
		wrong := func(at time.Time) bool { return q != clock.Unsynced && apartFrom(at, a.sensor.times[n]) > time.Second }
		if reading.Value != n || m.Boot != boot || m.TimeQuality != q || reading.Quality != q || wrong(stamped) || wrong(reading.Time) {
			a.t.Errorf("reading %d, measured at %v, arrives as %s\nwith %+v; want boot %d, %s", n, a.sensor.times[n], m.payload, m.Envelope, boot, q)
			return
		}
	}
}

func (a *audit) mustParse(err error) {
	if err != nil {
		a.t.Fatal(err)
	}
}

// numbers checks what tells a consumer that nothing is missing.
func (a *audit) numbers() {
	a.t.Helper()
	seq := uint64(0)
	for i, m := range a.got {
		if m.N != uint64(i+1) || m.Seq <= seq || m.Boot == 0 {
			a.t.Errorf("message %d has the numbers n %d, boot %d and seq %d, after seq %d", i, m.N, m.Boot, m.Seq, seq)
			return
		}
		seq = m.Seq
	}
}

func apart(a, b time.Duration) time.Duration { return max(a-b, b-a) }

func apartFrom(a, b time.Time) time.Duration { return apart(a.Sub(b), 0) }
