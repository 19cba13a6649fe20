package bridge

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/leak"
	"tidegate/internal/units"
	"tidegate/mqtt"
)

// twoServers are "one", which is preferred, and "two", which always works.
type twoServers struct {
	t   *testing.T
	one func(id string, u upstream) // what one does once it has read CONNECT, or nil: it refuses connections

	mu    sync.Mutex
	looks []*packets.ConnectPacket
	ones  []time.Time // when the bridge itself came to one
	got   []string    // what both acknowledged
}

func (s *twoServers) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if address == "one:1883" && s.one == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	one := s.one
	return piped(s.t, func(_ int, address string, u upstream) {
		if address != "one:1883" {
			s.took(u.serve())
			return
		}
		connect, _ := u.read().(*packets.ConnectPacket)
		if connect == nil {
			return
		}
		s.mu.Lock()
		if strings.HasSuffix(connect.ClientIdentifier, "-look") {
			s.looks = append(s.looks, connect)
		} else {
			s.ones = append(s.ones, time.Now())
		}
		s.mu.Unlock()
		one(connect.ClientIdentifier, u)
	})(ctx, network, address)
}

func (s *twoServers) took(got []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, got...)
}

func (s *twoServers) set(one func(string, upstream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.one = one
}

// consent answers a CONNECT that was read already.
func (u upstream) consent(code byte) {
	answer := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	answer.ReturnCode = code
	_ = answer.Write(u)
}

// works is a server that acknowledges everything.
func (s *twoServers) works(_ string, u upstream) {
	u.consent(packets.Accepted)
	for p := u.publish(); p != nil; p = u.publish() {
		s.took([]string{p.TopicName + " " + string(p.Payload)})
		u.ack(p)
	}
}

// deaf is one that answers everything but messages.
func deaf(_ string, u upstream) {
	u.consent(packets.Accepted)
	for u.read() != nil {
	}
}

func twoServerRig(t *testing.T, s *twoServers, local *fakeLocal, prefer time.Duration) *rig {
	cfg := testConfig()
	cfg.Servers = []string{"tcp://one:1883", "tcp://two:1883"}
	d := units.Duration(prefer)
	cfg.PreferFirst = &d
	return newRig(t, cfg, local, s.dial).start()
}

func TestTheBridgeReturnsOnceTheFirstServerIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := &twoServers{t: t}, newLocal(numbered(1)...)
		r := twoServerRig(t, s, local, 10*time.Minute)
		<-local.empty()
		time.Sleep(time.Hour) // virtual
		if st := r.Status(); st.Server != "tcp://two:1883" || st.State != Up || st.Connects != 1 {
			t.Fatalf("while the first refuses connections the status is %+v", st)
		}
		s.set(s.works)
		well := time.Now()
		all := numbered(3000)
		for _, m := range all[1:] { // it must not notice
			local.add(m)
			time.Sleep(time.Second)
		}
		<-local.empty()
		synctest.Wait()
		st := r.Status()
		r.end()
		synctest.Wait()
		if st.Server != "tcp://one:1883" || st.Connects != 2 || st.Returns != 1 || st.Failures["tcp"] != 1 || len(st.Failures) != 1 {
			t.Errorf("the status is %+v", st)
		}
		if took := s.ones[0].Sub(well); took < 10*time.Minute || took > 18*time.Minute {
			t.Errorf("returned after %v", took)
		}
		var want []string
		for _, m := range all {
			want = append(want, "site/sensor/n "+string(m.Payload))
		}
		if !slices.Equal(s.got, want) {
			t.Errorf("the servers got %d messages of %d, or in another order", len(s.got), len(want))
		}
		if want := []string{"0", "1", "0", "1", "0"}; !slices.Equal(local.states, want) {
			t.Errorf("the state topic had %q, want %q", local.states, want)
		}
		for _, look := range s.looks {
			if look.ClientIdentifier != "tidegate-pump-house-cloud-look" || !look.CleanSession || look.WillFlag {
				t.Errorf("a look is %v", look)
			}
		}
		if n := len(s.looks); n < 4 || n > 9 {
			t.Errorf("%d looks", n)
		}
		if r.log.count("level=WARN") != 1 || r.log.count("returns to its first server") != 1 {
			t.Errorf("the log is\n%s", r.log.text.String())
		}
	})
}

