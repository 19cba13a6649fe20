package broker

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

var (
	shadowSeed  = flag.Uint64("seed", 0, "of the shadow model; 0 takes the time")
	shadowSteps = flag.Int("steps", 2000, "how many random steps the shadow model takes with each kind of bounds")
)

// shadow is a model of what every durable session is owed. After each step of the
// game the broker rests, and what it holds has to be what the model says, message
// by message and loss by loss.
type shadow struct {
	t      *testing.T
	d      *bed
	rnd    *rand.Rand
	bounds mqtt.QueueLimits
	life   *atomic.Bool // of the broker; a promise that it makes after a power cut does not count
	n      int          // messages published
	last   uint64       // the newest place in the journal
	tells  []*teller
	owners []*ower
	guest  *pipe // of a session that ends with its connection; nil: absent
	losses map[lossKey]uint64
	unsure map[lossKey]uint64 // of losses: they need not have outlived the power cut
	count  map[string]int
}

// said is a message as its publisher sees it.
type said struct {
	n     int
	topic string
	qos   mqtt.QoS
}

// payload has a size that depends on the number, now and then a large one.
func (s *said) payload() []byte {
	size := s.n * 31 % 300
	if s.n%50 == 0 {
		size = 5000
	}
	return []byte(strconv.Itoa(s.n) + " " + strings.Repeat("x", size))
}

func numberIn(payload []byte) int {
	digits, _, _ := strings.Cut(string(payload), " ")
	n, _ := strconv.Atoi(digits)
	return n
}

// shadowMsg is one that durable sessions are owed.
type shadowMsg struct {
	said
	seq      uint64
	at       time.Time
	expires  time.Time   // zero: never
	promised atomic.Bool // its publisher was told, or it was seen on the disk
}

// debt is a message that one session is owed.
type debt struct {
	m        *shadowMsg
	qos      mqtt.QoS
	sent     bool   // over any connection, since the broker was started
	maybe    bool   // ... or before a power cut
	id       uint16 // it was sent with
	released bool   // PUBREC was sent
	unsure   bool   // ... but a power cut may have taken that
}

// ower is a durable session with its client, which keeps its half.
type ower struct {
	x     *shadow
	id    string
	c     *pipe // nil: absent
	subs  map[string]mqtt.QoS
	past  []map[string]mqtt.QoS // what subs may be after a power cut, the newest last
	asked uint16                // packet identifier of the newest
	queue []*debt               // in order
	pos   uint64                // the newest that was sent over this connection
	held  map[uint16]int        // QoS 2, received and not released: its number
	once  map[int]bool          // numbers delivered at QoS 2

	missed map[int]bool // numbers that a power cut has taken, and that were not published again

	puback, pubrec, pubcomp []uint16 // owed to the broker, of this connection

	// Since the broker was started:
	acked []*debt
	lost  []loss
}

type loss struct {
	*debt
	key lossKey
}

// TestShadow plays publishers and subscribers that come, go, subscribe, unsubscribe,
// acknowledge out of order and end their sessions, messages that expire, restarts and
// power cuts, in virtual time, and compares the broker with a model after each step.
func TestShadow(t *testing.T) {
	seed := cmp.Or(*shadowSeed, uint64(time.Now().UnixNano()))
	for name, q := range map[string]mqtt.QueueLimits{
		"no bounds":           {},
		"the oldest make way": {MaxMessages: 16},
		"the newest go":       {MaxMessages: 16, Overflow: mqtt.DropNewest},
		"all grow old":        {MaxAge: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Logf("go test ./broker -run '%s' -seed %d -steps %d", t.Name(), seed, *shadowSteps)
			dir := inMemory(t)
			synctest.Test(t, func(t *testing.T) { newShadow(t, dir, seed, q).play() })
		})
	}
}

