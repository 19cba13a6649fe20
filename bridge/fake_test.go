package bridge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/internal/units"
	"tidegate/mqtt"
)

// fakeLocal is a broker with one queue, which keeps the promises of mqtt.Inbox:
// what is not acknowledged comes again, in order, when the inbox is opened anew.
type fakeLocal struct {
	mu        sync.Mutex
	queue     []mqtt.Message // sequence numbers are index + 1
	added     []time.Time
	acked     []bool
	remaining int
	drained   chan struct{} // closed when all of queue is acknowledged
	inbox     *fakeInbox    // open now, or nil
	opens     int
	bounds    []int64 // max_messages of each opening
	subs      []mqtt.Subscription
	states    []string // what the bridge published
	report    []byte   // what it published last
	lost      []string // what the bridge dropped

	takes time.Duration // for each message that is published

	dead *fakeLocal // what the server refused; nil in itself

	received numbers // of messages from upstream at QoS 2

	// forget, if given, is told when a number is released.
	forget func(done func(error))

	// keep takes what came from upstream.
	keep func(context.Context, mqtt.Message, func(error)) error
}

func newLocal(messages ...mqtt.Message) *fakeLocal {
	l := &fakeLocal{dead: &fakeLocal{}}
	l.keep = func(_ context.Context, m mqtt.Message, _ func(error)) error { panic(m.Topic) }
	l.add(messages...)
	return l
}

func (l *fakeLocal) add(messages ...mqtt.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.remaining == 0 {
		l.drained = make(chan struct{})
	}
	l.queue = append(l.queue, messages...)
	l.added = append(l.added, slices.Repeat([]time.Time{time.Now()}, len(messages))...)
	l.acked = append(l.acked, make([]bool, len(messages))...)
	l.remaining += len(messages)
	if l.inbox != nil {
		l.inbox.poke()
	}
}

// empty is closed when all that was added so far is acknowledged.
func (l *fakeLocal) empty() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drained
}

// Publish keeps a dead letter, or one that is queued again.
func (l *fakeLocal) Publish(ctx context.Context, m mqtt.Message) error {
	if m.Retain {
		panic("retained: " + m.Topic)
	}
	pause(ctx, l.takes)
	if mqtt.Match("$bridge/cloud/dead/#", m.Topic) {
		l.dead.add(m)
	} else if mqtt.Match("$bridge/cloud/again/#", m.Topic) {
		l.add(m)
	} else {
		panic(m.Topic)
	}
	return ctx.Err()
}

func (l *fakeLocal) Backlog(name string) int64 {
	if name == "bridge/cloud/dead" {
		return int64(l.dead.left())
	}
	return int64(l.left())
}

func (l *fakeLocal) Filters(string) (filters []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sub := range l.subs {
		filters = append(filters, sub.Filter)
	}
	return filters
}

func (l *fakeLocal) Waiting(name string) mqtt.Waiting {
	w := mqtt.Waiting{Messages: l.Backlog(name), Bytes: 10 * l.Backlog(name)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.acked, false); i >= 0 {
		w.Oldest = time.Since(l.added[i])
	}
	return w
}

// keep is called for what the bridge publishes through its inbox.
func (in *fakeInbox) PublishAsync(ctx context.Context, m mqtt.Message, done func(error)) error {
	return in.local.keep(ctx, m, done)
}

// PublishOnce keeps the numbers as long as fakeLocal lives, which may be longer than
// a bridge.
func (in *fakeInbox) PublishOnce(ctx context.Context, id uint16, m mqtt.Message, done func(error)) (known bool, err error) {
	if in.local.received.has(id) {
		done(nil)
		return true, nil
	}
	in.local.received.add(id)
	return false, in.local.keep(ctx, m, done)
}

func (in *fakeInbox) Release(id uint16, done func(error)) {
	if forget := in.local.forget; forget != nil {
		forget(done)
		return
	}
	in.local.received.remove(id)
	done(nil)
}

func (in *fakeInbox) ReleaseAll(context.Context) error {
	in.local.received.clear()
	return nil
}

func (in *fakeInbox) Publish(context.Context, mqtt.Message) error { panic("not used by a bridge") }