// A server that answers and does not work is tried ever less.
func TestAFirstServerThatOnlyAnswersIsTriedEverLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := &twoServers{t: t, one: deaf}, newLocal()
		r := twoServerRig(t, s, local, 10*time.Minute)
		begin := time.Now()
		for time.Since(begin) < 72*time.Hour {
			local.add(numbered(1)...)
			time.Sleep(time.Minute) // virtual
		}
		<-local.empty()
		synctest.Wait()
		st := r.Status()
		r.end()
		synctest.Wait()
		if n := len(s.ones); n < 6 || n > 10 || st.Returns != uint64(n-1) || st.Failures[causeStalled] != uint64(n) {
			t.Errorf("in three days the first server was tried %d times: %+v", n, st)
		}
		for i := 2; i < len(s.ones); i++ {
			if before, now := s.ones[i-1].Sub(s.ones[i-2]), s.ones[i].Sub(s.ones[i-1]); now < before {
				t.Errorf("it was left alone for %v, then for %v", before, now)
			}
		}
	})
}

func TestWhoDoesNotPreferTheFirstServerStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := &twoServers{t: t}, newLocal(numbered(1)...)
		r := twoServerRig(t, s, local, 0)
		<-local.empty()
		s.set(s.works)
		time.Sleep(24 * time.Hour) // virtual
		if st := r.Status(); st.Server != "tcp://two:1883" || st.Connects != 1 || len(s.looks) > 0 {
			t.Errorf("the status is %+v, looks %d", st, len(s.looks))
		}
		r.end()
	})
}

// What a look finds, for servers that answer it otherwise than the bridge.
func TestWhatALookFinds(t *testing.T) {
	busy := func(_ string, u upstream) { u.consent(packets.ErrRefusedServerUnavailable) }
	strict := func(code byte) func(s *twoServers) func(string, upstream) {
		return func(s *twoServers) func(string, upstream) {
			return func(id string, u upstream) {
				if strings.HasSuffix(id, "-look") {
					u.consent(code)
					return
				}
				s.works(id, u)
			}
		}
	}
	for name, c := range map[string]struct {
		one  func(*twoServers) func(string, upstream)
		back bool
	}{
		"it does not know the client id":    {strict(packets.ErrRefusedIDRejected), true},
		"it allows only the bridge":         {strict(packets.ErrRefusedNotAuthorised), true},
		"the password is wrong":             {strict(packets.ErrRefusedBadUsernameOrPassword), false},
		"it is not available":               {func(*twoServers) func(string, upstream) { return busy }, false},
		"it takes CONNECT and says nothing": {func(*twoServers) func(string, upstream) { return func(_ string, u upstream) { u.read() } }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, local := &twoServers{t: t}, newLocal(numbered(1)...)
				r := twoServerRig(t, s, local, 10*time.Minute)
				<-local.empty()
				s.set(c.one(s))
				time.Sleep(time.Hour) // virtual
				st := r.Status()
				r.end()
				synctest.Wait()
				if back := st.Server == "tcp://one:1883"; back != c.back || len(s.looks) == 0 {
					t.Errorf("after an hour and %d looks the status is %+v", len(s.looks), st)
				}
			})
		})
	}
}

func TestTheCourse(t *testing.T) {
	cfg := testConfig()
	cfg.Servers = []string{"tcp://a", "tcp://b", "tcp://c"}
	cfg.SetDefaults()
	c := newCourse(&cfg)
	refused := ending{why: syscall.ECONNREFUSED}
	step := func(what string, end ending, at int, atOnce bool) {
		t.Helper()
		if wait := c.next(end); c.at != at || (wait == 0) != atOnce {
			t.Errorf("%s: server %d after %v, want server %d", what, c.at, wait, at)
		}
	}
	step("the first refuses", refused, 1, false)
	step("so does the second", refused, 2, false)
	step("the third loses the connection", ending{proven: true, stood: time.Hour, why: syscall.EPIPE}, 2, false)
	step("the first is well", ending{why: errReturn, stood: time.Hour}, 0, true)
	step("it is not", refused, 2, true)
	if c.need != 20*time.Minute {
		t.Errorf("the first must answer for %v now", c.need)
	}
	step("the first is well", ending{why: errReturn, stood: time.Hour}, 0, true)
	step("it was, for long", ending{proven: true, stood: time.Hour, why: syscall.EPIPE}, 0, false)
	if c.need != 10*time.Minute {
		t.Errorf("the first must answer for %v now", c.need)
	}
	step("it stalls", ending{proven: true, why: &stallError{}}, 1, false)
	for range 20 {
		c.next(ending{why: errReturn})
		c.next(refused)
	}
	if c.need != maxNeed {
		t.Errorf("the first must answer for %v", c.need)
	}
}

