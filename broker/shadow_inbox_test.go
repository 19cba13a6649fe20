package broker

import (
	"context"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// insider reads an inbox as if it were a connection: a delivery is a PUBLISH with an
// identifier that stands for its place in the journal.
type insider struct {
	mqtt.Inbox

	mu   sync.Mutex
	came []arrived
	seqs map[uint16]uint64
}

func (o *ower) openInbox() *insider {
	var subs []mqtt.Subscription
	for filter, q := range o.subs {
		subs = append(subs, mqtt.Subscription{Filter: filter, QoS: q})
	}
	options := mqtt.InboxOptions{MaxInflight: o.x.d.cfg.Limits.MaxInflight, Queue: o.x.bounds}
	in, err := o.x.d.b.OpenInbox(o.x.t.Context(), o.id, options, subs...)
	if err != nil {
		o.x.t.Fatal(err)
	}
	i := &insider{Inbox: in, seqs: make(map[uint16]uint64)}
	go i.listen(o.x.t.Context())
	return i
}

func (i *insider) listen(ctx context.Context) {
	for {
		d, err := i.Recv(ctx)
		if err != nil {
			return
		}
		if d.QoS == mqtt.AtMostOnce {
			continue
		}
		p := packet.Publish{Topic: []byte(d.Topic), Payload: d.Payload, QoS: d.QoS, ID: uint16(d.Seq%65535) + 1}
		f, _, _, _ := packet.V311.Split(p.Append(nil), packet.MaxSize) // it is one that we made
		i.mu.Lock()
		i.seqs[p.ID] = d.Seq
		i.came = append(i.came, arrived{f, time.Now()})
		i.mu.Unlock()
	}
}

func (x *shadow) inbox() *ower {
	return x.owners[slices.IndexFunc(x.owners, func(o *ower) bool { return o.inbox })]
}

// peek opens the inbox after a start, which gives it its bounds, and leaves again.
func (o *ower) peek() {
	time.Sleep(1 + time.Duration(o.x.rnd.IntN(9973))) // as in step
	in := o.openInbox()
	synctest.Wait()
	for _, f := range in.take() {
		var p packet.Publish
		_ = p.Decode(f.Frame) // it is one that we made
		for _, d := range o.queue {
			d.sent = d.sent || d.m.n == numberIn(p.Payload)
		}
	}
	_ = in.Close()
}

func (i *insider) take() []arrived {
	i.mu.Lock()
	defer i.mu.Unlock()
	came := i.came
	i.came = nil
	return came
}

func (i *insider) ack(_ packet.Type, id uint16) {
	i.mu.Lock()
	seq := i.seqs[id]
	i.mu.Unlock()
	i.Inbox.Ack(seq)
	synctest.Wait()
}

// giveUp drops what the inbox was handed as id.
func (o *ower) giveUp(in *insider, id uint16) {
	d := o.under(id)
	if d == nil {
		o.x.t.Errorf("%s gives up %d, under which it was sent nothing", o.id, id)
		return
	}
	o.x.diary.note("%s gives up %d", o.id, d.m.n)
	o.queue = slices.DeleteFunc(o.queue, func(other *debt) bool { return other == d })
	o.lose(d, "given_up")
	in.mu.Lock()
	seq := in.seqs[id]
	in.mu.Unlock()
	in.Drop(mqtt.Delivery{Message: mqtt.Message{Topic: d.m.topic}, Seq: seq}, "given_up")
	synctest.Wait()
}

func (i *insider) send([]byte) {}

func (i *insider) Close() error {
	i.Inbox.Close()
	synctest.Wait()
	return nil
}
