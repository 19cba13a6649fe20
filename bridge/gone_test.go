package bridge

import (
	"context"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// goneLine is in the log when something waits that no rule may carry any more.
const goneLine = "messages wait for topics that no rule of out names any more"

// sending is the configuration of a bridge whose rules of out name topics.
func sending(topics ...string) Config {
	cfg := testConfig()
	cfg.Out = []Rule{{Topics: topics}}
	return cfg
}

// declared returns a bridge that has declared its queue and does not run yet.
func declared(t *testing.T, cfg Config, local *fakeLocal, dial dialFunc) *rig {
	t.Helper()
	r := newRig(t, cfg, local, dial)
	if err := r.Declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func queued(topics ...string) (messages []mqtt.Message) {
	for _, topic := range topics {
		messages = append(messages, mqtt.Message{Topic: topic, QoS: mqtt.AtLeastOnce})
	}
	return messages
}

// What waits for topics that are gone is said before the bridge connects, and again at
// each start, until all of it has had its turn. What comes after that is no reason.
func TestGoneTopicsAreSaidUntilTheirMessagesHadTheirTurn(t *testing.T) {
	for name, order := range map[string]string{"in order": inOrder, "live first": liveFirst} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local := newLocal()
				declared(t, sending("meter/#", "sensor/#"), local, nil)
				local.add(queued("sensor/a", "meter/a", "sensor/b")...)
				time.Sleep(time.Minute) // virtual
				cfg := sending("sensor/#")
				cfg.CatchUp.Order = order
				for range 2 {
					r := declared(t, cfg, local, nil)
					if n := r.log.count(goneLine); n != 1 || r.log.count("topics=[meter/#] messages_at_most=3") != 1 {
						t.Errorf("the log says it %d times:\n%s", n, r.log.text.String())
					}
					if got := r.Status().Gone; !slices.Equal(got, []string{"meter/#"}) {
						t.Errorf("before it connects, gone are %q", got)
					}
				}
				more := false
				r := declared(t, cfg, local, piped(t, func(_ int, _ string, u upstream) {
					u.accept(0)
					for p := u.publish(); p != nil; p = u.publish() {
						if !more { // so that the queue is never empty
							more = true
							time.Sleep(time.Second) // virtual
							local.add(queued("sensor/c", "sensor/d")...)
						}
						if p.TopicName != "sensor/d" {
							u.ack(p)
						}
					}
				})).start()
				time.Sleep(2 * heraldInterval) // virtual
				if s := r.Status(); s.Unmatched != 1 || len(s.Gone) != 0 {
					t.Errorf("the status is %+v", s)
				}
				r.end()
				r = declared(t, cfg, local, nil)
				if n := r.log.count(goneLine); n != 0 || local.left() == 0 || len(r.Status().Gone) != 0 {
					t.Errorf("with %d messages left the log says it %d times", local.left(), n)
				}
			})
		})
	}
}

// Live messages go past what waits, and say nothing of it.
func TestLiveMessagesDoNotEndWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		declared(t, sending("meter/#", "sensor/#"), local, nil)
		local.add(queued("sensor/a", "sensor/b", "sensor/c", "sensor/d", "meter/a")...)
		cfg := sending("sensor/#")
		cfg.CatchUp = CatchUp{Order: liveFirst, Rate: units.Rate{Messages: 1}}
		r := declared(t, cfg, local, piped(t, func(_ int, _ string, u upstream) { u.serve() })).start()
		time.Sleep(time.Second) // virtual
		local.add(queued("sensor/1", "sensor/2", "sensor/3", "sensor/4", "sensor/5", "sensor/6")...)
		time.Sleep(time.Second / 2) // virtual
		if s := r.Status(); s.Acknowledged < 6 || s.Unmatched != 0 || len(s.Gone) != 1 {
			t.Errorf("the status is %+v", s)
		}
		time.Sleep(time.Minute) // virtual
		if s := r.Status(); s.Acknowledged != 10 || s.Unmatched != 1 || len(s.Gone) != 0 {
			t.Errorf("in the end the status is %+v", s)
		}
		r.end()
	})
}

// Of what is gone only that counts for which something waits and no other rule is there.
func TestNothingIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		before, after Config
		queue         []mqtt.Message
	}{
		"nothing waits":            {before: sending("meter/#", "sensor/#"), after: sending("sensor/#")},
		"a wider one has it":       {sending("meter/+", "sensor/#"), sending("#"), queued("meter/a")},
		"in another order":         {sending("a", "b"), sending("b", "a"), queued("a")},
		"only the topics of in":    {listening("a/#", "b/#"), listening("b/#"), queued("sensor/a")},
		"the queue was just begun": {sending("a"), sending("a"), queued("a")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local := newLocal()
				declared(t, c.before, local, nil)
				local.add(c.queue...)
				r := declared(t, c.after, local, nil)
				if r.log.count(goneLine) != 0 || r.Status().Gone != nil {
					t.Errorf("gone are %q", r.Status().Gone)
				}
			})
		})
	}
}

// What leaves the queue in another way ends it as well: it expires, or somebody purges it.
func TestWhatIsGoneEndsWithWhatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocal()
		declared(t, sending("meter/#", "sensor/#"), local, nil)
		local.add(queued("meter/a", "meter/b")...)
		r := declared(t, sending("sensor/#"), local, func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }).start()
		time.Sleep(2 * heraldInterval) // virtual
		if got := r.Status().Gone; len(got) != 1 {
			t.Errorf("while it waits, gone are %q", got)
		}
		(&fakeInbox{local: local}).Ack(1)
		(&fakeInbox{local: local}).Ack(2)
		local.add(queued("sensor/a")...)
		time.Sleep(2 * heraldInterval) // virtual
		if got := r.Status().Gone; got != nil {
			t.Errorf("when only others wait, gone are %q", got)
		}
		r.end()
		r = declared(t, sending("sensor/#"), local, nil)
		if r.log.count(goneLine) != 0 {
			t.Error("the next start says it again")
		}
	})
}