func (l *fakeLocal) PublishAsync(ctx context.Context, m mqtt.Message, _ func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Retain && m.QoS == mqtt.AtMostOnce && m.Topic == "$SYS/broker/connection/cloud/status" {
		l.report = m.Payload
		return ctx.Err()
	}
	if !m.Retain || m.QoS != mqtt.AtLeastOnce || m.Topic != "$SYS/broker/connection/cloud/state" {
		panic(m.Topic)
	}
	l.states = append(l.states, string(m.Payload))
	return ctx.Err()
}

func (l *fakeLocal) OpenInbox(_ context.Context, name string, o mqtt.InboxOptions, subs ...mqtt.Subscription) (mqtt.Inbox, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name == "bridge/cloud/dead" && l.dead != nil {
		return l.dead.OpenInbox(context.Background(), name, o, subs...)
	}
	if name != "bridge/cloud" && l.dead != nil {
		panic(name)
	}
	if l.inbox != nil {
		l.inbox.closeLocked()
	}
	l.opens++
	l.bounds = append(l.bounds, o.Queue.MaxMessages)
	l.subs = subs
	l.inbox = &fakeInbox{
		local: l, max: o.MaxInflight, lanes: o.LiveFirst, before: len(l.queue), live: len(l.queue), out: make(map[uint64]bool),
		wake: make(chan struct{}, 1), wakeLive: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	return l.inbox, nil
}

func (l *fakeLocal) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inbox != nil
}

func (l *fakeLocal) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remaining
}

type fakeInbox struct {
	local  *fakeLocal
	max    int
	lanes  bool // live messages pass the others
	before int  // messages that were there when it was opened
	next   int  // index of the next message to hand out
	live   int  // ... of the live ones
	out    map[uint64]bool
	closed chan struct{}

	wake, wakeLive chan struct{}
}

func (in *fakeInbox) Recv(ctx context.Context) (mqtt.Delivery, error) {
	return in.recv(ctx, &in.next, in.wake)
}

func (in *fakeInbox) RecvLive(ctx context.Context) (mqtt.Delivery, error) {
	return in.recv(ctx, &in.live, in.wakeLive)
}

func (in *fakeInbox) recv(ctx context.Context, next *int, wake chan struct{}) (mqtt.Delivery, error) {
	for {
		if d, ok := in.take(next); ok {
			return d, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return mqtt.Delivery{}, ctx.Err()
		case <-in.closed:
			return mqtt.Delivery{}, mqtt.ErrClosed
		}
	}
}

// take hands out the message at next, if it is of that stream.
func (in *fakeInbox) take(next *int) (mqtt.Delivery, bool) {
	l := in.local
	l.mu.Lock()
	defer l.mu.Unlock()
	end := len(l.queue)
	if next == &in.next && in.lanes {
		end = in.before
	}
	if len(in.out) == in.max || l.inbox != in || next == &in.live && !in.lanes {
		return mqtt.Delivery{}, false
	}
	for *next < end && l.acked[*next] {
		*next++
	}
	if *next >= end {
		return mqtt.Delivery{}, false
	}
	*next++
	in.out[uint64(*next)] = true
	return mqtt.Delivery{Seq: uint64(*next), Message: l.queue[*next-1]}, true
}

func (in *fakeInbox) Ack(seq uint64) {
	l := in.local
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(in.out, seq)
	in.poke()
	if l.acked[seq-1] {
		return
	}
	l.acked[seq-1] = true
	if l.remaining--; l.remaining == 0 {
		close(l.drained)
	}
}

func (in *fakeInbox) Drop(d mqtt.Delivery, reason string) {
	in.local.mu.Lock()
	in.local.lost = append(in.local.lost, reason+" "+d.Topic)
	in.local.mu.Unlock()
	in.Ack(d.Seq)
}

func (in *fakeInbox) Arrived() (messages, bytes uint64) {
	l := in.local
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.queue[in.before:] {
		messages++
		bytes += uint64(len(m.Topic) + len(m.Payload))
	}
	return messages, bytes
}

func (in *fakeInbox) Close() {
	in.local.mu.Lock()
	defer in.local.mu.Unlock()
	in.closeLocked()
}

func (in *fakeInbox) closeLocked() {
	if in.local.inbox == in {
		in.local.inbox = nil
		close(in.closed)
	}
}