func (x *shadow) play() {
	for step := range *shadowSteps {
		x.step(step)
		if x.t.Failed() {
			x.t.Fatalf("in step %d", step)
		}
	}
	x.end()
	x.t.Logf("%d messages; %v", x.n, x.count)
}

// inMemory returns a folder that costs no syncs, if there is one.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "tidegate")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newShadow(t *testing.T, dir string, seed uint64, q mqtt.QueueLimits) *shadow {
	x := &shadow{
		t: t, bounds: q, rnd: rand.New(rand.NewPCG(seed, 0)), life: new(atomic.Bool),
		losses: make(map[lossKey]uint64), unsure: make(map[lossKey]uint64), count: make(map[string]int),
	}
	x.d = newBed(t, func(d *bed) {
		d.dir, d.segment = filepath.Join(dir, "0"), 64*units.KiB
		d.cfg.Listeners, d.opts.Line = nil, time.Now
		d.cfg.Queue.MaxMessages, d.cfg.Queue.MaxAge = int(q.MaxMessages), units.Duration(q.MaxAge)
		d.cfg.Queue.Overflow = cmp.Or(q.Overflow, mqtt.DropOldest)
		d.cfg.Queue.MaxMemory, d.cfg.Limits.MaxInflight = 4096, 10
		d.opts.CommitInterval, d.opts.OnlineDelay = units.Duration(time.Millisecond), units.Duration(3*time.Millisecond)
	})
	for i := range 2 {
		p := &teller{x: x, id: fmt.Sprint("pub", i)}
		x.tells = append(x.tells, p)
		p.come()
	}
	for i := range 4 {
		o := &ower{x: x, id: fmt.Sprint("sub", i), subs: make(map[string]mqtt.QoS), held: make(map[uint16]int), once: make(map[int]bool), missed: make(map[int]bool)}
		o.past = []map[string]mqtt.QoS{{}}
		x.owners = append(x.owners, o)
		o.come()
		o.subscribe([]string{"a/#", "+/x", "#", "a/y"}[i], mqtt.QoS(1+i%2))
	}
	x.pass(2 * time.Second)
	x.checkAll()
	return x
}

// step does one thing.
func (x *shadow) step(step int) {
	o := x.owners[x.rnd.IntN(len(x.owners))]
	p := x.tells[x.rnd.IntN(len(x.tells))]
	switch k := x.rnd.IntN(1000); {
	case k < 270:
		x.publish(p)
	case k < 660:
		o.serve()
	case k < 800:
		x.pass([...]time.Duration{time.Microsecond, 500 * time.Microsecond, 2 * time.Millisecond, time.Second}[x.rnd.IntN(4)])
	case k < 860 && o.c == nil:
		o.come()
	case k < 890 && o.c != nil:
		o.leave()
	case k < 920:
		if p.c != nil {
			p.leave()
		} else {
			p.come()
		}
	case k < 935:
		x.visit()
	case k < 950 && o.c != nil:
		o.subscribe(filters[x.rnd.IntN(len(filters))], mqtt.QoS(x.rnd.IntN(3)))
	case k < 960 && o.c != nil:
		o.unsubscribe()
	case k < 985:
		o.drain()
	case k < 988:
		o.startAnew()
	case k < 992:
		x.restart()
	case k < 996:
		x.cut()
	}
	for _, p := range x.tells {
		if p.c != nil {
			p.listen()
		}
	}
	synctest.Wait()
	x.check(step%50 == 0)
}

var (
	filters = []string{"a/#", "+/x", "#", "a/y", "b/+", "a/+"}
	topics  = []string{"a/x", "a/y", "b/x", "b/z", "c"}
)

