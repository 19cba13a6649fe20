package broker

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// flashBed is a broker with a budget and a session that is away, in virtual time.
func flashBed(t *testing.T, budget units.Budget) (*bed, *logged) {
	log := new(logged)
	d := newBed(t, func(d *bed) {
		d.cfg.Listeners, d.opts.FlashBudget, d.handler = nil, budget, log.handler()
	})
	in, err := d.b.OpenInbox(t.Context(), "away", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	return d, log
}

// publishFor publishes a message a second for as long, one after the other, and
// returns how long the slowest took to be safe.
func (d *bed) publishFor(long time.Duration) (slowest time.Duration) {
	d.t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); {
		began := time.Now()
		if err := d.b.Publish(d.t.Context(), mqtt.Message{Topic: "a", Payload: make([]byte, 100), QoS: 1}); err != nil {
			d.t.Fatal(err)
		}
		took := time.Since(began)
		slowest = max(slowest, took)
		time.Sleep(max(0, time.Second-took))
	}
	return slowest
}

// A budget that one commit a second would break is kept by keeping commits apart.
func TestFlashBudgetIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 100e6
		d, log := flashBed(t, budget)
		before := d.st.Written()
		first := d.publishFor(time.Minute)
		slowest := d.publishFor(3*time.Hour - time.Minute)
		written := d.st.Written() - before
		t.Logf("%.1f MB in 3 hours, the slowest acknowledgement took %v, in the first minute %v; %+v", float64(written)/1e6, slowest, first, d.b.Status().Flash)
		if most := budget / 24 * 4; float64(written) > most { // three hours and the reserve
			t.Errorf("%d bytes were written, want at most %.0f", written, most)
		}
		if first > 20*time.Millisecond || slowest < 5*time.Second || slowest > time.Minute {
			t.Errorf("the slowest acknowledgement took %v, in the first minute %v", slowest, first)
		}
		if st := d.b.Status().Flash; st.Over || strings.Count(log.String(), "flash_budget") > 0 || st.Interval < 5 {
			t.Errorf("%+v, %d lines", st, strings.Count(log.String(), "flash_budget"))
		}
		time.Sleep(time.Hour)
		if took := d.publishFor(time.Second); took > 20*time.Millisecond {
			t.Errorf("after an idle hour an acknowledgement took %v", took)
		}
	})
}

// A budget that even a commit a minute breaks is said to be broken, once, and once
// to be kept again.
func TestBrokenFlashBudgetIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := flashBed(t, 2e6)
		slowest := d.publishFor(2 * time.Hour)
		if st := d.b.Status().Flash; !st.Over || strings.Count(log.String(), "more than flash_budget") != 1 || slowest > widestWait {
			t.Errorf("%+v; the log says %d times that it is broken; the slowest acknowledgement took %v", st, strings.Count(log.String(), "more than flash_budget"), slowest)
		}
		time.Sleep(3 * time.Hour)
		if st := d.b.Status().Flash; st.Over || strings.Count(log.String(), "inside flash_budget again") != 1 {
			t.Errorf("after three idle hours %+v; the log says %d times that it is kept again", st, strings.Count(log.String(), "inside flash_budget again"))
		}
	})
}

// widestWait allows for a commit_interval beside the minute.
const widestWait = time.Minute + time.Second

// Whoever is held up by what waits for the disk is not held up by the budget.
func TestFlashBudgetDelaysNoDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := flashBed(t, 2e6)
		for range 5000 {
			err := d.b.PublishAsync(t.Context(), mqtt.Message{Topic: "a", Payload: make([]byte, 100), QoS: 1}, nil)
			if err != nil {
				t.Fatal(err)
			}
		}
		d.publishFor(10 * time.Minute) // nothing is left of the budget
		in, err := d.b.OpenInbox(t.Context(), "away", mqtt.InboxOptions{MaxInflight: 20}, mqtt.Subscription{Filter: "a", QoS: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		began := time.Now()
		for range 5000 {
			m, err := in.Recv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			in.Ack(m.Seq)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the drain took %v", took)
		}
	})
}
