package broker

import (
	"cmp"
	"context"
	"errors"
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
	shadowSteps = flag.Int("steps", 1000, "how many random steps the shadow model takes with each kind of bounds")
)

// shadow is a model of what every durable session is owed. After each step of the
// game the broker rests, and what it holds has to be what the model says, message
// by message and loss by loss.
type shadow struct {
	t      *testing.T
	d      *bed
	seed   uint64
	rnd    *rand.Rand // of the step
	diary  *diary
	bounds mqtt.QueueLimits
	life   *atomic.Bool // of the broker; a promise that it makes after a power cut does not count
	n      int          // messages published
	last   uint64       // the newest place in the journal
	tells  []*teller
	owners []*ower
	pool   *ower    // the queue of the shared subscription; nil: there is none
	fresh  []uint64 // places in the journal that were given out to what is not noted yet
	handed []handed // to members, and not noted yet
	moved  []handed // since the broker was started
	passed uint64   // the newest place of what the share has passed on since the last check
	guest  *pipe    // of a session that ends with its connection; nil: absent
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
	if s.large() {
		size = 5000
	}
	return []byte(strconv.Itoa(s.n) + " " + strings.Repeat("x", size))
}

func (s *said) large() bool { return s.n%50 == 0 }

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
	promised atomic.Bool // its publisher was told
	stored   bool        // it was on the disk when the broker was started
	before   *shadowMsg  // of what a share has handed over: as it was there
}

// debt is a message that one session is owed.
type debt struct {
	m        *shadowMsg
	qos      mqtt.QoS
	ordinal  int    // among those of its topic that the session was owed
	sent     bool   // over any connection, since the broker was started
	maybe    bool   // ... or before a power cut
	id       uint16 // it was sent with
	released bool   // PUBREC was sent
	unsure   bool   // ... but a power cut may have taken that
	lentTo   *ower  // of a share: the member who has it; nil: nobody
}

// TestShadow plays publishers and subscribers that come, go, subscribe, unsubscribe,
// acknowledge out of order and end their sessions, an inbox that drops some, members of a share,
// messages that expire, queues that overflow, rewritten segments, restarts and power
// cuts, in virtual time, and compares the broker with a model after each step.
func TestShadow(t *testing.T) {
	seed := cmp.Or(*shadowSeed, uint64(time.Now().UnixNano()))
	for _, kind := range shadowKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Logf("go test ./broker -run '%s$' -seed %d -steps %d", t.Name(), seed, *shadowSteps)
			playShadow(t, seed, kind.bounds, *shadowSteps, kind.bounds.MaxAge == 0)
		})
	}
}

// The same seed gives the same game, to the last packet, unless members share what
// comes: who has room first is up to the scheduler. Once in a hundred games two
// timers ring at the same moment, so one of three may differ.
func TestShadowRepeats(t *testing.T) {
	seed := cmp.Or(*shadowSeed, uint64(time.Now().UnixNano()))
	t.Logf("seed %d", seed)
	for _, kind := range shadowKinds {
		var sums [3]string
		for i := range sums {
			sums[i] = playShadow(t, seed, kind.bounds, 200, false)
		}
		if sums[0] != sums[1] && sums[2] != sums[0] && sums[2] != sums[1] {
			t.Errorf("%s: the games have the sums %v", kind.name, sums)
		}
	}
}

// playShadow plays a game, with a share or without one, and returns the sum of its
// diary. What a share hands over to a member could grow too old before the model
// looks, so there is none with a maximum age.
func playShadow(t *testing.T, seed uint64, q mqtt.QueueLimits, steps int, share bool) (sum string) {
	dir := inMemory(t)
	synctest.Test(t, func(t *testing.T) {
		x := newShadow(t, dir, seed, q)
		if share {
			x.newPool()
		}
		x.pass(2 * time.Second)
		x.check(true)
		x.play(steps)
		sum = x.diary.sum()
	})
	return sum
}