// publish has a client or somebody inside the process publish a message.
func (x *shadow) publish(p *teller) {
	x.n++
	what := said{x.n, topics[x.rnd.IntN(len(topics))], mqtt.QoS(x.rnd.IntN(3))}
	x.count["published"]++
	if x.rnd.IntN(2) == 0 && p.c != nil {
		p.publish(what)
		return
	}
	m := mqtt.Message{Topic: what.topic, Payload: what.payload(), QoS: what.qos}
	var expires time.Time
	if x.rnd.IntN(3) == 0 {
		m.Expiry = time.Duration(1+x.rnd.IntN(3)) * time.Second
		expires = time.Now().Add(m.Expiry)
	}
	var done func(error)
	var made atomic.Pointer[shadowMsg]
	safe, life := new(atomic.Bool), x.life
	if x.rnd.IntN(3) > 0 {
		done = func(err error) {
			if err == nil && !life.Load() {
				safe.Store(true)
				if m := made.Load(); m != nil {
					m.promised.Store(true)
				}
			}
		}
	}
	made.Store(x.accept(what, expires, func() {
		if err := x.d.b.PublishAsync(x.t.Context(), m, done); err != nil {
			x.t.Error(err)
		}
	}))
	if m := made.Load(); m != nil && safe.Load() {
		m.promised.Store(true)
	}
}

// known expects that nobody lost the message, as the broker does not take it again.
func (x *shadow) known(what said) {
	for _, o := range x.owners {
		if o.missed[what.n] {
			x.t.Errorf("the receipt of message %d is on the disk, but %s has lost the message", what.n, o.id)
		}
	}
}

// accept publishes a message and notes who is owed it. It returns nil if nobody
// is.
func (x *shadow) accept(what said, expires time.Time, publish func()) *shadowMsg {
	publish()
	synctest.Wait()
	last := x.d.b.commit.lastSeq()
	for _, o := range x.owners {
		delete(o.missed, what.n)
	}
	m := &shadowMsg{said: what, seq: last, at: time.Now(), expires: expires}
	if last == x.last {
		for _, o := range x.owners {
			if o.wants(m) > 0 {
				x.t.Errorf("%s is not owed message %d to %s, which it wants", o.id, what.n, what.topic)
			}
		}
		return nil
	}
	x.last = last
	owed := false
	for _, o := range x.owners {
		q := o.wants(m)
		if q == mqtt.AtMostOnce {
			continue
		}
		owed = true
		if q == mqtt.ExactlyOnce && o.had(what.n) {
			x.t.Errorf("%s is owed message %d twice at QoS 2", o.id, what.n)
		}
		o.queue = append(o.queue, &debt{m: m, qos: q})
	}
	if !owed {
		x.t.Errorf("message %d to %s has a place in the journal, and nobody is owed it", what.n, what.topic)
	}
	return m
}

// pass lets time pass.
func (x *shadow) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// visit lets the guest come, take what there is, or go.
func (x *shadow) visit() {
	switch {
	case x.guest == nil:
		x.guest = x.call(clean("guest"))
		s := packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "#", QoS: 2}}}
		x.guest.send(s.Append(nil))
	case x.rnd.IntN(3) == 0:
		_ = x.guest.Close()
		x.guest = nil
	default:
		for _, f := range x.guest.take() {
			var p packet.Publish
			var a packet.Ack
			switch {
			case f.Type() == packet.TypePublish && p.Decode(f.Frame) == nil && p.QoS > 0:
				x.guest.ack(map[mqtt.QoS]packet.Type{1: packet.TypePuback, 2: packet.TypePubrec}[p.QoS], p.ID)
			case f.Type() == packet.TypePubrel && a.Decode(f.Frame) == nil:
				x.guest.ack(packet.TypePubcomp, a.ID)
			}
		}
	}
}

// session returns what the broker has of a client, nil if nothing.
func (x *shadow) session(id string) *session {
	x.d.b.mu.Lock()
	defer x.d.b.mu.Unlock()
	return x.d.b.sessions[id]
}

// gone makes all clients lose their connections.
func (x *shadow) gone() {
	if x.guest != nil {
		_ = x.guest.Close()
		x.guest = nil
	}
	for _, p := range x.tells {
		if p.c != nil {
			p.leave()
		}
	}
	for _, o := range x.owners {
		if o.c != nil {
			o.drop()
		}
	}
}

