package bridge

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
)

// fakeLink acknowledges everything at once, and may be lost at that moment.
type fakeLink struct {
	ctx  context.Context
	lose context.CancelCauseFunc
	loss error // comes with each acknowledgement; nil: none
}

func newFakeLink(loss error) *fakeLink {
	l := &fakeLink{loss: loss}
	l.ctx, l.lose = context.WithCancelCause(context.Background())
	return l
}

func (l *fakeLink) limit() int { return maxInflight }

func (l *fakeLink) publish(_ mqtt.Message, o owner) error {
	if l.loss != nil {
		l.lose(l.loss)
	}
	o.acknowledged(nil)
	o.rest()
	return nil
}

func (l *fakeLink) listen(context.Context, []mqtt.Subscription, taker) error { return nil }
func (l *fakeLink) unlisten(context.Context, []string) error                 { return nil }

func (l *fakeLink) heard() time.Time       { return time.Time{} }
func (l *fakeLink) resumed() bool          { return false }
func (l *fakeLink) alive() context.Context { return l.ctx }
func (l *fakeLink) abort(cause error)      { l.lose(cause) }
func (l *fakeLink) flush()                 {}
func (l *fakeLink) close()                 {}

func newUplink(t *testing.T, local *fakeLocal, l link) *uplink {
	t.Helper()
	cfg := testConfig()
	cfg.SetDefaults()
	inbox, err := local.OpenInbox(t.Context(), "bridge/cloud", mqtt.InboxOptions{MaxInflight: cfg.MaxInflight})
	if err != nil {
		t.Fatal(err)
	}
	return &uplink{
		cfg: &cfg, link: l, inbox: inbox, monitor: &monitor{}, ripe: func(context.Context, mqtt.Delivery) bool { return true }, seal: func(d mqtt.Delivery) mqtt.Delivery { return d }, sending: func(mqtt.Delivery, mqtt.Message) {},
		local: local, suspect: &suspect{}, window: newWindow(firstWindow, cfg.MaxInflight, 0, slowAfter(time.Duration(cfg.StallTimeout))), warned: &firsts{}, publishing: make(turns, 1), flight: newFlight(),
		pacer: newPacer(cfg.CatchUp.Rate, inbox.Arrived, l.flush), owes: func() int64 { return local.Backlog("bridge/cloud") },
	}
}

func TestAReceiptOfALostLinkDoesNotCount(t *testing.T) {
	for range 100 { // select draws among what is ready
		local, loss := newLocal(readings(3)...), errors.New("unplugged")
		u := newUplink(t, local, newFakeLink(loss))
		if err := u.run(t.Context()); !errors.Is(err, loss) {
			t.Fatalf("run returns %v, want the loss", err)
		}
		if n := local.left(); n != 3 {
			t.Fatalf("%d of 3 messages are left", n)
		}
	}
}

func TestAMessageThatIsNotSentEndsTheLink(t *testing.T) {
	local, l := newLocal(readings(1)...), newFakeLink(nil)
	u, failure := newUplink(t, local, l), errors.New("no message IDs available")
	u.unsent(u.flight.add(u, mqtt.Delivery{Seq: 1}, backlog), failure)
	if u.flight.proven() || local.left() != 1 {
		t.Error("a message that was not sent is acknowledged")
	}
	if !errors.Is(context.Cause(l.ctx), failure) {
		t.Errorf("the link ended with %v", context.Cause(l.ctx))
	}
}

// The server may acknowledge in any order. The inbox learns it in that of the messages.
func TestAcknowledgementsAreConfirmedInOrder(t *testing.T) {
	local := newLocal(readings(3)...)
	u, list := newUplink(t, local, newFakeLink(nil)), []*owed(nil)
	for i := range 3 {
		list = append(list, u.flight.add(u, mqtt.Delivery{Seq: uint64(i + 1)}, backlog))
	}
	for i, want := range []struct {
		land, left int
		head       uint64
	}{{1, 3, 1}, {0, 1, 3}, {2, 0, 0}} {
		list[want.land].acknowledged(nil)
		if head, _ := u.flight.head(); local.left() != want.left || head != want.head {
			t.Errorf("step %d: %d messages are left and %d is the first, want %d and %d", i, local.left(), head, want.left, want.head)
		}
	}
}

