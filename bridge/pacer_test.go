package bridge

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/mqtt"
)

// timetable is when a server that answers at once got each payload.
type timetable struct {
	began time.Time
	at    map[string]time.Duration
	order []string
}

func (a *timetable) dial(t testing.TB) dialFunc {
	a.at = make(map[string]time.Duration)
	return piped(t, func(_ int, _ string, u upstream) {
		u.accept(packets.Accepted)
		a.began = time.Now()
		for p := u.publish(); p != nil; p = u.publish() {
			a.at[string(p.Payload)] = time.Since(a.began)
			a.order = append(a.order, string(p.Payload))
			u.ack(p)
		}
	})
}

func limited(rate string) Config {
	cfg := testConfig()
	if err := cfg.CatchUp.Rate.UnmarshalText([]byte(rate)); err != nil {
		panic(err)
	}
	return cfg
}

// within reports whether got is at most one part in twenty off.
func within(got, want time.Duration) bool { return (got - want).Abs() <= want/20 }

func TestTheBacklogKeepsToItsRate(t *testing.T) {
	large := make([]mqtt.Message, 400)
	for i := range large {
		large[i] = mqtt.Message{Topic: "sensor/n", Payload: fmt.Appendf(nil, "%-1016d", i), QoS: mqtt.AtLeastOnce} // 1 KiB with its topic
	}
	for name, c := range map[string]struct {
		rate    string
		backlog []mqtt.Message
		want    time.Duration
	}{
		"messages":               {"500/s", numbered(10000), 20 * time.Second},
		"few messages":           {"1/s", numbered(100), 99 * time.Second},
		"bytes":                  {"64KiB/s", large, 400 * time.Second / 64},
		"larger than a second's": {"256B/s", large[:50], 50 * 4 * time.Second},
		"both, bytes first":      {"100/s 32KiB/s", large, 400 * time.Second / 32},
		"both, messages first":   {"20/s 64KiB/s", large, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local := newLocal(c.backlog...)
				var got timetable
				r := newRig(t, limited(c.rate), local, got.dial(t)).start()
				<-local.empty()
				if took := time.Since(got.began); !within(took, c.want) {
					t.Errorf("%d messages at %s took %v, want %v", len(c.backlog), c.rate, took, c.want)
				}
				r.end()
			})
		})
	}
}

func TestARateDoesNotHoldBackWhatIsPublishedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal(numbered(1000)...)
		var got timetable
		r := newRig(t, limited("100/s"), local, got.dial(t)).start()
		synctest.Wait()
		publish := func(n int, every time.Duration, name string) {
			for i := range n {
				time.Sleep(every) // virtual
				local.add(mqtt.Message{Topic: "sensor/n", Payload: fmt.Appendf(nil, "%s %d", name, i), QoS: mqtt.AtLeastOnce})
			}
		}
		publish(10*400, 2500*time.Microsecond, "meanwhile") // four times the rate
		<-local.empty()
		if took := time.Since(got.began); !within(took, 10*time.Second) {
			t.Errorf("a backlog of 1000 messages at 100/s took %v", took)
		}
		for second := 1; second <= 10; second++ { // the rate and what came: no flood at the end
			n := 0
			for _, at := range got.at {
				if at <= time.Duration(second)*time.Second {
					n++
				}
			}
			if want := second * 500; n < want*95/100 || n > want*105/100 {
				t.Errorf("after %d s the server had %d messages, want %d", second, n, want)
			}
		}
		publish(1, time.Second, "caught up") // then a burst
		publish(2000, 0, "burst")
		before := time.Now()
		<-local.empty()
		if took := time.Since(before); took > 0 {
			t.Errorf("once it had caught up, 2000 messages took %v", took)
		}
		r.end()
	})
}

// Not the last one either. What it owes the rate holds nothing back that comes later.
func TestTheLastOfABacklogKeepsToItsRate(t *testing.T) {
	for name, c := range map[string]struct {
		rate  string
		order string
		topic string // of what comes behind the last, and has no rule but for sensor/
	}{
		"in order":     {"1/s 100B/s", "in_order", "sensor/n"},
		"live first":   {"1/s 100B/s", "live_first", "sensor/n"},
		"dropped last": {"1/s 100B/s", "in_order", "other"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backlog := numbered(3)
				backlog[1].Payload = make([]byte, 203) // with its topic and the first message 220 bytes, 100 of them in the first second
				backlog[2].Payload = make([]byte, 992) // with its topic 1000 bytes
				local := newLocal(append(backlog, mqtt.Message{Topic: c.topic, Payload: []byte("end"), QoS: mqtt.AtLeastOnce})...)
				cfg := limited(c.rate)
				cfg.CatchUp.Order = c.order
				var at []time.Duration
				begin := time.Now()
				r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
					u.accept(packets.Accepted)
					for p := u.publish(); p != nil; p = u.publish() {
						at = append(at, time.Since(begin).Round(100*time.Millisecond))
						u.ack(p)
					}
				})).start()
				<-local.empty()
				local.add(mqtt.Message{Topic: "sensor/n", Payload: []byte("live"), QoS: mqtt.AtLeastOnce})
				<-local.empty()
				r.end()
				synctest.Wait()
				want := []time.Duration{0, time.Second, 2200 * time.Millisecond}
				if c.topic == "sensor/n" {
					want = append(want, 12200*time.Millisecond)
				}
				want = append(want, want[len(want)-1])
				if !slices.Equal(at, want) {
					t.Errorf("the server had the messages after %v, want %v", at, want)
				}
			})
		})
	}
}