func (in *fakeInbox) poke() {
	for _, wake := range []chan struct{}{in.wake, in.wakeLive} {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// upstream is one connection of a scripted server.
type upstream struct {
	t testing.TB
	net.Conn
}

// accept reads CONNECT and answers it.
func (u upstream) accept(code byte) *packets.ConnectPacket {
	connect, _ := u.read().(*packets.ConnectPacket)
	if connect == nil {
		return nil
	}
	answer := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	answer.ReturnCode = code
	_ = answer.Write(u)
	return connect
}

// read returns the next packet but pings, which it answers, or nil.
func (u upstream) read() packets.ControlPacket {
	for {
		p, err := packets.ReadPacket(u)
		if err != nil {
			return nil
		}
		if _, ping := p.(*packets.PingreqPacket); !ping {
			return p
		}
		_ = packets.NewControlPacket(packets.Pingresp).Write(u)
	}
}

// publish returns the next PUBLISH, or nil at the end.
func (u upstream) publish() *packets.PublishPacket {
	switch p := u.read().(type) {
	case *packets.PublishPacket:
		return p
	case nil, *packets.DisconnectPacket:
		return nil
	default:
		u.t.Errorf("the server got %v", p)
		return nil
	}
}

func (u upstream) ack(p *packets.PublishPacket) {
	answer := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	answer.MessageID = p.MessageID
	_ = answer.Write(u)
}

// serve accepts and acknowledges everything, and returns it.
func (u upstream) serve() (got []string) {
	u.accept(packets.Accepted)
	for p := u.publish(); p != nil; p = u.publish() {
		got = append(got, p.TopicName+" "+string(p.Payload))
		if p.Qos > 0 {
			u.ack(p)
		}
	}
	return got
}

// piped is a dialFunc whose connections end in script, which gets the number of
// the connection, from 0, and the address.
func piped(t testing.TB, script func(n int, address string, u upstream)) dialFunc {
	n := -1
	return func(_ context.Context, _, address string) (net.Conn, error) {
		n++
		here, there := net.Pipe()
		go func(n int) {
			defer there.Close()
			script(n, address, upstream{t, there})
		}(n)
		return pipeEnd{here}, nil
	}
}

// pipeEnd has the errors of a TCP connection.
type pipeEnd struct{ net.Conn }

func (e pipeEnd) Write(b []byte) (int, error) {
	n, err := e.Conn.Write(b)
	if errors.Is(err, io.ErrClosedPipe) {
		err = syscall.EPIPE
	}
	return n, err
}

// journal keeps the log as lines of "LEVEL message key=value…".
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), text)
}

// rig is a bridge that runs until the test stops it.
type rig struct {
	*Bridge
	t     testing.TB
	local *fakeLocal
	log   *journal
	stop  context.CancelFunc
	ended chan error
}

func testConfig() Config {
	return Config{
		Name:    "cloud",
		Servers: []string{"tcp://one:1883"},
		Out:     []Rule{{Topics: []string{"sensor/#"}, Prefix: "site/"}},
		Will:    new(false),
	}
}

func newRig(t testing.TB, cfg Config, local *fakeLocal, dial dialFunc) *rig {
	t.Helper()
	r := &rig{t: t, local: local, log: &journal{}, ended: make(chan error, 1)}
	b, err := New(cfg, "pump-house", local, slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	b.UseDialer(dial)
	r.Bridge = b
	return r
}

func (r *rig) start() *rig {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- r.Run(ctx) }()
	return r
}

// end stops the bridge and returns how long that took.
func (r *rig) end() time.Duration {
	r.t.Helper()
	begin := time.Now()
	r.stop()
	if err := <-r.ended; err != nil {
		r.t.Errorf("Run returns %v", err)
	}
	took := time.Since(begin)
	if s := r.Status(); s.State != Down || s.InFlight != 0 {
		r.t.Errorf("after Run the status is %+v", s)
	}
	if r.local.isOpen() {
		r.t.Error("after Run the inbox is still open")
	}
	return took
}

func seconds(n int) units.Duration { return units.Duration(time.Duration(n) * time.Second) }

func readings(n int) []mqtt.Message {
	messages := make([]mqtt.Message, n)
	for i := range messages {
		messages[i] = mqtt.Message{Topic: "sensor/a", Payload: []byte{byte('a' + i%26)}, QoS: mqtt.AtLeastOnce}
	}
	return messages
}

func numbered(n int) []mqtt.Message {
	messages := make([]mqtt.Message, n)
	for i := range messages {
		messages[i] = mqtt.Message{Topic: "sensor/n", Payload: []byte(strconv.Itoa(i)), QoS: mqtt.AtLeastOnce}
	}
	return messages
}