func TestWhatIsUnderWayTakesMemoryOnce(t *testing.T) {
	u := newUplink(t, newLocal(readings(1)...), newFakeLink(nil))
	if n := testing.AllocsPerRun(100, func() { u.flight.add(u, mqtt.Delivery{Seq: 1}, backlog).acknowledged(nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// givesUp is a link that does not send one message, but would send the next.
type givesUp struct {
	*fakeLink
	sent []string
}

func (l *givesUp) publish(m mqtt.Message, o owner) error {
	l.sent = append(l.sent, m.Topic)
	if len(l.sent) == 2 {
		return errors.New("it was not sent")
	}
	return l.fakeLink.publish(m, o)
}

func TestNothingOvertakesAMessageThatTheLinkGivesUp(t *testing.T) {
	l := &givesUp{fakeLink: newFakeLink(nil)}
	local := newLocal(readings(5)...)
	u := newUplink(t, local, l)
	if err := u.run(t.Context()); err == nil || len(l.sent) != 2 || local.left() < 4 {
		t.Errorf("%v was sent and %d messages are left, %v; want the second to end the link", l.sent, local.left(), err)
	}
}

// What was handed to a link that is lost meanwhile still tells what was under way.
func TestTheHeadOfALostLinkIsKnown(t *testing.T) {
	for range 100 {
		local, loss := newLocal(readings(1)...), errors.New("unplugged")
		u := newUplink(t, local, newFakeLink(loss))
		err := u.run(t.Context())
		if head, _ := u.flight.head(); !errors.Is(err, loss) || head != 1 {
			t.Fatalf("run returns %v, the first message not acknowledged is %d", err, head)
		}
	}
}

func TestMessagesThatCanNeverGo(t *testing.T) {
	cfg := testConfig()
	for name, c := range map[string]struct {
		d    mqtt.Message
		want error
	}{
		"lawful":   {mqtt.Message{Topic: "sensor/a"}, nil},
		"circling": {mqtt.Message{Topic: "sensor/sensor/sensor/a"}, nil}, // but its prefix is another
		"no rule":  {mqtt.Message{Topic: "other"}, errUnmatched},
		"too long": {mqtt.Message{Topic: "sensor/" + string(make([]byte, 65535))}, mqtt.ErrInvalidTopic},
	} {
		if _, err := cfg.route(c.d.Topic).carry(c.d); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestTheLargestMessage(t *testing.T) {
	const largest = maxRemaining - 2 - len("sensor/a") - 2
	if err := checkSize("sensor/a", largest); err != nil {
		t.Error(err)
	}
	if err := checkSize("sensor/a", largest+1); !errors.Is(err, mqtt.ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

// The watch begins with arm, although paho may read already.
func TestTheWatchCoversAReadUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		w := newWire(here, 45*time.Second, 30*time.Second, maxRemaining)
		read := make(chan error, 1)
		go func() {
			_, err := w.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		w.arm()
		begin := time.Now()
		<-w.alive.Done()
		if d := time.Since(begin); d != 45*time.Second || !isTimeout(context.Cause(w.alive)) {
			t.Errorf("lost after %v with %v", d, context.Cause(w.alive))
		}
		synctest.Wait()
		select {
		case err := <-read:
			t.Errorf("paho heard of it before the link was closed: %v", err)
		default:
		}
		w.release()
		if err := <-read; err == nil {
			t.Error("paho never hears of it")
		}
	})
}

// slowLink says what it is handed, and takes its time.
type slowLink struct {
	*fakeLink
	took chan string
}

func (l *slowLink) publish(m mqtt.Message, o owner) error {
	l.took <- m.Topic
	return nil
}

// A live message goes after the one of the backlog that is handed over just then.
func TestTheStreamsPublishInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &slowLink{newFakeLink(nil), make(chan string)}
		u := newUplink(t, newLocal(), l)
		publish := func(from stream, topics ...string) {
			for _, topic := range topics {
				m := mqtt.Message{Topic: topic, QoS: mqtt.AtLeastOnce}
				u.publish(from, mqtt.Delivery{Message: m}, m)
			}
		}
		go publish(backlog, "a", "b", "c")
		synctest.Wait()
		go publish(live, "now")
		synctest.Wait()
		for _, want := range []string{"a", "now", "b", "c"} {
			if got := <-l.took; got != want {
				t.Errorf("the link gets %s, want %s", got, want)
			}
			synctest.Wait()
		}
	})
}