// A message that comes again over the next connection is backlog by then.
func TestWhatComesAgainKeepsToTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		var again []time.Time
		r := newRig(t, limited("10/s"), local, piped(t, func(n int, _ string, u upstream) {
			u.accept(packets.Accepted)
			for p := u.publish(); p != nil; p = u.publish() {
				if n == 0 {
					if string(p.Payload) == "7" {
						return // nothing was acknowledged
					}
					continue
				}
				again = append(again, time.Now())
				u.ack(p)
			}
		})).start()
		synctest.Wait()
		local.add(numbered(8)...)
		<-local.empty()
		if len(again) != 8 || !within(again[7].Sub(again[0]), 700*time.Millisecond) {
			t.Errorf("8 messages came again at %v", again)
		}
		r.end()
	})
}

// With live_first, what is published arrives at once and in its order, beside a
// backlog in its own, which keeps to its rate or takes what of the window is free.
func TestLiveFirst(t *testing.T) {
	const rtt = 200 * time.Millisecond
	for name, c := range map[string]struct {
		rate string
		want time.Duration // for the backlog
	}{
		"as fast as the window": {"0", 10000 / (96 - 10) * rtt}, // 4 places are kept free, and 10 go to live messages
		"at a rate":             {"400/s", 25 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := limited(c.rate)
				cfg.CatchUp.Order = "live_first"
				local := newLocal(numbered(10000)...)
				published := make(map[string]time.Time)
				late, last, drained := time.Duration(0), map[string]int{}, time.Duration(0)
				var mu sync.Mutex // of all these
				var began time.Time
				r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
					u.accept(packets.Accepted)
					began = time.Now()
					u.answerLate(rtt, func(p *packets.PublishPacket) {
						mu.Lock()
						defer mu.Unlock()
						var n int
						stream := "backlog"
						if _, err := fmt.Sscanf(string(p.Payload), "live %d", &n); err == nil {
							stream = "live"
							if time.Since(began) > 5*rtt { // the window has grown
								late = max(late, time.Since(published[string(p.Payload)]))
							}
						} else {
							n, _ = strconv.Atoi(string(p.Payload))
							drained = time.Since(began)
						}
						if n != last[stream] {
							t.Errorf("%s %d came after %d", stream, n, last[stream]-1)
						}
						last[stream]++
					})
				})).start()
				synctest.Wait()
				for i := 0; local.left() > 20; i++ {
					time.Sleep(20 * time.Millisecond) // virtual
					text := fmt.Sprint("live ", i)
					mu.Lock()
					published[text] = time.Now()
					mu.Unlock()
					local.add(mqtt.Message{Topic: "sensor/n", Payload: []byte(text), QoS: mqtt.AtLeastOnce})
				}
				<-local.empty()
				r.end()
				if late > time.Millisecond {
					t.Errorf("a live message waited %v", late)
				}
				if drained < c.want*9/10 || drained > c.want*11/10 {
					t.Errorf("the backlog was gone after %v, want %v", drained, c.want)
				}
				if last["backlog"] != 10000 || last["live"] != len(published) {
					t.Errorf("the server got %v, want 10000 and %d live ones", last, len(published))
				}
			})
		})
	}
}

// answerLate acknowledges each message after d, and has it seen when it comes.
func (u upstream) answerLate(d time.Duration, see func(*packets.PublishPacket)) {
	type late struct {
		p  *packets.PublishPacket
		at time.Time
	}
	arrived := make(chan late, 1000)
	go func() {
		defer close(arrived)
		for p := u.publish(); p != nil; p = u.publish() {
			see(p)
			arrived <- late{p, time.Now().Add(d)}
		}
	}()
	for l := range arrived {
		time.Sleep(time.Until(l.at)) // virtual
		u.ack(l.p)
	}
}
