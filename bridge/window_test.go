package bridge

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

func TestTheWindowGrowsAndShrinks(t *testing.T) {
	w := newWindow(firstWindow, 100, 0, time.Minute)
	acknowledge := func(n int, slow bool) {
		sent := time.Now()
		if slow {
			sent = sent.Add(-2 * time.Minute)
		}
		for range n {
			if !w.enter(nil, backlog) {
				t.Fatal("there is no room")
			}
			w.leave(backlog, sent, time.Now())
		}
	}
	for _, step := range []struct {
		acks int
		slow bool
		want int
		why  string
	}{
		{0, false, 8, "a fresh connection begins small"},
		{10, false, 18, "it grows with each acknowledgement"},
		{1000, false, 100, "up to the limit"},
		{1, true, 50, "a slow one halves it"},
		{40, true, 50, "what was under way then does not count"},
		{10, true, 25, "the next slow one does"},
		{24, false, 25, "from then on it grows slowly"},
		{1, false, 26, "by one for as many as it is wide"},
		{10000, true, 1, "it never closes"},
	} {
		acknowledge(step.acks, step.slow)
		if _, size := w.load(); size != step.want {
			t.Fatalf("%s: the window is %d wide, want %d", step.why, size, step.want)
		}
	}
	if small := newWindow(firstWindow, 3, 0, time.Minute); small.size != 3 {
		t.Errorf("with a limit of 3 the window begins at %d", small.size)
	}
}

func TestAWindowWithoutRoomMakesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, done := newWindow(1, 1, 0, time.Minute), make(chan struct{})
		w.enter(nil, backlog)
		entered := make(chan bool)
		go func() { entered <- w.enter(nil, backlog) }()
		synctest.Wait()
		w.leave(backlog, time.Now(), time.Now())
		w.wake()
		if !<-entered {
			t.Error("a place was free")
		}
		close(done)
		if w.enter(done, backlog) {
			t.Error("there was no place")
		}
	})
}

// fill takes places in turn for those streams that want more, until there is none,
// and returns how many each has.
func fill(w *window, streams ...stream) [2]int {
	for more := true; more; {
		more = false
		for _, of := range streams {
			more = w.tryEnter(of) || more
		}
	}
	return w.under
}

func TestTheStreamsShareTheWindow(t *testing.T) {
	for _, c := range []struct {
		size        int
		share       units.Percent
		alone, then int // of the backlog: with nothing else, and when live messages have come for long
		live        int // of the live ones by then
	}{
		{100, 50, 96, 50, 50},
		{100, 1, 99, 99, 1},
		{100, 99, 96, 1, 99},
		{8, 50, 7, 4, 4},
		{2, 50, 1, 1, 1},
	} {
		w := newWindow(c.size, c.size, c.share, time.Minute)
		if got := fill(w, backlog); got[backlog] != c.alone {
			t.Errorf("%+v: the backlog alone gets %v", c, got)
		}
		if !w.tryEnter(live) {
			t.Errorf("%+v: no place is free for a live message", c)
		}
		for i := range 10 * c.size { // whatever is acknowledged, both want more
			fill(w, live, backlog)
			of := stream(i % 2)
			if w.under[of] == 0 {
				of = 1 - of
			}
			w.leave(of, time.Now(), time.Now())
		}
		if got := fill(w, live, backlog); got != [2]int{backlog: c.then, live: c.live} {
			t.Errorf("%+v: both together get %v", c, got)
		}
		for range w.under[backlog] { // the backlog is gone
			w.leave(backlog, time.Now(), time.Now())
		}
		w.waits[backlog] = false
		if got := fill(w, live); got[live] != c.size {
			t.Errorf("%+v: live messages alone get %v", c, got)
		}
	}
}

// A window of one goes to both in turn.
func TestTheSmallestWindowIsShared(t *testing.T) {
	w := newWindow(1, 1, 50, time.Minute)
	var order []stream
	for range 6 {
		of := live
		if fill(w, live, backlog)[backlog] > 0 {
			of = backlog
		}
		order = append(order, of)
		w.leave(of, time.Now(), time.Now())
	}
	for i := range order[1:] {
		if order[i] == order[i+1] {
			t.Fatalf("the places went to %v", order)
		}
	}
}

// watching counts what is under way at a server that answers after a while.
type watching struct {
	mu          sync.Mutex
	under, most int
	first       int // the most before the first acknowledgement
}

func (w *watching) in() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.under++
	w.most = max(w.most, w.under)
}

func (w *watching) out() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == 0 {
		w.first = w.most
	}
	w.under--
}

func TestTheWindowIsTheSmallerOfBoth(t *testing.T) {
	for name, c := range map[string]struct {
		ours   int
		theirs uint16
		want   int
	}{"ours": {20, 1000, 20}, "the server's": {100, 12, 12}, "a small one of the server": {100, 3, 3}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config5()
				cfg.MaxInflight = c.ours
				var seen watching
				local := newLocal(readings(500)...)
				r := newRig(t, cfg, local, piped5(t, func(_ int, _ string, u upstream5) {
					u.accept(func(a *packets5.Connack) { a.Properties.ReceiveMaximum = &c.theirs })
					u.answerLate(200*time.Millisecond, &seen)
				})).start()
				<-local.empty()
				r.end()
				if seen.most != c.want || seen.first > firstWindow {
					t.Errorf("%d messages were under way at most, and %d at first, want %d and %d at most", seen.most, seen.first, c.want, firstWindow)
				}
			})
		})
	}
}

