package broker

import (
	"sync"
	"time"

	"tidegate/mqtt/packet"
)

// How much may wait to be written to one connection. At softOut a session stops
// sending QoS 1 and 2; they are safe in its outbox. stuck ends a connection that
// takes nothing for so long while something waits.
const (
	softOut  = 64 << 10
	stuck    = 60 * time.Second
	farewell = 2 * time.Second // the same once the connection is to end
)

// output gathers what is to be written to a connection, and writes it. Whoever
// appends flushes at the end of its turn; what the socket does not take is left
// to a goroutine that lives as long as something waits.
type output struct {
	t       transport
	drained func()      // called by the goroutine when everything is written
	failed  func(error) // called once, when writing fails
	sent    *counters
	memory  *budget
	wg      sync.WaitGroup

	mu      sync.Mutex
	buf     []byte // appended and not yet taken by a writer
	packets uint64 // in buf
	touched bool   // somebody has appended and will flush
	stalled bool   // somebody found it full
	writing bool   // somebody is in flush, or the goroutine runs
	broken  bool
	taken   int    // bytes that the goroutine writes
	waiting charge // for buf and taken, once they are more than a turn leaves for its end
	last    bool   // nothing may be appended any more

	// The answers to QoS 1 and 2 publications, which leave in the order in which
	// these came [MQTT-4.6.0-2] [MQTT-4.6.0-3].
	answers queue[answer]
	open5   int           // publications under way as MQTT 5 counts them: without PUBACK or PUBCOMP
	first   uint64        // number of the first in answers
	fewer   chan struct{} // closed when answers or bytes have become fewer; nil: nobody waits
}

// ackSize is what an answer takes beside its properties, or more.
const ackSize = 8

// answer is a PUBACK or PUBREC that is owed.
type answer struct {
	ack  packet.Ack
	left int // what has to happen before it may leave
}

// publish appends a PUBLISH. Like all that append it returns whether the caller
// has to flush.
func (o *output) publish(it *item, dup bool) (flush bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open() {
		return false
	}
	o.buf = grow(o.buf, len(it.body.plain())+packet.PublishOverhead)
	o.buf = packet.AppendPublish(o.buf, it.body.plain(), it.body.topicEnd(), it.qos, it.retain, dup, it.id)
	o.packets++
	return o.touch()
}

// publish5 is publish for a client of MQTT 5.
func (o *output) publish5(it *item, dup bool, x packet.Extra) (flush bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open() {
		return false
	}
	b := &it.body
	o.buf = grow(o.buf, len(b.buf)+x.Size()+packet.PublishOverhead)
	o.buf = packet.AppendPublish5(o.buf, b.plain(), b.topicEnd(), b.properties(), it.qos, it.retain, dup, it.id, x)
	o.packets++
	return o.touch()
}

// ack appends one of the packets that are a packet identifier and nothing else.
func (o *output) ack(a packet.Ack) (flush bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ackLocked(a)
}

func (o *output) ackLocked(a packet.Ack) (flush bool) {
	if !o.open() {
		return false
	}
	o.buf = a.Append(grow(o.buf, ackSize+len(a.Properties)))
	o.packets++
	return o.touch()
}

// packet appends a packet that is already encoded.
func (o *output) packet(b []byte) (flush bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open() {
		return false
	}
	o.buf = append(grow(o.buf, len(b)), b...)
	o.packets++
	return o.touch()
}

// open reports whether something may be appended. The caller holds mu.
func (o *output) open() bool { return !o.broken && !o.last }

// touch reports whether the caller has to flush what it appended: nobody else is
// going to. The caller holds mu.
func (o *output) touch() (flush bool) {
	if o.touched || o.writing {
		return false
	}
	o.touched = true
	return true
}

// full reports whether limit bytes wait to be taken by a writer. When that is no
// longer so, flush or the goroutine says it.
func (o *output) full(limit int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	waiting := len(o.buf) + o.taken
	o.waiting.set(o.memory, forOutput, waiting)
	full := len(o.buf) >= limit || waiting >= small && !o.memory.room(forOutput)
	o.stalled = o.stalled || full
	return full
}

// flush writes what was appended, as far as the socket takes it. It returns
// whether somebody who found it full may go on.
func (o *output) flush() (goOn bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.touched = false
	if o.writing {
		return false
	}
	o.writing = true
	for len(o.buf) > 0 && !o.broken {
		b := o.take()
		o.mu.Unlock()
		n, err := o.t.tryWrite(b)
		o.mu.Lock()
		if err != nil {
			o.fail(err)
			break
		}
		if n < len(b) && o.last {
			break // the connection is at its end, and nobody would join the goroutine
		}
		if n < len(b) {
			o.taken = len(b)
			o.waiting.set(o.memory, forOutput, o.taken)
			o.wg.Add(1)
			go o.drain(b, n)
			return false
		}
		giveBack(b)
	}
	o.writing = false
	o.waiting.set(o.memory, forOutput, len(o.buf))
	goOn, o.stalled = o.stalled, false
	return goOn
}

