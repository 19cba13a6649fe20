package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/leak"
	"tidegate/internal/proxy"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// lastReport returns what the topic status says.
func (l *fakeLocal) lastReport(t *testing.T) (r Report) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var doc struct {
		Report
		State string `json:"state"`
	}
	if err := json.Unmarshal(l.report, &doc); err != nil {
		t.Fatalf("%s: %v", l.report, err)
	}
	for _, s := range []State{Down, Dialing, Up, Draining} {
		if s.String() == doc.State {
			doc.Report.State = s
		}
	}
	return doc.Report
}

func TestTheStatusTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := &twoServers{t: t}, newLocal()
		r := twoServerRig(t, s, local, 10*time.Minute)
		time.Sleep(5 * time.Second) // virtual
		if got := local.lastReport(t); got.State != Up || got.Server != "tcp://two:1883" || got.Failures["tcp"] != 1 || got.LastAckAge != nil ||
			got.ToEmpty != nil || got.Backlog != 0 || got.Error == "" || got.ErrorAge == nil || got.TimeQuality != "unsynced" {
			t.Errorf("before there is work the report is %+v", got)
		}
		local.add(numbered(3)...)
		time.Sleep(heraldInterval)
		if got := local.lastReport(t); got.LastAckAge == nil || *got.LastAckAge > 10 || got.Rate < 0.05 || got.StateAge < 5 {
			t.Errorf("after three messages the report is %+v", got)
		}
		r.end()
		if got := local.lastReport(t); got.State != Down {
			t.Errorf("in the end the report is %+v", got)
		}
		var names map[string]any
		if err := json.Unmarshal(local.report, &names); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"server", "state", "since", "backlog", "backlog_bytes", "last_ack_age_seconds", "rate", "dead_letters", "failures", "in", "time_quality"} {
			if _, ok := names[name]; !ok {
				t.Errorf("%s is missing in %s", name, local.report)
			}
		}
	})
}

// A backlog of 10,000 that a server takes at 20 a second, while 5 a second come.
func TestTheTimeToEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal(numbered(10000)...)
		cfg := testConfig()
		cfg.MaxInflight = 1
		r := newRig(t, cfg, local, piped(t, takesTwenty)).start()
		for range 5 * 300 {
			local.add(numbered(1)...)
			time.Sleep(200 * time.Millisecond) // virtual
		}
		got := local.lastReport(t)
		want := float64(local.left()) / 15
		if math.Abs(got.Rate-20) > 1 || got.ToEmpty == nil || math.Abs(*got.ToEmpty-want) > want/20 {
			t.Errorf("the report is %+v, but %v s are left", got, want)
		}
		if age := *got.OldestAge; age < 290 || age > 300 || got.Bytes != 10*got.Backlog {
			t.Errorf("the report is %+v", got)
		}
		r.end()
	})
}

// The status is asked often, and is right soon after the dead letters are back in the
// queue: for hours there was none, and then all came at once.
func TestTheTimeToEmptyOfWhatIsPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		cfg := testConfig()
		cfg.MaxInflight = 1
		r := newRig(t, cfg, local, piped(t, takesTwenty)).start()
		time.Sleep(time.Hour + 3*time.Second) // virtual
		for _, m := range numbered(1000) {
			local.dead.add(deadLetter(m, places{"cloud"}, errUnmatched))
		}
		if n, err := r.Requeue(t.Context()); err != nil || n != 1000 {
			t.Fatalf("%d put back, %v", n, err)
		}
		for range 15 {
			time.Sleep(3 * time.Second) // virtual
			r.isOnTime(20)
		}
		<-local.empty()
		if s := r.Report(); s.ToEmpty != nil || s.Rate < 15 {
			t.Errorf("in the end the report is %+v", s)
		}
		r.end()
	})
}

// To put them back takes its time, for each has to be safe. Here somebody breaks it off
// after half of them.
func TestTheTimeToEmptyWhileMuchIsPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		local.takes = 10 * time.Millisecond
		cfg := testConfig()
		cfg.MaxInflight = 1
		r := newRig(t, cfg, local, piped(t, takesTwenty)).start()
		time.Sleep(time.Hour) // virtual
		for _, m := range numbered(2000) {
			local.dead.add(deadLetter(m, places{"cloud"}, errUnmatched))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		broken := make(chan error, 1)
		go func() {
			_, err := r.Requeue(ctx)
			broken <- err
		}()
		for range 10 {
			time.Sleep(3 * time.Second) // virtual
			r.isOnTime(20)
		}
		if err := <-broken; err == nil {
			t.Error("all was put back")
		}
		r.end()
	})
}

// However soon they are gone, the rate has counted them.
func TestTheRateOfWhatIsPutBackAndGoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		r := newRig(t, testConfig(), local, piped(t, func(_ int, _ string, u upstream) { u.serve() })).start()
		time.Sleep(time.Hour) // virtual
		for _, m := range numbered(100) {
			local.dead.add(deadLetter(m, places{"cloud"}, errUnmatched))
		}
		if n, err := r.Requeue(t.Context()); err != nil || n != 100 {
			t.Fatalf("%d put back, %v", n, err)
		}
		<-local.empty()
		time.Sleep(2 * time.Second) // virtual
		if s := r.Report(); s.Rate != 50 {
			t.Errorf("the report is %+v", s)
		}
		r.end()
	})
}