// answerLate acknowledges each message after d.
func (u upstream5) answerLate(d time.Duration, seen *watching) {
	type late struct {
		p  *packets5.Publish
		at time.Time
	}
	arrived := make(chan late, 1000)
	go func() {
		defer close(arrived)
		for {
			p, ok := u.read().(*packets5.Publish)
			if !ok {
				return
			}
			seen.in()
			arrived <- late{p, time.Now().Add(d)}
		}
	}()
	for l := range arrived {
		time.Sleep(time.Until(l.at)) // virtual
		seen.out()
		u.ack(l.p, 0)
	}
}

// A link that is slow, but not so slow that it is stalled, is kept.
func TestASlowLinkIsNotTakenForStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.StallTimeout = units.Duration(4 * time.Second)
		local := newLocal(readings(300)...)
		r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
			u.accept(packets.Accepted)
			for p := u.publish(); p != nil; p = u.publish() {
				time.Sleep(300 * time.Millisecond) // virtual: each takes that long
				u.ack(p)
			}
		})).start()
		<-local.empty()
		if s := r.Status(); s.Connects != 1 {
			t.Errorf("the status is %+v", s)
		}
		r.end()
	})
}

func payloads(messages []mqtt.Message) string {
	var b strings.Builder
	for _, m := range messages {
		b.Write(m.Payload)
	}
	return b.String()
}

func TestWhatAServerRefusesForGoodIsPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, got := newLocal(readings(26)...), ""
		local.queue[2].Retain = true
		allowed := false
		r := newRig(t, config5(), local, piped5(t, func(_ int, _ string, u upstream5) {
			u.accept(nil)
			for {
				p, ok := u.read().(*packets5.Publish)
				switch {
				case !ok:
					return
				case strings.Contains("cf", string(p.Payload)) && !allowed:
					u.ack(p, packets5.PubackNotAuthorized)
				default:
					got += string(p.Payload)
					if (string(p.Payload) == "c") != p.Retain || len(p.Properties.User) > 0 {
						t.Errorf("the server got %v", p)
					}
					u.ack(p, 0)
				}
			}
		})).start()
		<-local.empty()
		for i, m := range local.dead.queue {
			why := m.Properties.User[0]
			if payload := string(m.Payload); m.Topic != "$bridge/cloud/dead/sensor/a" || payload != "cf"[i:i+1] ||
				why != (mqtt.UserProperty{Name: propertyRefused, Value: "not authorised: check user name and password, and what this client may do"}) {
				t.Errorf("dead letter %d is %+v", i, m)
			}
		}
		if s := r.Status(); s.DeadLetters != 2 || s.Connects != 1 || s.Acknowledged != 24 || r.log.count("puts a message aside") != 1 {
			t.Errorf("the status is %+v", s)
		}
		if want := "abdeghijklmnopqrstuvwxyz"; got != want {
			t.Errorf("the server got %s, want %s", got, want)
		}
		allowed = true
		if n, err := r.Requeue(t.Context()); n != 2 || err != nil {
			t.Errorf("%d were queued again, %v", n, err)
		}
		if b := local.dead.bounds; !slices.Equal(b[len(b)-3:], []int64{10000, 20000, 10000}) {
			t.Errorf("the dead letters were bounded to %v", b)
		}
		<-local.empty()
		synctest.Wait()
		if n := local.dead.left(); n > 0 || !strings.HasSuffix(got, "zcf") {
			t.Errorf("%d dead letters are left, and the server got %s", n, got)
		}
		r.end()
	})
}