// take returns what is to be written next. The caller holds mu.
func (o *output) take() []byte {
	b := o.buf
	o.buf = nil
	o.sent.bytesSent.Add(uint64(len(b)))
	o.sent.packetsSent.Add(o.packets)
	o.packets = 0
	o.tellFewer()
	return b
}

// tellFewer lets whoever was held back look again. The caller holds mu.
func (o *output) tellFewer() {
	if o.fewer != nil {
		close(o.fewer)
		o.fewer = nil
	}
}

// drain writes b from n on and then whatever is appended meanwhile, waiting for
// the socket.
func (o *output) drain(b []byte, n int) {
	defer o.wg.Done()
	err := o.writeAll(b[n:])
	giveBack(b)
	o.mu.Lock()
	for ; err == nil && len(o.buf) > 0; o.mu.Lock() {
		b = o.take()
		o.taken = len(b)
		o.waiting.set(o.memory, forOutput, o.taken)
		o.mu.Unlock()
		err = o.writeAll(b)
		giveBack(b)
	}
	if err == nil {
		err = o.t.SetWriteDeadline(time.Time{}) // tryWrite must not find an old one
	}
	if err != nil {
		o.fail(err)
	}
	o.writing, o.stalled, o.taken = false, false, 0
	o.waiting.set(o.memory, forOutput, len(o.buf))
	o.mu.Unlock()
	o.drained()
}

// writeAll writes b. As long as the peer takes something it may take its time.
func (o *output) writeAll(b []byte) error {
	for len(b) > 0 {
		if err := o.t.SetWriteDeadline(time.Now().Add(o.patience())); err != nil {
			return err
		}
		chunk := b[:min(len(b), softOut)]
		if _, err := o.t.Write(chunk); err != nil {
			return err
		}
		b = b[len(chunk):]
	}
	return nil
}

// patience is how long a write may take.
func (o *output) patience() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last {
		return farewell
	}
	return stuck
}

// fail notes that the connection cannot be written. The caller holds mu.
func (o *output) fail(err error) {
	o.broken = true
	giveBack(o.buf)
	o.buf = nil
	o.tellFewer()
	o.failed(err)
}

// close lets nothing be appended any more.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = true
}

// finish lets nothing be appended any more, and waits for the goroutine.
func (o *output) finish() {
	o.close()
	o.wg.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting.set(o.memory, forOutput, 0)
}

// expect notes that an answer is owed, and returns its number for fulfil.
func (o *output) expect(a packet.Ack) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open5++
	o.answers.push(answer{ack: a, left: 1})
	return o.first + uint64(o.answers.len()) - 1
}

// retract takes back what expect noted last.
func (o *output) retract() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open5--
	o.answers.remove(o.answers.len() - 1)
}

// underWay returns how many publications of the client are under way.
func (o *output) underWay() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open5
}

// arrived notes that a QoS 2 publication is complete, or was none.
func (o *output) arrived() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open5 = max(0, o.open5-1)
}

// expectMore makes one more event necessary before the answer may leave.
func (o *output) expectMore(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n >= o.first {
		o.answers.at(int(n-o.first)).left++
	}
}

// fulfil notes that an event for the answer has happened, and appends the answers
// that may leave. It returns whether the caller has to flush.
func (o *output) fulfil(n uint64) (flush bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n < o.first || int(n-o.first) >= o.answers.len() {
		return false
	}
	o.answers.at(int(n-o.first)).left--
	for o.answers.len() > 0 && o.answers.front().left <= 0 {
		a := o.answers.pop()
		o.first++
		if a.ack.Type == packet.TypePuback {
			o.open5 = max(0, o.open5-1)
		}
		flush = o.ackLocked(a.ack) || flush
	}
	o.tellFewer()
	return flush
}

// heldBack returns nil if the client may hand in more: fewer than most answers
// are owed to it and it reads them. Else it returns a channel that is closed when
// it is time to look again.
func (o *output) heldBack(most int) (fewer <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.answers.len() < most && len(o.buf) < softOut {
		return nil
	}
	if o.fewer == nil {
		o.fewer = make(chan struct{})
	}
	return o.fewer
}