// What was queued in an outage says nothing of how long it takes.
func TestTheTimeToEmptyAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, back := newLocal(), time.Now().Add(time.Hour)
		cfg := testConfig()
		cfg.MaxInflight = 1
		cfg.Backoff = Backoff{seconds(1), seconds(1)}
		serve := piped(t, takesTwenty)
		r := newRig(t, cfg, local, func(ctx context.Context, network, address string) (net.Conn, error) {
			if time.Now().Before(back) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			return serve(ctx, network, address)
		}).start()
		for range 1800 {
			local.add(numbered(1)...)
			time.Sleep(2 * time.Second) // virtual
		}
		time.Sleep(2 * time.Second) // virtual
		for range 20 {
			time.Sleep(3 * time.Second) // virtual
			r.isOnTime(20)
		}
		r.end()
	})
}

// takesTwenty is a server that takes 20 messages a second.
func takesTwenty(_ int, _ string, u upstream) {
	u.accept(packets.Accepted)
	for p := u.publish(); p != nil; p = u.publish() {
		time.Sleep(50 * time.Millisecond)
		u.ack(p)
	}
}

// isOnTime holds the report against what is left of a backlog that nothing is added to.
func (r *rig) isOnTime(rate float64) {
	r.t.Helper()
	got, want := r.Report(), float64(r.local.left())/rate
	if math.Abs(got.Rate-rate) > 1 || got.ToEmpty == nil || math.Abs(*got.ToEmpty-want) > 1+want/20 {
		r.t.Errorf("the report is %+v, but %v s are left", got, want)
	}
}

// What the server keeps about the gateway, in both protocols: its will is to say
// offline, and the bridge says online when it comes and offline when it goes.
func TestTheServerKnowsWhetherTheGatewayIsThere(t *testing.T) {
	const topic = "site/gateway/pump-house/status"
	bothProtocols(t, func(t *testing.T, protocol int) {
		synctest.Test(t, func(t *testing.T) {
			cfg, got := testConfig(), make(chan string, 10)
			cfg.Protocol, cfg.Will = protocol, new(true)
			cfg.Out = append(cfg.Out, Rule{Topics: []string{"#"}, Prefix: "site/"})
			tell := func(topic string, payload []byte, retain bool) {
				got <- fmt.Sprintf("%s %s %v", topic, payload, retain)
			}
			local := newLocal(mqtt.Message{Topic: "gateway/pump-house/status", Payload: []byte("old"), QoS: mqtt.AtLeastOnce}, readings(1)[0])
			r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
				if protocol == 5 {
					u := upstream5(u)
					p := u.accept(nil)
					got <- fmt.Sprintf("will %s %s %d %v", p.WillTopic, p.WillMessage, p.WillQOS, p.WillRetain)
					for {
						switch p := u.read().(type) {
						case *packets5.Publish:
							tell(p.Topic, p.Payload, p.Retain)
							if p.QoS > 0 {
								u.ack(p, 0)
							}
						case *packets5.Disconnect:
							got <- fmt.Sprint("DISCONNECT ", p.ReasonCode)
						case nil:
							return
						}
					}
				}
				p := u.accept(packets.Accepted)
				got <- fmt.Sprintf("will %s %s %d %v", p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain)
				for {
					switch p := u.read().(type) {
					case *packets.PublishPacket:
						tell(p.TopicName, p.Payload, p.Retain)
						if p.Qos > 0 {
							u.ack(p)
						}
					case *packets.DisconnectPacket:
						got <- "DISCONNECT 0"
					case nil:
						return
					}
				}
			})).start()
			<-local.empty()
			r.end()
			synctest.Wait()
			close(got)
			var all []string
			for s := range got {
				all = append(all, s)
			}
			want := []string{"will " + topic + " offline 1 true", topic + " online true", "site/sensor/a a false", topic + " offline true", "DISCONNECT 0"}
			if !slices.Equal(all, want) {
				t.Errorf("the server got\n%q\nwant\n%q", all, want)
			}
		})
	})
}

func TestOwnTopics(t *testing.T) {
	for name, c := range map[string]struct {
		out  []Rule
		want string
	}{
		"under the first prefix":     {[]Rule{{Topics: []string{"a/#"}, Prefix: "site/1/"}, {Topics: []string{"b/#"}, Prefix: "other/"}}, "site/1/gateway/x/status"},
		"where its own rule puts it": {[]Rule{{Topics: []string{"a/#"}, Prefix: "site/1/"}, {Topics: []string{"gateway/#"}, Strip: "gateway/", Prefix: "all/"}}, "all/x/status"},
		"without a prefix":           {[]Rule{{Topics: []string{"a/#"}}}, "gateway/x/status"},
		"nothing goes up":            {nil, ""},
	} {
		cfg := Config{Out: c.out}
		if got := cfg.own("gateway/x/status"); got != c.want {
			t.Errorf("%s: it is %q, want %q", name, got, c.want)
		}
	}
}

// A real server, behind a network that is cut.
func TestARealServerTellsThatTheGatewayIsGone(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol int) {
		leak.Check(t)
		server := newMosquitto(t)
		network := newNetwork(t, server.Addr)
		watcher := server.subscribe("site/gateway/#")
		last := ""
		next := func(want string) {
			t.Helper()
			for watcher.lines.Scan() {
				got := watcher.lines.Text()
				if want := "site/gateway/pump-house/status " + want; got == want {
					last = want
					return
				}
				if got != last { // its subscription may come after the first message, which is retained
					t.Fatalf("the watcher got %q, want %s", got, want)
				}
			}
		}
		cfg := testConfig()
		cfg.Protocol, cfg.Will, cfg.Servers = protocol, new(true), []string{"tcp://" + network.Addr()}
		cfg.Backoff = Backoff{units.Duration(time.Millisecond), units.Duration(20 * time.Millisecond)}
		r := newRig(t, cfg, newLocal(), new(net.Dialer).DialContext).start()
		next("online")
		network.SetMode(proxy.Cut)
		next("offline")
		network.SetMode(proxy.Pass)
		next("online")
		r.end()
		next("offline")
	})
}