// Each server has a way of its own not to take a message.
func TestAMessageThatEndsConnectionsIsPutAside(t *testing.T) {
	last := func(u upstream5, reason byte) {
		p := packets5.NewControlPacket(packets5.DISCONNECT)
		p.Content.(*packets5.Disconnect).ReasonCode = reason
		_, _ = p.WriteTo(u)
	}
	refuse5 := func(reason func(u upstream5, p *packets5.Publish)) func(t *testing.T, got *string) dialFunc {
		return func(t *testing.T, got *string) dialFunc {
			return piped5(t, func(_ int, _ string, u upstream5) {
				u.accept(nil)
				for {
					p, ok := u.read().(*packets5.Publish)
					if !ok {
						return
					}
					if string(p.Payload) == "k" {
						reason(u, p)
						return
					}
					*got += string(p.Payload)
					u.ack(p, 0)
				}
			})
		}
	}
	for name, c := range map[string]struct {
		protocol int
		dial     func(t *testing.T, got *string) dialFunc
	}{
		"3.1.1: cuts the connection": {4, func(t *testing.T, got *string) dialFunc {
			return piped(t, func(_ int, _ string, u upstream) {
				u.accept(packets.Accepted)
				for p := u.publish(); p != nil && string(p.Payload) != "k"; p = u.publish() {
					*got += string(p.Payload)
					u.ack(p)
				}
			})
		}},
		"5: takes leave": {5, refuse5(func(u upstream5, _ *packets5.Publish) { last(u, packets5.DisconnectPacketTooLarge) })},
		"5: refuses it":  {5, refuse5(func(u upstream5, p *packets5.Publish) { u.ack(p, packets5.PubackImplementationSpecificError); u.read() })},
		"5: just cuts":   {5, refuse5(func(upstream5, *packets5.Publish) {})},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local, got := newLocal(readings(26)...), ""
				cfg := testConfig()
				cfg.Protocol = c.protocol
				r := newRig(t, cfg, local, c.dial(t, &got)).start()
				<-local.empty()
				synctest.Wait()
				s := r.Status()
				r.end()
				if first := unique(got); first != "abcdefghijlmnopqrstuvwxyz" || s.DeadLetters != 1 || payloads(local.dead.queue) != "k" {
					t.Errorf("the server got %s, the status is %+v", got, s)
				}
				if s.Connects > maxTries+firstWindow { // until it is alone, and then its tries
					t.Errorf("that took %d connections", s.Connects)
				}
			})
		})
	}
}

// A cluster that elects a leader ends connections on whatever is sent, for most of
// a minute. That is about no message.
func TestAServerInTroubleCondemnsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, got, tries := newLocal(readings(26)...), "", 0
		cfg := testConfig()
		healthy := time.Now().Add(2*time.Duration(seconds(30)) - 5*time.Second)
		r := newRig(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
			u.accept(packets.Accepted)
			for p := u.publish(); p != nil; p = u.publish() {
				if time.Now().Before(healthy) {
					tries++
					return
				}
				got += string(p.Payload)
				u.ack(p)
			}
		})).start()
		<-local.empty()
		synctest.Wait()
		s := r.Status()
		r.end()
		if got != "abcdefghijklmnopqrstuvwxyz" || s.DeadLetters != 0 || tries < maxTries {
			t.Errorf("after %d connections that it has ended the server got %s, the status is %+v", tries, got, s)
		}
	})
}

// unique returns the letters of s at their first place.
func unique(s string) (first string) {
	for _, r := range s {
		if !strings.ContainsRune(first, r) {
			first += string(r)
		}
	}
	return first
}

// An uplink that dies again and again, and a server that is full, condemn nobody.
func TestBadTimesPutNothingAside(t *testing.T) {
	for name, dial := range map[string]func(*testing.T, *time.Time) dialFunc{
		"silence": func(t *testing.T, end *time.Time) dialFunc {
			return piped5(t, func(_ int, _ string, u upstream5) {
				if time.Now().After(*end) {
					u.serve(nil)
					return
				}
				u.accept(nil)
				for u.read() != nil { // takes and says nothing
				}
			})
		},
		"quota exceeded": func(t *testing.T, end *time.Time) dialFunc {
			return piped5(t, func(_ int, _ string, u upstream5) {
				if time.Now().After(*end) {
					u.serve(nil)
					return
				}
				u.accept(nil)
				for p, ok := u.read().(*packets5.Publish); ok; p, ok = u.read().(*packets5.Publish) {
					u.ack(p, packets5.PubackQuotaExceeded)
				}
			})
		},
		"cut before anything is sent": func(t *testing.T, end *time.Time) dialFunc {
			return piped5(t, func(_ int, _ string, u upstream5) {
				if time.Now().After(*end) {
					u.serve(nil)
					return
				}
				u.accept(nil)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := time.Now().Add(5 * time.Hour)
				local := newLocal()
				if name != "cut before anything is sent" {
					local.add(readings(26)...)
				}
				r := newRig(t, config5(), local, dial(t, &end)).start()
				time.Sleep(5 * time.Hour) // virtual
				local.add(readings(1)...)
				<-local.empty()
				synctest.Wait()
				if s := r.Status(); s.DeadLetters != 0 || s.Connects < 10 {
					t.Errorf("the status is %+v", s)
				}
				r.end()
			})
		})
	}
}

// What both streams wait for goes to both, although one wake is for all acknowledgements of a read, and
// the backlog can have a place only when the live message has got its own.
func TestOneWakeIsForBothStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(100, 100, 50, time.Minute)
		w.depth.limit = 100 // it is known
		done := make(chan struct{})
		for _, of := range []stream{live, backlog} {
			for range 50 {
				w.tryEnter(of)
			}
			go func() {
				for w.enter(done, of) {
				}
			}()
		}
		synctest.Wait()
		for range 10 {
			w.leave(live, time.Time{}, time.Now())
			w.leave(backlog, time.Time{}, time.Now())
		}
		w.wake()
		synctest.Wait()
		if under, _ := w.load(); under != 100 || w.under[backlog] != 50 {
			t.Errorf("%d are under way, %d of the backlog, want 100 and 50", under, w.under[backlog])
		}
		close(done)
		synctest.Wait()
	})
}