func (x *shadow) play(steps int) {
	for step := range steps {
		x.step(step)
		if x.t.Failed() {
			x.t.Fatalf("in step %d:\n%s", step, strings.Join(x.diary.last, "\n"))
		}
	}
	x.end()
	x.t.Logf("%d messages; %v; sum %s", x.n, x.count, x.diary.sum())
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
	q.MaxMemory = 4096
	x := &shadow{
		t: t, bounds: q, seed: seed, rnd: rand.New(rand.NewPCG(seed, 0)), life: new(atomic.Bool),
		diary: newDiary(), losses: make(map[lossKey]uint64), unsure: make(map[lossKey]uint64), count: make(map[string]int),
	}
	x.d = newBed(t, func(d *bed) {
		d.dir, d.segment = filepath.Join(dir, "0"), 64*units.KiB
		d.cfg.Listeners, d.opts.Line = nil, time.Now
		setQueue(&d.cfg.Queue, q)
		d.cfg.Limits.MaxInflight = 10
		d.opts.CommitInterval, d.opts.OnlineDelay = units.Duration(time.Millisecond), units.Duration(3*time.Millisecond)
	})
	for i := range 2 {
		p := &teller{x: x, id: fmt.Sprint("pub", i)}
		x.tells = append(x.tells, p)
		p.come()
	}
	for i, filter := range []string{"a/#", "+/x", "#", "a/y", "+/z"} {
		o := newOwer(x, []string{"sub0", "sub1", "sub2", "sub3", "inbox"}[i])
		x.owners = append(x.owners, o)
		if o.inbox = i == 4; o.inbox {
			o.subs[filter] = mqtt.ExactlyOnce
			o.come()
			continue
		}
		o.come()
		o.subscribe(filter, mqtt.QoS(1+i%2))
	}
	return x
}

// step does one thing.
func (x *shadow) step(step int) {
	x.rnd = rand.New(rand.NewPCG(x.seed, uint64(step)+1)) // whatever the steps before have drawn
	x.pass(time.Duration(1 + x.rnd.IntN(9973)))           // or timers ring at once, in any order
	o := x.owners[x.rnd.IntN(len(x.owners))]
	p := x.tells[x.rnd.IntN(len(x.tells))]
	k := x.rnd.IntN(1000)
	x.diary.note("step %d at %v: %d of %s and %s", step, time.Now(), k, o.id, p.id)
	switch {
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
		p.turn()
	case k < 935:
		x.visit()
	case k < 950 && o.c != nil && !o.inbox && !o.member:
		o.subscribe(filters[x.rnd.IntN(len(filters))], mqtt.QoS(x.rnd.IntN(3)))
	case k < 960 && o.c != nil && !o.inbox && !o.member:
		o.unsubscribe()
	case k < 985:
		o.drain()
	case k < 988 && !o.inbox:
		o.startAnew()
	case k < 992:
		x.restart()
	case k < 996:
		x.cut()
	case k < 998:
		x.compact()
	}
	for _, p := range x.tells {
		p.listen()
	}
	x.rest()
	x.check(step%50 == 0)
}

var (
	filters = []string{"a/#", "+/x", "#", "a/y", "b/+", "a/+"}
	topics  = []string{"a/x", "a/y", "b/x", "b/z", "c"}
)

// rest waits until the broker rests, and notes what it has taken.
func (x *shadow) rest() {
	synctest.Wait()
	x.look()
	x.admit()
	x.handOver()
	if len(x.fresh) > 0 {
		x.t.Fatalf("the places %v in the journal are of nothing that anybody is owed", x.fresh)
	}
}

// pass lets time pass.
func (x *shadow) pass(d time.Duration) {
	time.Sleep(d)
	x.rest()
}

// publish has a client or somebody inside the process publish a message.
func (x *shadow) publish(p *teller) {
	x.n++
	what := said{x.n, topics[x.rnd.IntN(len(topics))], mqtt.QoS(x.rnd.IntN(3))}
	if what.large() { // a share could hand it over and lose it, before the model looks
		what.topic = "c"
	}
	x.count["published"]++
	if x.rnd.IntN(2) == 0 && p.c != nil {
		p.publish(what)
		return
	}
	m := mqtt.Message{Topic: what.topic, Payload: what.payload(), QoS: what.qos}
	var expires time.Time
	if x.rnd.IntN(3) == 0 && !(what.qos == mqtt.ExactlyOnce && mqtt.Match(sharedFilter, what.topic)) { // likewise
		m.Expiry = time.Duration(1+x.rnd.IntN(3)) * time.Second
		expires = time.Now().Add(m.Expiry)
	}
	if x.refuses(what) {
		x.publishInVain(m)
		return
	}
	x.publishInside(m, what, expires, x.rnd.IntN(3) > 0)
}

