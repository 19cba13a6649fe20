package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tidegate/internal/leak"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// texts returns the payloads of a queue behind after.
func texts(t *testing.T, b *Broker, name string, after uint64) (list []string) {
	t.Helper()
	err := b.QueueMessages(name, after, func(d mqtt.Delivery) bool {
		list = append(list, fmt.Sprintf("%s %s %d", d.Topic, d.Payload, d.QoS))
		return true
	})
	if err != nil {
		t.Errorf("queue %q: %v", name, err)
	}
	return list
}

// fillQueues leaves messages for an absent client, an inbox and a share.
func fillQueues(t *testing.T, d *bed) {
	t.Helper()
	absent := d.dial("absent", durable)
	absent.subscribe("a/#", 2)
	member := d.dial("member", durable)
	member.subscribe("$share/g/a/#", 1)
	absent.Close()
	member.Close()
	d.settle(0)
	in, err := d.b.OpenInbox(d.ctx(), "bridge/cloud", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "a/b", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	for i := range 5 {
		m := mqtt.Message{Topic: []string{"a/b", "a/c"}[i%2], Payload: fmt.Appendf(nil, "%d", i), QoS: mqtt.QoS(1 + i%2)}
		m.Properties = &mqtt.Properties{User: []mqtt.UserProperty{{Name: "n", Value: fmt.Sprint(i)}}}
		if err := d.b.Publish(d.ctx(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func checkQueues(t *testing.T, b *Broker) {
	t.Helper()
	all := []string{"a/b 0 1", "a/c 1 2", "a/b 2 1", "a/c 3 2", "a/b 4 1"}
	one := []string{"a/b 0 1", "a/c 1 1", "a/b 2 1", "a/c 3 1", "a/b 4 1"}
	for name, want := range map[string][]string{
		"absent": all, "$share/g/a/#": one, "bridge/cloud": {all[0], all[2], all[4]}, "member": nil,
	} {
		if have := texts(t, b, name, 0); !slices.Equal(have, want) {
			t.Errorf("queue %q has %v, want %v", name, have, want)
		}
	}
	list := b.Queues()
	var names []string
	for _, q := range list {
		names = append(names, fmt.Sprintf("%s %s %d", q.Kind, q.Name, q.Messages))
		if (q.Oldest < 0) != (q.Messages == 0) || q.Oldest > time.Minute || q.Connected || (q.DiskBytes == 0) != (q.Messages == 0) {
			t.Errorf("%+v", q)
		}
	}
	if want := []string{"share $share/g/a/# 5", "client absent 5", "bridge bridge/cloud 3", "client member 0"}; !slices.Equal(names, want) {
		t.Errorf("queues %v, want %v", names, want)
	}
	if err := b.QueueMessages("nobody", 0, nil); !errors.Is(err, ErrNoQueue) {
		t.Errorf("of nobody: %v", err)
	}
}

// A queue shows the same messages while the gateway runs, and when its store is
// opened for reading only.
func TestQueuesShowWhatIsOwed(t *testing.T) {
	d := newBed(t, func(d *bed) { d.opts.Line = time.Now })
	fillQueues(t, d)
	checkQueues(t, d.b)
	d.stop()
	st, err := store.OpenReadOnly(d.dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	b, err := New(d.cfg, Options{Store: st, Line: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	checkQueues(t, b)
}

// A page goes on where the last one ended.
func TestQueuesArePaged(t *testing.T) {
	d := newBed(t, nil)
	fillQueues(t, d)
	var seen []string
	for after, more := uint64(0), true; more; {
		more = false
		err := d.b.QueueMessages("absent", after, func(m mqtt.Delivery) bool {
			if m.Properties == nil || m.Properties.User[0].Value != string(m.Payload) {
				t.Errorf("message %d has the properties %v", m.Seq, m.Properties)
			}
			seen, after, more = append(seen, string(m.Payload)), m.Seq, true
			return len(seen)%2 != 0
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(seen, want) {
		t.Errorf("pages have %v, want %v", seen, want)
	}
}

// What a connected consumer has not acknowledged is there without having been
// written; what it has acknowledged is not.
func TestQueueOfAConnectedClient(t *testing.T) {
	d := newBed(t, func(d *bed) { d.opts.OnlineDelay = 1 << 40 })
	w := d.joins("here", "a/#", 1)
	for i := range 3 {
		if err := d.b.PublishAsync(d.ctx(), mqtt.Message{Topic: "a/b", Payload: fmt.Append(nil, i), QoS: 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	first := w.wantPublish("a/b", "0", 1)
	w.wantPublish("a/b", "1", 1)
	w.wantPublish("a/b", "2", 1)
	w.ack(packet.TypePuback, first.ID)
	w.fence()
	if have, want := texts(t, d.b, "here", 0), []string{"a/b 1 1", "a/b 2 1"}; !slices.Equal(have, want) {
		t.Errorf("the queue has %v, want %v", have, want)
	}
	if q := d.b.Queues()[0]; !q.Connected || q.Messages != 2 || q.OnDisk != 0 {
		t.Errorf("%+v", q)
	}
}

// damagedQueue returns a closed store with 100 messages for an inbox in several
// segments, the second of which cannot be read.
func damagedQueue(t *testing.T) (dir, damaged string) {
	t.Helper()
	dir = t.TempDir()
	st, err := store.Open(dir, store.Options{SegmentSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	cfg.SetDefaults()
	b, err := New(cfg, Options{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx) }()
	in, err := b.OpenInbox(ctx, "bridge/cloud", mqtt.InboxOptions{}, mqtt.Subscription{Filter: "#", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	for i := range 100 {
		if err := b.Publish(ctx, mqtt.Message{Topic: "a", Payload: make([]byte, 4096+i), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	files, _ := filepath.Glob(filepath.Join(dir, "journal", "*.seg"))
	if err := errors.Join(<-served, st.Close(), os.WriteFile(files[1], make([]byte, 40960), 0o600)); err != nil {
		t.Fatal(err)
	}
	b.balance(t)
	return dir, files[1]
}

// Behind a file that cannot be read the queue goes on, and the error says which.
func TestQueueGoesOnBehindDamage(t *testing.T) {
	leak.Check(t)
	dir, damaged := damagedQueue(t)
	st, err := store.OpenReadOnly(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var cfg Config
	cfg.SetDefaults()
	b, err := New(cfg, Options{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	n, last := 0, 0
	err = b.QueueMessages("bridge/cloud", 0, func(m mqtt.Delivery) bool { n, last = n+1, len(m.Payload); return true })
	if c := new(store.CorruptError); !errors.As(err, &c) || c.Path != damaged || n < 50 || n == 100 || last != 4096+99 {
		t.Errorf("%d messages, the last of %d bytes, %v", n, last, err)
	}
}