// restart ends the broker in an orderly way and starts it: nothing changes.
func (x *shadow) restart() {
	x.count["restarts"]++
	x.gone()
	synctest.Wait()
	x.d.stop()
	x.guestLosses()
	x.d.start()
	x.begin()
	for _, o := range x.owners {
		o.resume(false)
	}
	x.compareLosses(false)
}

// cut starts the broker with what the disk has now: what was not committed is gone.
func (x *shadow) cut() {
	x.count["power cuts"]++
	x.life.Store(true)
	dir := x.d.snapshot()
	x.gone()
	x.d.goBack(dir)
	x.begin()
	for _, o := range x.owners {
		o.resume(true)
	}
	x.compareLosses(true)
}

// begin takes notice of a broker that was started.
func (x *shadow) begin() {
	synctest.Wait()
	x.life = new(atomic.Bool)
	x.last = x.d.b.commit.lastSeq()
}

// check compares what sessions are owed with the model: how many messages always,
// which ones if some may have expired, or all of it.
func (x *shadow) check(all bool) {
	for _, o := range x.owners {
		s := x.session(o.id)
		if s == nil {
			x.t.Fatalf("the session of %s is gone", o.id)
		}
		if all || s.owed.Load() != int64(len(o.queue)) {
			o.compare(s)
		}
	}
	if all {
		x.compareLosses(false)
	}
}

func (x *shadow) checkAll() {
	x.check(true)
}

// compareLosses expects the ledger to have what the model has. A power cut may
// have taken back what was not on the disk, with the messages, and losses of
// messages that nobody was promised: see goBack.
func (x *shadow) compareLosses(afterCut bool) {
	have := make(map[lossKey]uint64)
	for _, l := range x.d.b.Losses() {
		have[lossKey{l.Session, l.Filter, x.reason(l.Reason)}] += l.Count
	}
	x.guestLosses()
	if afterCut {
		for key, n := range x.losses {
			if have[key] > n || have[key] < n-x.unsure[key] {
				x.t.Errorf("the ledger has %d %v, should have %d, of which %d need not be there", have[key], key, n, x.unsure[key])
			}
		}
		clear(x.unsure)
		x.losses = have
		return
	}
	if !maps.Equal(x.losses, have) {
		x.t.Errorf("the ledger has\n%v, want\n%v", have, x.losses)
	}
}

// anyBound stands for the reasons of bounds and of expiry, of which the first that
// is found counts.
const anyBound = "any bound"

func (x *shadow) reason(of string) string {
	if x.bounds != (mqtt.QueueLimits{}) && (of == lostExpired || of == lostAge || of == lostCount) {
		return anyBound
	}
	return of
}

// guestLosses takes over what the guest has lost: the balance of the bed is the
// check.
func (x *shadow) guestLosses() {
	maps.DeleteFunc(x.losses, func(k lossKey, _ uint64) bool { return k.session == "guest" })
	for _, l := range x.d.b.Losses() {
		if l.Session == "guest" {
			x.losses[lossKey{l.Session, l.Filter, x.reason(l.Reason)}] += l.Count
		}
	}
}

// end lets everybody come and take all there is.
func (x *shadow) end() {
	for range 3 {
		for _, p := range x.tells {
			if p.c == nil {
				p.come()
			}
			p.listen()
		}
		x.pass(2 * time.Second)
	}
	for _, o := range x.owners {
		o.drain()
		if len(o.queue) > 0 {
			x.t.Errorf("%s is still owed %d messages", o.id, len(o.queue))
		}
	}
	x.checkAll()
	x.gone()
	for _, s := range slices.Collect(maps.Values(x.d.b.queues)) {
		if n := s.owed.Load(); n != 0 {
			x.t.Errorf("%s is owed %d messages", s.id, n)
		}
	}
}
