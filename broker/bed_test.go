package broker

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/leak"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/store"
)

// bed is a broker on a store in a temporary folder, reached over a real socket.
// At the end of the test it must leave no goroutine and a sound store.
type bed struct {
	t    *testing.T
	dir  string
	cfg  Config
	opts Options
	b    *Broker
	st   *store.Store
	stop func()

	handler   slog.Handler // of the log; nil: what warns goes to the test's
	snapshots int          // that were made

	damaged bool       // the test damages what the journal has
	ended   error      // what Serve returned last
	broken  bool       // the test breaks the store: it is neither closed nor verified with success
	segment units.Size // of the journal; 0: the usual one
}

// newBed starts a broker; change, if not nil, changes how.
func newBed(t *testing.T, change func(*bed)) *bed {
	t.Helper()
	leak.Check(t)
	d := &bed{t: t, dir: filepath.Join(t.TempDir(), "store")}
	d.cfg.Listeners = []Listener{{Address: "tcp://127.0.0.1:0"}}
	d.cfg.SetDefaults()
	if change != nil {
		change(d)
	}
	d.start()
	t.Cleanup(func() {
		d.stop()
		d.audit()
		if err := store.Verify(d.dir); err != nil && !d.broken {
			t.Errorf("the store is damaged: %v", err)
		}
	})
	return d
}

func (d *bed) start() {
	d.t.Helper()
	st, err := store.Open(d.dir, store.Options{Log: d.log(), SegmentSize: d.segment})
	if err != nil {
		d.t.Fatal(err)
	}
	d.opts.Store, d.opts.Log = st, d.log()
	b, err := New(d.cfg, d.opts)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := b.Listen(); err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx) }()
	d.b, d.st = b, st
	d.stop = sync.OnceFunc(func() {
		cancel()
		if d.ended = <-served; d.ended != nil && !d.broken {
			d.t.Errorf("Serve: %v", d.ended)
		}
		if !d.broken {
			d.reckon()
		}
		if err := st.Close(); err != nil {
			d.t.Errorf("close the store: %v", err)
		}
	})
}

// reckon counts in the journal what each session says that it is owed, expects
// that nothing was lost to the disk, and that all that was accepted is delivered,
// queued or in the ledger.
func (d *bed) reckon() {
	d.t.Helper()
	for _, s := range d.b.queues {
		var owed, waiting amount // the latter of publishers that were told that it failed
		err := d.st.Read(s.queue, s.cursor(), d.st.LastSeq(), func(seq uint64, tag uint32, data []byte) bool {
			if !s.isDone(seq) && s.cuts.keep(seq, itemFromTag(tag).ordinal) {
				b, _ := parseBody(data, 0, time.Time{})
				owed.add(1, int64(b.cost()))
			}
			return true
		})
		d.b.commit.eachOwed(s, func(r *record, _ *owner) bool { waiting.add(1, int64(r.body.cost())); return true })
		all := amount{owed.n + waiting.n, owed.bytes + waiting.bytes}
		if (amount{s.owed.Load(), s.bytes}) != all && s.sized || s.stored != owed && s.sized || err != nil {
			d.t.Errorf("session %q is owed %d messages in %d bytes, and %v on disk; the journal has %v, and %v are not in it: %v",
				s.id, s.owed.Load(), s.bytes, s.stored, owed, waiting, err)
		}
		listed := int64(0)
		err = s.eachQueued(0, func(mqtt.Delivery) bool { listed++; return true })
		if (err != nil || listed != s.owed.Load()) && s.sized && !d.damaged {
			d.t.Errorf("of session %q %d messages are listed, and it is owed %d: %v", s.id, listed, s.owed.Load(), err)
		}
	}
	d.b.balance(d.t)
	for _, l := range d.b.Losses() {
		if l.Reason == lostDamaged && !d.damaged {
			d.t.Errorf("the ledger has %+v", l)
		}
	}
}