// A fleet that left the first server together does not return in step.
func TestAFleetReturnsSpreadOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fleet, need = 1000, 10 * time.Minute
		var mu sync.Mutex
		var running sync.WaitGroup
		var came []time.Duration
		begin := time.Now()
		for range fleet {
			running.Go(func() {
				scout(t.Context(), need, func(context.Context) bool { return true })
				mu.Lock()
				defer mu.Unlock()
				came = append(came, time.Since(begin))
			})
		}
		running.Wait()
		slices.Sort(came)
		most := 0
		for i := range came {
			in, _ := slices.BinarySearch(came, came[i]+time.Second)
			most = max(most, in-i)
		}
		t.Logf("%d bridges between %v and %v, %d in the busiest second", len(came), came[0], came[fleet-1], most)
		if came[0] < need || came[fleet-1] > 2*need || most > 25 {
			t.Errorf("the fleet returned at %v", came)
		}
	})
}

// Two real servers, one of which is killed and started again, under a bridge that
// is never without work.
func TestReturningToARealServer(t *testing.T) {
	leak.Check(t)
	one, two := newMosquitto(t), newMosquitto(t)
	cfg := testConfig()
	cfg.Servers = []string{"tcp://" + one.Addr, "tcp://" + two.Addr}
	prefer := seconds(1)
	cfg.PreferFirst, cfg.Backoff = &prefer, Backoff{units.Duration(time.Millisecond), units.Duration(20 * time.Millisecond)}
	cfg.In = []Rule{{Topics: []string{"command/#"}}}
	local := newLocal()
	sent := &sendings{protocol: 4, times: make(map[string]int)}
	r := newRig(t, cfg, local, sent.dial).start()
	n := 0
	until := func(what string, done func(Status) bool) {
		t.Helper()
		for limit := time.After(time.Minute); !done(r.Status()); {
			select {
			case <-limit:
				t.Fatalf("not %s: %+v", what, r.Status())
			case <-time.After(2 * time.Millisecond):
				local.add(mqtt.Message{Topic: "sensor/n", Payload: strconv.AppendInt(nil, int64(n), 10), QoS: mqtt.AtLeastOnce})
				n++
			}
		}
	}
	at := func(m *mosquitto) func(Status) bool {
		return func(s Status) bool { return s.State == Up && s.Server == "tcp://"+m.Addr }
	}
	until("at the first", at(one))
	one.End(syscall.SIGKILL)
	until("at the second", at(two))
	killed := uint64(n)
	until("past what the kill has interrupted", func(s Status) bool { return s.Acknowledged >= killed })
	before := sent.again()
	one.Start()
	until("back at the first", at(one))
	returned := uint64(n)
	until("carrying", func(s Status) bool { return s.Acknowledged > returned })
	<-local.empty()
	s := r.Status()
	r.end()
	t.Logf("%d messages, %d sent again by the kill, status %+v", n, before, s)
	if s.Acknowledged != uint64(n) || s.Returns != 1 || s.Connects != 3 || sent.again() != before {
		t.Errorf("%d messages, %d sent again by the return, status %+v", n, sent.again()-before, s)
	}
}

func TestCauses(t *testing.T) {
	for want, err := range map[string]error{
		"dns":        dialError("a:1", &net.DNSError{Name: "a", IsNotFound: true}),
		"tcp":        dialError("a:1", syscall.ECONNREFUSED),
		"tls":        failedAt(StepTLS, errors.New("x")),
		"connect":    failedAt(StepConnect, &refusal{}),
		causeStalled: lostError("a", "b", 0, &stallError{}),
		causeSilent:  lostError("a", "b", 0, context.DeadlineExceeded),
		causeUnread:  lostError("a", "b", 0, errNotReading),
		causeClosed:  lostError("a", "b", 0, syscall.ECONNRESET),
		causeEnded:   lostError("a", "b", 0, &farewell{}),
		causeRefused: lostError("a", "b", 0, &refusal{}),
		causeLocal:   lostError("a", "b", 0, &localError{"read the queue", errors.New("x")}),
		causeOther:   errors.New("x"),
	} {
		if got := causeOf(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}