// publishInside has somebody inside the process publish, who wants to be told or
// does not.
func (x *shadow) publishInside(m mqtt.Message, what said, expires time.Time, tell bool) {
	var made atomic.Pointer[shadowMsg]
	safe, life := new(atomic.Bool), x.life
	keep := func() {
		if m := made.Load(); m != nil && safe.Load() {
			m.promised.Store(true)
		}
	}
	var done func(error)
	if tell {
		done = func(err error) {
			if err == nil && !life.Load() {
				safe.Store(true)
				keep()
			}
		}
	}
	if err := x.d.b.PublishAsync(x.t.Context(), m, done); err != nil {
		x.t.Error(err)
	}
	synctest.Wait()
	made.Store(x.accept(what, expires))
	keep()
}

// publishInVain has somebody publish to a full queue who does not wait for room.
func (x *shadow) publishInVain(m mqtt.Message) {
	x.count["refused"]++
	ctx, cancel := context.WithCancel(x.t.Context())
	cancel()
	if err := x.d.b.PublishAsync(ctx, m, nil); !errors.Is(err, context.Canceled) {
		x.t.Errorf("a full queue did not refuse a message to %s: %v", m.Topic, err)
	}
}

// accept notes who is owed a message that the broker has just taken. It returns nil
// if nobody is.
func (x *shadow) accept(what said, expires time.Time) *shadowMsg {
	x.look()
	for _, o := range x.queues() {
		delete(o.missed, what.n)
	}
	if !x.wanted(what) {
		return nil
	}
	if len(x.fresh) == 0 {
		x.t.Fatalf("message %d to %s has no place in the journal", what.n, what.topic)
	}
	m := &shadowMsg{said: what, seq: x.fresh[0], at: time.Now(), expires: expires}
	x.fresh = x.fresh[1:]
	for _, o := range x.queues() {
		if q := o.wants(what); q != mqtt.AtMostOnce {
			o.owe(m, q)
		}
	}
	return m
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

// compact removes and rewrites segments of which little is owed.
func (x *shadow) compact() {
	before := x.d.st.Stats().SegmentsRewritten
	if _, err := x.d.st.Compact(x.t.Context(), x.d.b.StillOwed()); err != nil {
		x.t.Error(err)
	}
	x.count["rewritten"] += int(x.d.st.Stats().SegmentsRewritten - before)
}

// session returns what the broker has of a client, inbox or share, nil if nothing.
func (x *shadow) session(id string) *session { return x.d.b.queueNamed(id) }

// check compares what sessions are owed with the model: how many messages always,
// which ones if some may have gone, or all of it.
func (x *shadow) check(all bool) {
	for _, o := range x.queues() {
		s := x.session(o.id)
		if s == nil {
			x.t.Fatalf("the session of %s is gone", o.id)
		}
		if all || s.owed.Load() != int64(len(o.queue)) {
			o.compare(s)
		}
		o.checkRefusal(s)
	}
	if x.checkShare(); all {
		x.compareLosses(false)
	}
}

// end lets everybody come and take all there is.
func (x *shadow) end() {
	for range 4 {
		for _, o := range x.owners {
			o.drain()
		}
		for _, p := range x.tells {
			if p.c == nil {
				p.come()
			}
			p.listen()
		}
		x.pass(2 * time.Second)
	}
	x.check(true)
	for _, p := range x.tells {
		if len(p.under) > 0 {
			x.t.Errorf("%s waits for the answers to %d messages", p.id, len(p.under))
		}
	}
	x.gone(true)
	for _, s := range slices.Collect(maps.Values(x.d.b.queues)) {
		if n := s.owed.Load(); n != 0 {
			x.t.Errorf("%s is owed %d messages", s.id, n)
		}
	}
}