// balance expects that all that was accepted is delivered, queued or in the ledger.
func (b *Broker) balance(t testing.TB) {
	t.Helper()
	if have, want := b.stats.delivered.Load()+b.inventory(), b.stats.accepted.Load(); have != want {
		t.Errorf("%d messages were accepted, of which %d are delivered, queued or lost", want, have)
	}
}

// isDone reports whether the journal has it behind the cursor only because of
// others.
func (s *session) isDone(seq uint64) bool {
	if s.share == nil {
		return inAny(s.beyond, seq)
	}
	return s.share.hasDrawn(seq) && s.window.findSeq(seq) < 0
}

// restart stops the broker in an orderly way and starts it again.
func (d *bed) restart() {
	d.t.Helper()
	d.stop()
	d.start()
}

func (d *bed) log() *slog.Logger {
	if d.handler != nil {
		return slog.New(d.handler)
	}
	return slog.New(slog.NewTextHandler(testWriter{d.t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// ctx bounds every wait of the test.
func (d *bed) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	d.t.Cleanup(cancel)
	return ctx
}

// inbox opens the inbox called name for everything that filter matches, at QoS 1.
func (d *bed) inbox(name, filter string) mqtt.Inbox {
	d.t.Helper()
	in, err := d.b.OpenInbox(d.ctx(), name, mqtt.InboxOptions{}, mqtt.Subscription{Filter: filter, QoS: 1})
	if err != nil {
		d.t.Fatal(err)
	}
	return in
}

// owes publishes a message and does not wait for what becomes of it.
func (d *bed) owes(m mqtt.Message) {
	d.t.Helper()
	if err := d.b.PublishAsync(d.t.Context(), m, nil); err != nil {
		d.t.Fatal(err)
	}
}

// peer is a client that remembers what it got.
type peer struct {
	*client.Conn
	t   *testing.T
	got chan client.Message
}

// dial connects a client; change, if not nil, changes its options.
func (d *bed) dial(id string, change func(*client.Options)) *peer {
	d.t.Helper()
	p := &peer{t: d.t, got: make(chan client.Message, 10000)}
	o := client.Options{ClientID: id, CleanSession: true, Handler: func(m client.Message) { p.got <- m }}
	if change != nil {
		change(&o)
	}
	c, err := client.Dial(d.ctx(), d.b.Addrs()[0].String(), o)
	if err != nil {
		d.t.Fatal(err)
	}
	p.Conn = c
	d.t.Cleanup(p.Close)
	return p
}

// durable makes a client keep its session.
func durable(o *client.Options) { o.CleanSession = false }

func (p *peer) subscribe(filter string, q mqtt.QoS) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	codes, err := p.Subscribe(ctx, mqtt.Subscription{Filter: filter, QoS: q})
	if err != nil || codes[0] != q {
		p.t.Fatalf("subscribe to %q: granted %v, %v", filter, codes, err)
	}
}

func (p *peer) publish(topic, payload string, q mqtt.QoS) {
	p.t.Helper()
	p.send(mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: q})
}

func (p *peer) retain(topic, payload string, q mqtt.QoS) {
	p.t.Helper()
	p.send(mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: q, Retain: true})
}

func (p *peer) send(m mqtt.Message) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Publish(ctx, m); err != nil {
		p.t.Fatalf("publish to %q: %v", m.Topic, err)
	}
}

// want waits for the next message, which has to be this one.
func (p *peer) want(topic, payload string, q mqtt.QoS) client.Message {
	p.t.Helper()
	select {
	case m := <-p.got:
		if m.Topic != topic || string(m.Payload) != payload || m.QoS != q {
			p.t.Fatalf("got %s = %q at QoS %d, want %s = %q at QoS %d", m.Topic, m.Payload, m.QoS, topic, payload, q)
		}
		return m
	case <-time.After(patience):
		p.t.Fatalf("no message came, want %s = %q", topic, payload)
	}
	panic("unreachable")
}

// wantNothing publishes a message to itself, which has to be the next one.
func (p *peer) wantNothing() {
	p.t.Helper()
	topic := fmt.Sprintf("fence/%p", p)
	p.subscribe(topic, 1)
	p.publish(topic, "fence", 1)
	p.want(topic, "fence", 1)
}
