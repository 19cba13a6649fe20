package broker

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
)

// aging starts a broker without listeners, to be used in virtual time, whose line
// of time that is.
func aging(t *testing.T) *bed {
	return newBed(t, func(d *bed) { d.cfg.Listeners, d.opts.Line = nil, time.Now })
}

func TestWhatIsTooOldGoesWithoutItsConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := aging(t)
		q := mqtt.QueueLimits{MaxAge: time.Hour}
		d.opens(q).Close()
		for n := 1; n <= 100; n++ { // one a minute
			d.number(n, 10, 1)
			time.Sleep(time.Minute)
		}
		d.flush()
		if n := d.owed(); n < 59 || n > 61 {
			t.Errorf("after 100 minutes %d messages are owed, want those of an hour", n)
		}
		if n := d.statusOf("q").OnDisk; n < 59 || n > 61 {
			t.Errorf("%d are owed on disk", n)
		}
		d.restart()
		d.opens(q).Close() // which sends 4
		time.Sleep(30 * time.Minute)
		if n := d.owed(); n < 33 || n > 35 {
			t.Errorf("half an hour later %d messages are owed, want those of half an hour and 4", n)
		}
		in := d.opens(q)
		got := d.takeAll(in)
		wantRun(t, got[:4], got[0], got[0]+3)
		wantRun(t, got[4:], 100-len(got)+5, 100)
		if n, _ := d.lostOf(lostAge); int(n)+len(got) != 100 {
			t.Errorf("%d came and %d are lost", len(got), n)
		}
	})
}

func TestWhatHasExpiredOnItsWayIsLostOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := aging(t)
		q := mqtt.QueueLimits{}
		d.opens(q).Close()
		for _, expiry := range []time.Duration{0, time.Second} { // the first keeps the sweep from the second
			if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "t/x", Payload: []byte("1"), QoS: 1, Expiry: expiry}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		in := d.opens(q)
		if _, err := in.Recv(d.ctx()); err != nil { // and does not acknowledge it
			t.Fatal(err)
		}
		synctest.Wait()
		d.restart()
		time.Sleep(5 * time.Second)
		if n, _ := d.lostOf(lostExpired); n != 1 || d.owed() != 1 {
			t.Errorf("%d are lost and %d owed, want one each", n, d.owed())
		}
	})
}

// What has expired behind a message that may wait is not found before that one is
// gone. It counts as queued until then, within the bounds, and is not delivered.
func TestWhatHasExpiredBehindOthersIsNotDelivered(t *testing.T) {
	for name, restart := range map[string]bool{"while it runs": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := aging(t)
				q := mqtt.QueueLimits{MaxMessages: 60}
				d.opens(q).Close()
				const last = 90
				for n := 1; n <= last; n++ {
					m := mqtt.Message{Topic: "t/x", Payload: []byte(strconv.Itoa(n)), QoS: 1}
					if n%3 > 0 {
						m.Expiry = time.Second
					}
					if err := d.b.Publish(d.ctx(), m); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(5 * time.Second)
				if n := d.owed(); n > 60 || n < 50 {
					t.Errorf("%d messages are owed, at most 60 may be, and what has expired is among them", n)
				}
				if restart {
					d.restart()
				}
				got := d.takeAll(d.opens(q))
				for _, n := range got {
					if n%3 > 0 {
						t.Errorf("number %d was delivered after it had expired", n)
					}
				}
				expired, _ := d.lostOf(lostExpired)
				dropped, _ := d.lostOf(lostCount)
				if len(got) < 15 || len(got)+int(expired+dropped) != last {
					t.Errorf("%d came, %d have expired and %d made room", len(got), expired, dropped)
				}
			})
		})
	}
}

func TestWhatHasExpiredGoesWithoutItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := aging(t)
		d.opens(mqtt.QueueLimits{}).Close()
		publish := func(expiry time.Duration) {
			if err := d.b.Publish(d.ctx(), mqtt.Message{Topic: "t/x", Payload: []byte("1"), QoS: 1, Expiry: expiry}); err != nil {
				t.Fatal(err)
			}
		}
		publish(10 * time.Second)
		publish(20 * time.Second)
		publish(0)
		for after, want := range []int64{3, 2, 1, 1} {
			if n := d.owed(); n != want {
				t.Errorf("after %d s %d messages are owed, want %d", 11*after, n, want)
			}
			time.Sleep(11 * time.Second)
		}
		d.wantLosses("q t/# expired 2")
	})
}

// A connected consumer that takes nothing keeps what it has; the rest grows old.
func TestWhatIsTooOldGoesBehindWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := aging(t)
		in := d.opens(mqtt.QueueLimits{MaxAge: time.Minute})
		d.numbers(1, 20, 10, 1)
		time.Sleep(2 * time.Minute)
		if n := d.owed(); n != 4 {
			t.Errorf("%d messages are owed, want the 4 that were sent", n)
		}
		d.numbers(21, 22, 10, 1)
		got := d.takeAll(in)
		wantRun(t, got[:4], 1, 4)
		wantRun(t, got[4:], 21, 22)
		d.wantLosses("q t/# max_age 16")
	})
}

// A message that is retained grows old from the time at which it is owed.
func TestRetainedMessageIsAsOldAsTheSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners, d.cfg.Queue.MaxAge = nil, 60e9 })
		pub := d.in5("pub", five(nil))
		pub.retain("a", "old", 1)
		time.Sleep(time.Hour)
		sub := d.in5("sub", kept5(1000))
		sub.subscribe("a", 1)
		sub.want("a", "old", 1)
		clean := d.in5("clean", five(nil))
		clean.subscribe("a", 1)
		clean.want("a", "old", 1)
	})
}
