package broker

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
)

// A bridge publishes as its inbox, so that what came down does not go up again.
func TestAnInboxDoesNotGetBackWhatItPublished(t *testing.T) {
	for _, qos := range []mqtt.QoS{mqtt.AtMostOnce, mqtt.AtLeastOnce, mqtt.ExactlyOnce} {
		d := newBed(t, nil)
		all := mqtt.Subscription{Filter: "#", QoS: mqtt.ExactlyOnce, NoLocal: true}
		here, err := d.b.OpenInbox(d.ctx(), "here", mqtt.InboxOptions{}, all)
		if err != nil {
			t.Fatal(err)
		}
		there, err := d.b.OpenInbox(d.ctx(), "there", mqtt.InboxOptions{}, all)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, here, "own", qos)
		publish(t, there, "other's", qos)
		publish(t, d.b, "nobody's", qos)
		receive(t, d.ctx(), here, "other's", "nobody's")
		receive(t, d.ctx(), there, "own", "nobody's")
		d.stop()
	}
}

func publish(t *testing.T, p mqtt.Publisher, topic string, qos mqtt.QoS) {
	t.Helper()
	if err := p.PublishAsync(t.Context(), mqtt.Message{Topic: topic, QoS: qos}, nil); err != nil {
		t.Fatal(err)
	}
}

// receive takes exactly the messages of these topics out of in.
func receive(t *testing.T, ctx context.Context, in mqtt.Inbox, topics ...string) {
	t.Helper()
	for _, want := range topics {
		d, err := in.Recv(ctx)
		if err != nil || d.Topic != want {
			t.Fatalf("got %q, %v; want %q", d.Topic, err, want)
		}
		in.Ack(d.Seq)
	}
}

// A bridge that keeps a backlog to a rate counts what comes beside it.
func TestAnInboxCountsWhatArrives(t *testing.T) {
	d := newBed(t, nil)
	sub := mqtt.Subscription{Filter: "a/#", QoS: mqtt.AtLeastOnce}
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(messages, bytes uint64) {
		t.Helper()
		if m, b := in.Arrived(); m != messages || b != bytes {
			t.Errorf("%d messages of %d bytes have arrived, want %d of %d", m, b, messages, bytes)
		}
	}
	expect(0, 0)
	publish(t, d.b, "a/x", mqtt.AtLeastOnce)
	publish(t, d.b, "a/yz", mqtt.ExactlyOnce)
	publish(t, d.b, "a/x", mqtt.AtMostOnce) // is not queued
	publish(t, d.b, "other", mqtt.AtLeastOnce)
	expect(2, 7)
	receive(t, d.ctx(), in, "a/x", "a/yz", "a/x")
	expect(2, 7)
	publish(t, d.b, "a/x", mqtt.AtLeastOnce)
	in.Close()
	in, err = d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, sub)
	if err != nil {
		t.Fatal(err)
	}
	expect(0, 0)
	receive(t, d.ctx(), in, "a/x")
	expect(0, 0)
}

// How old the oldest message is that waits: it may stand in the journal, in memory
// or in the window, and the gateway may have been restarted since.
func TestHowLongAnInboxWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBed(t, func(d *bed) { d.cfg.Listeners = nil; d.opts.Line = time.Now })
		sub := mqtt.Subscription{Filter: "a/#", QoS: mqtt.AtLeastOnce}
		open := func() mqtt.Inbox {
			t.Helper()
			in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{MaxInflight: 1}, sub)
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
		want := func(where string, messages int64, oldest time.Duration) {
			t.Helper()
			w := d.b.Waiting("up")
			if off := w.Oldest - oldest; w.Messages != messages || (w.Bytes > 0) != (messages > 0) || off < -time.Second || off > time.Second {
				t.Errorf("%s: %+v, want %d messages, the oldest %v old", where, w, messages, oldest)
			}
		}
		want("there is no inbox", 0, 0)
		open().Close()
		want("nothing waits", 0, 0)
		for range 3 {
			publish(t, d.b, "a/x", mqtt.AtLeastOnce)
			time.Sleep(time.Hour)
		}
		want("in the journal", 3, 3*time.Hour)
		in := open()
		first, err := in.Recv(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		want("in the window", 3, 3*time.Hour)
		in.Ack(first.Seq)
		time.Sleep(5 * time.Second)
		want("the next", 2, 2*time.Hour+5*time.Second)
		in.Close()
		d.stop()
		d.start()
		want("after a restart", 2, 2*time.Hour+5*time.Second)
		d.stop()
	})
}

// What the gateway says about itself is retained in memory and costs no write, and
// what a client says is none of that.
func TestWhatTheGatewaySaysOfItselfIsNotWritten(t *testing.T) {
	d := newBed(t, nil)
	const topic = sysPrefix + "connection/cloud/state"
	commits := d.st.Stats().Commits
	for _, payload := range []string{"0", "1"} {
		m := mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: mqtt.AtLeastOnce, Retain: true}
		if err := d.b.Publish(d.ctx(), m); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.b.sysRetained.match(topic, 0); len(n) != 1 || string(n[0].body.payload()) != "1" || d.b.retained.count() != 0 {
		t.Errorf("%d are kept in memory, %d on disk", len(n), d.b.retained.count())
	}
	if n := d.st.Stats().Commits; n != commits {
		t.Errorf("%d commits", n-commits)
	}
	d.stop()
}

// A bridge reads them before it opens its inbox with others.
func TestFiltersOfAnInbox(t *testing.T) {
	d := newBed(t, nil)
	if got := d.b.Filters("up"); got != nil {
		t.Errorf("before there is an inbox they are %q", got)
	}
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "b/#"}, mqtt.Subscription{Filter: "a"})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	d.restart()
	if got := d.b.Filters("up"); !slices.Equal(got, []string{"a", "b/#"}) {
		t.Errorf("after a restart they are %q", got)
	}
}

// What a consumer gives up is lost, and counted before it is owed no more.
func TestWhatAnInboxDropsIsInTheLedger(t *testing.T) {
	for name, lanes := range map[string]bool{"in order": false, "live first": true} {
		t.Run(name, func(t *testing.T) {
			d := newBed(t, nil)
			in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{LiveFirst: lanes}, mqtt.Subscription{Filter: "a/#", QoS: 1})
			if err != nil {
				t.Fatal(err)
			}
			recv := in.Recv
			if lanes {
				recv = in.RecvLive
			}
			for i := range 3 {
				if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a/b", Payload: []byte("xyz"), QoS: 1}, nil); err != nil {
					t.Fatal(err)
				}
				m, err := recv(d.ctx())
				if err != nil {
					t.Fatal(err)
				}
				if i == 1 {
					in.Ack(m.Seq)
					in.Drop(m, "unmatched") // which is no more under way
					continue
				}
				if i == 2 {
					m.Topic = "other"
				}
				in.Drop(m, "unmatched")
			}
			in.Close()
			d.restart()
			list := d.b.Losses()
			for i := range list {
				list[i].First, list[i].Last = time.Time{}, time.Time{}
			}
			want := []Loss{
				{Session: "up", Filter: "a/#", Reason: "unmatched", Count: 1, Bytes: list[0].Bytes},
				{Session: "up", Filter: "other", Reason: "unmatched", Count: 1, Bytes: list[0].Bytes},
			}
			if !slices.Equal(list, want) || list[0].Bytes < 6 || list[0].Bytes > 16 || d.b.Backlog("up") != 0 {
				t.Errorf("the ledger has %+v, want %+v; %d are queued", list, want, d.b.Backlog("up"))
			}
		})
	}
}
