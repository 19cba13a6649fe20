package broker

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// A full queue with overflow: reject refuses: a message that would be owed to it
// goes to nobody. An MQTT 5 publisher is told so. One of MQTT 3.1.1 cannot be: its
// message is held, unacknowledged, and everything it publishes behind that, until
// there is room. Whoever publishes inside the process waits.

// errFull is why a message goes to nobody.
var errFull = errors.New("a queue that it would go to is full")

// vacancy lets those wait who found a queue full. Its mutex is a leaf.
type vacancy struct {
	mu   sync.Mutex
	room chan struct{} // closed when a queue has room again; nil: nobody waits
}

// wait returns a channel that is closed when it is time to look again. It is
// called before looking.
func (v *vacancy) wait() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.room == nil {
		v.room = make(chan struct{})
	}
	return v.room
}

func (v *vacancy) announce() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.room != nil {
		close(v.room)
		v.room = nil
	}
}

// gauge notes whether the queue refuses messages, after what it is owed has
// changed. The caller holds mu.
func (s *session) gauge() {
	q := &s.bounds
	if q.Overflow != mqtt.Reject && !s.refuses.Load() {
		return
	}
	switch full := q.Overflow == mqtt.Reject && s.full() != ""; {
	case full:
		s.refuses.Store(true)
	case q.Overflow != mqtt.Reject || s.hasSpace():
		s.open()
	}
}

// hasSpace reports whether a queue that was full has room for some messages, so
// that publishers do not come and go with each. The caller holds mu.
func (s *session) hasSpace() bool {
	q := &s.bounds
	most := q.MaxMessages - max(1, slack(q.MaxMessages, maxSlackMessages))
	return (q.MaxMessages == 0 || s.owed.Load() <= most) && (q.MaxDisk == 0 || s.bytes <= q.MaxDisk-slack(q.MaxDisk, maxSlackBytes))
}

// open lets publishers go on.
func (s *session) open() {
	if s.refuses.Swap(false) {
		s.b.vacancy.announce()
	}
}

// refused reports whether a queue refuses the message.
func (p *publication) refused(m *matches) bool {
	if p.qos == mqtt.AtMostOnce || p.will {
		return false
	}
	for i := range m.durable {
		to := &m.durable[i]
		if to.s.refuses.Load() && to.qos != mqtt.AtMostOnce && !p.local(to) {
			return true
		}
	}
	return false
}

// turnAway counts a message that cannot be refused, and for which a full queue has
// no room.
func (s *session) turnAway(it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.stats.accepted.Add(1)
	s.lose(it, cmp.Or(s.full(), lostDisk))
}

// parked are the publications of an MQTT 3.1.1 client that wait for room in a
// queue. While there are some, all that the client publishes joins them, so
// that it stays in order; everything else it sends is handled, its PINGREQ and
// its acknowledgements among it.
type parked struct {
	mu    sync.Mutex
	list  queue[publication]
	bytes int
	fewer chan struct{} // closed when they have become fewer; nil: nobody waits
	wg    sync.WaitGroup
}

// park keeps a copy of p until there is room. The reader waits here when they are
// too many.
func (c *conn) park(t *turn, p *publication) error {
	if c.parked == nil {
		c.parked = new(parked)
	}
	c.b.stats.refusals.count(becauseQueue)
	return c.waitWhile(t, func() <-chan struct{} {
		fewer, first := c.parked.add(c, p)
		if first {
			c.parked.wg.Go(c.unpark)
		}
		return fewer
	})
}

// add takes a copy of p, unless there are too many: then it returns when to try
// again. first says that there was none.
func (k *parked) add(c *conn, p *publication) (fewer <-chan struct{}, first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	size := len(p.topic) + len(p.payload) + itemOverhead
	if k.list.len() > 0 && k.bytes+size > int(c.b.cfg.Queue.MaxMemory) {
		if k.fewer == nil {
			k.fewer = make(chan struct{})
		}
		return k.fewer, false
	}
	own := *p
	both := append(append(make([]byte, 0, len(p.topic)+len(p.payload)), p.topic...), p.payload...)
	own.topic, own.payload = both[:len(p.topic):len(p.topic)], both[len(p.topic):]
	k.list.push(own)
	k.grow(c, size)
	return nil, k.list.len() == 1
}

// grow notes that they take so many bytes more. The caller holds mu.
func (k *parked) grow(c *conn, bytes int) {
	k.bytes += bytes
	c.held.set(&c.b.memory, forQueues, k.bytes)
	if bytes < 0 && k.fewer != nil {
		close(k.fewer)
		k.fewer = nil
	}
}

// has reports whether the QoS 2 message with that packet identifier is among them.
func (k *parked) has(id uint16) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.list.len() {
		if r := k.list.at(i).receipt; r != nil && r.id == id {
			return true
		}
	}
	return false
}

// any reports whether there are some.
func (k *parked) any() bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list.len() > 0
}

// unpark passes on what is parked, in its order, as queues have room, until
// nothing is or the connection ends.
func (c *conn) unpark() {
	t := turn{b: c.b, done: c.done}
	for next := c.parked.front(); next != nil; {
		room := c.b.vacancy.wait()
		t.begin()
		err := c.pass(&t, next)
		t.end()
		if errors.Is(err, errFull) {
			select {
			case <-room:
				continue
			case <-c.done:
				return
			}
		}
		if err != nil {
			c.end(err)
			return
		}
		next = c.parked.done(c)
	}
}

// front returns the first one.
func (k *parked) front() *publication {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := *k.list.front()
	return &p
}

// done takes the first one out and returns the next, nil if there is none.
func (k *parked) done(c *conn) *publication {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.list.pop()
	k.grow(c, -len(p.topic)-len(p.payload)-itemOverhead)
	if k.list.len() == 0 {
		return nil
	}
	p = *k.list.front()
	return &p
}

// drop forgets what is parked when the connection has ended. The client was not
// told that it is safe, so it will send it again.
func (k *parked) drop(c *conn) {
	if k == nil {
		return
	}
	k.wg.Wait()
	k.mu.Lock()
	list := k.list
	k.list.reset()
	k.grow(c, -k.bytes)
	k.mu.Unlock()
	for list.len() > 0 {
		if p := list.pop(); p.receipt != nil {
			c.s.takeReceipt(p.receipt.id, p.receipt)
		}
	}
}

// pass routes a publication of the client, or tells it why that goes nowhere.
func (c *conn) pass(t *turn, p *publication) error {
	err := c.b.route(t, p)
	if errors.Is(err, errRetained) || errors.Is(err, errFull) && c.version == packet.V5 {
		if errors.Is(err, errFull) {
			c.b.stats.refusals.count(becauseQueue)
		}
		c.turnDown(t, p, reasonFor(err, packet.ReasonQuotaExceeded), err)
		return nil
	}
	return err
}

// routeWait is route for somebody inside the process, who waits while a queue
// refuses the message.
func (b *Broker) routeWait(ctx context.Context, t *turn, p *publication) error {
	err := b.route(t, p)
	for errors.Is(err, errFull) {
		room := b.vacancy.wait()
		if err = b.route(t, p); !errors.Is(err, errFull) {
			break
		}
		t.end()
		select {
		case <-room:
			t.begin()
		case <-ctx.Done():
			return err
		case <-b.stopped:
			return mqtt.ErrClosed
		}
	}
	return err
}
