package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/mqtt"
)

// ledger checks that a session gets every message of every publisher in order,
// with repetitions only of what it was sent over an earlier connection.
type ledger struct {
	t    *testing.T
	who  string
	mu   sync.Mutex
	next map[uint16]uint32
	bad  bool
	done chan struct{} // closed when all has come
	left int
	tell func() // is called for each message that came for the first time
}

func newLedger(t *testing.T, who string, total int, tell func()) *ledger {
	return &ledger{t: t, who: who, next: make(map[uint16]uint32), done: make(chan struct{}), left: total, tell: tell}
}

// standstill returns a context that ends when goOn was not called for so long,
// however long everything takes.
func standstill(t *testing.T, after time.Duration) (ctx context.Context, goOn func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	timer := time.AfterFunc(after, func() { cancel(fmt.Errorf("nothing has come for %v", after)) })
	t.Cleanup(func() { timer.Stop(); cancel(nil) })
	return ctx, func() { timer.Reset(after) }
}

func numbered(publisher uint16, n uint32, size int) []byte {
	b := make([]byte, 6+size)
	binary.BigEndian.PutUint16(b, publisher)
	binary.BigEndian.PutUint32(b[2:], n)
	return b
}

// got takes a message. floor is what was next when the connection began, so
// nothing below may come... twice over the same connection.
func (l *ledger) got(payload []byte, seen map[uint16]uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, n := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])
	want := l.next[p]
	last, again := seen[p]
	switch {
	case l.bad:
	case n > want:
		l.bad = true
		l.t.Errorf("%s: got %d of publisher %d, want %d: lost or out of order", l.who, n, p, want)
	case again && n != last+1:
		l.bad = true
		l.t.Errorf("%s: got %d of publisher %d behind %d over one connection", l.who, n, p, last)
	case n == want:
		l.next[p]++
		l.tell()
		if l.left--; l.left == 0 {
			close(l.done)
		}
	}
	seen[p] = n
}

const (
	hammerPublishers = 4
	hammerMessages   = 1500
)

// TestHammer publishes messages of many sizes with little memory for sessions
// that come and go, so that they change between window, ram and journal all the
// time.
func TestHammer(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := newBed(t, func(d *bed) {
		d.cfg.Queue.MaxMemory = 4096
		d.cfg.Limits.MaxInflight = 7
	})
	total := hammerPublishers * hammerMessages
	var readers, publishers sync.WaitGroup
	sub := mqtt.Subscription{Filter: "h/#", QoS: 1}
	in, err := d.b.OpenInbox(d.ctx(), "up", mqtt.InboxOptions{MaxInflight: 5}, sub)
	if err != nil {
		t.Fatal(err)
	}
	p := d.dial("sub", durable)
	p.subscribe("h/#", 1)
	p.Close()
	ctx, goOn := standstill(t, patience)
	inbox, net := newLedger(t, "inbox", total, goOn), newLedger(t, "client", total, goOn)
	readers.Go(func() { hammerInbox(ctx, d, in, inbox, rand.New(rand.NewPCG(seed, 1))) })
	readers.Go(func() { hammerClient(ctx, d, net, rand.New(rand.NewPCG(seed, 2))) })
	for i := range uint16(hammerPublishers) {
		publishers.Go(func() { hammerPublish(ctx, d, i, hammerMessages, rand.New(rand.NewPCG(seed, 3+uint64(i)))) })
	}
	publishers.Wait()
	readers.Wait()
	for _, l := range []*ledger{inbox, net} {
		if l.left > 0 {
			t.Errorf("%s: %d of %d messages never came", l.who, l.left, total)
		}
	}
}

func hammerPublish(ctx context.Context, d *bed, who uint16, messages uint32, r *rand.Rand) {
	sizes := []int{0, 20, 200, 900, 1500, 3900, 5000}
	for n := range messages {
		m := mqtt.Message{Topic: "h/x", Payload: numbered(who, n, sizes[r.IntN(len(sizes))]), QoS: mqtt.QoS(1 + r.IntN(2))}
		var err error
		switch {
		case who%2 == 0 || n%64 == 63:
			err = d.b.Publish(ctx, m)
		default:
			err = d.b.PublishAsync(ctx, m, nil)
		}
		if err != nil {
			d.t.Errorf("publish: %v", err)
			return
		}
	}
}

func hammerInbox(ctx context.Context, d *bed, in mqtt.Inbox, l *ledger, r *rand.Rand) {
	for {
		seen := make(map[uint16]uint32)
		for range 1 + r.IntN(400) {
			m, err := in.Recv(ctx)
			if err != nil {
				d.t.Errorf("inbox: %v", err)
				return
			}
			l.got(m.Payload, seen)
			in.Ack(m.Seq)
			if l.finished() {
				in.Close()
				return
			}
		}
		if r.IntN(2) == 0 {
			in.Close()
		}
		var err error
		if in, err = d.b.OpenInbox(ctx, "up", mqtt.InboxOptions{MaxInflight: 1 + r.IntN(20)}, mqtt.Subscription{Filter: "h/#", QoS: 1}); err != nil {
			d.t.Errorf("inbox: %v", err)
			return
		}
	}
}

func (l *ledger) finished() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func hammerClient(ctx context.Context, d *bed, l *ledger, r *rand.Rand) {
	for !l.finished() {
		seen, enough := make(map[uint16]uint32), make(chan struct{})
		left := 1 + r.IntN(400)
		c, err := client.Dial(ctx, d.b.Addrs()[0].String(), client.Options{ClientID: "sub", Handler: func(m client.Message) {
			l.got(m.Payload, seen)
			if left--; left == 0 {
				close(enough)
			}
		}})
		if err != nil {
			d.t.Errorf("client: %v", err)
			return
		}
		select {
		case <-enough:
		case <-l.done:
		case <-ctx.Done():
			d.t.Errorf("client: %v", context.Cause(ctx))
			c.Close()
			return
		}
		c.Close()
	}
}
