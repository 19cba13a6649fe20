package broker

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/store"
)

// Options are what a broker needs beside its configuration.
type Options struct {
	Store *store.Store // opened and closed by the caller
	Log   *slog.Logger // nil: nothing is logged

	Version string // of the program, for $SYS/broker/version; may be empty

	CommitInterval units.Duration // the longest wait for a group commit, its end included while the disk takes less than half of it; 0: 10 ms
	MaxStoreSize   units.Size     // of the store's directory; 0: any
	MinFree        units.Size     // of its file system, that is left to others; 0: none

	FlashBudget units.Budget   // bytes a day: commits are kept as far apart, up to a minute, as it takes; 0: none
	OnlineDelay units.Duration // how long a connected consumer may take to acknowledge; 0: 1 s
	MemoryLimit units.Size     // of which a quarter may wait for the disk, and clients may take half; 0: 64 MiB

	Hooks Hooks // what the embedding program wants to decide and to see

	// Line is the time that is stored with messages: it must never go back,
	// nor over a restart, and never jump, or stored messages expire early. Then
	// messages are stamped, too. nil: [time.Now], and they are not, unless a queue
	// has a maximum age.
	Line func() time.Time

	Circle Circle // keeps messages from going in circles with other gateways; nil: there are no bridges
}

// Broker is an MQTT broker. Its methods may be called from any goroutine.
// It implements [mqtt.Publisher] and [mqtt.Subscriber].
type Broker struct {
	cfg         Config
	version     string
	log         *slog.Logger
	start       time.Time
	hooks       Hooks
	circle      Circle
	line        func() time.Time // see Options; for what is stamped
	lineStart   time.Time        // what it said at start
	stamps      atomic.Bool      // messages have the time at which they were published
	onlineDelay int64            // nanoseconds

	commit      *committer
	memory      budget
	trie        trie
	retained    retained
	sysRetained retained // what the broker says about itself
	stats       counters
	losses      *lossLedger
	access      atomic.Pointer[access] // what Reload has made
	turns       sync.Pool
	seed        maphash.Seed // of the numbers that topics have
	alarms      alarms
	vacancy     vacancy
	stopped     chan struct{} // closed when Serve no longer takes responsibility

	refusedLines hush

	listeners []*listener
	wg        sync.WaitGroup // of connections

	reloading sync.Mutex // taken before all others

	mu        sync.Mutex
	sessions  map[string]*session
	queues    map[uint32]*session // of durable sessions and shares
	shares    map[string]*share   // by filter
	nextQueue uint32
	conns     map[*conn]struct{}
	closing   bool
}

// New makes a broker and restores from the store what it held: sessions with
// their subscriptions and queues, and retained messages. cfg has its defaults
// filled in and no problems.
func New(cfg Config, o Options) (*Broker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		cfg:         cfg,
		version:     o.Version,
		log:         o.Log,
		hooks:       o.Hooks,
		circle:      o.Circle,
		line:        o.Line,
		start:       time.Now(),
		onlineDelay: int64(cmp.Or(o.OnlineDelay, units.Duration(time.Second))),
		sessions:    make(map[string]*session),
		queues:      make(map[uint32]*session),
		shares:      make(map[string]*share),
		conns:       make(map[*conn]struct{}),
		stopped:     make(chan struct{}),
		losses:      newLossLedger(),
		seed:        maphash.MakeSeed(),
	}
	b.stamps.Store(o.Line != nil || cfg.Queue.MaxAge > 0)
	limit := int64(cmp.Or(o.MemoryLimit, 64*units.MiB))
	b.memory = budget{limit: limit / 2, short: make(chan struct{}, 1)}
	if b.line == nil {
		b.line = time.Now
	}
	b.lineStart = b.line().Add(-time.Duration(b.now()))
	b.sysRetained = retained{list: make(map[string]retainedMessage), limits: cfg.Limits}
	b.retained = retained{list: make(map[string]retainedMessage), limits: cfg.Limits, memory: &b.memory}
	b.alarms = alarms{set: make(map[alarmKey]alarm), wake: make(chan struct{}, 1)}
	b.turns.New = func() any { return &turn{b: b} }
	b.commit = &committer{
		store:    o.Store,
		save:     o.Store.Commit,
		memory:   &b.memory,
		log:      o.Log,
		now:      b.now,
		line:     b.line,
		interval: int64(cmp.Or(o.CommitInterval, units.Duration(10*time.Millisecond))),
		maxBytes: int(limit / 4),
		wake:     make(chan struct{}, 1),
		due:      never,
		rowsDue:  never,
		last:     o.Store.LastSeq(),
		losses:   b.losses,
		mirror:   make(map[string]uint64),
		seed:     b.seed,
	}
	b.commit.lead.most = b.commit.interval / 2
	b.commit.committed = b.commit.last
	b.commit.disk.bounds = storeBounds{int64(o.MaxStoreSize), int64(o.MinFree)}
	b.commit.flash = newFlash(int64(o.FlashBudget), b.commit.interval, o.Log)
	if err := b.Reload(); err != nil {
		return nil, err
	}
	if err := b.restore(); err != nil {
		return nil, fmt.Errorf("restore the broker's state: %w", err)
	}
	b.stats.accepted.Store(b.inventory())
	return b, nil
}

// withDefaults returns the limits of an inbox, filled in.
func (b *Broker) withDefaults(q mqtt.QueueLimits) mqtt.QueueLimits {
	q.MaxMemory = cmp.Or(q.MaxMemory, int(b.cfg.Queue.MaxMemory))
	q.Overflow = cmp.Or(q.Overflow, mqtt.DropOldest)
	return q
}

// now returns the time since the broker was made, in nanoseconds. It never goes
// back, whatever happens to the clock.
func (b *Broker) now() int64 { return int64(time.Since(b.start)) }

// lineAt returns what [Options.Line] says at broker time now, for whoever only reads
// what is stored: asking would be taken for a stamp, and saved.
func (b *Broker) lineAt(now int64) time.Time { return b.lineStart.Add(time.Duration(now)) }

// Serve accepts connections until ctx is done. Then it ends them all, writes
// what is not on disk, and returns once nothing of it runs any more. That the disk
// takes nothing then is logged; it is an error if messages were acknowledged that are
// lost by it, as those for relaxed queues may be. It is called once. Who publishes in
// the process should have ended before ctx does.
func (b *Broker) Serve(ctx context.Context) error {
	commitCtx, stopCommit := context.WithCancel(context.Background())
	defer stopCommit()
	var (
		committing, accepting sync.WaitGroup
		lost                  error
	)
	committing.Go(func() { lost = b.commit.run(commitCtx, &turn{b: b}) })
	accepting.Go(func() {
		y := sys{b: b, version: b.version, loads: make(map[string]*load)}
		y.run(ctx, &turn{b: b, done: ctx.Done()})
	})
	accepting.Go(func() { b.relieve(ctx) })
	accepting.Go(func() { b.alarms.run(ctx, &turn{b: b, done: ctx.Done()}) })
	for _, l := range b.listeners {
		accepting.Go(func() { b.accept(ctx, l) })
	}
	<-ctx.Done()
	b.closeListeners()
	accepting.Wait()
	b.endAll(errShutdown)
	b.wg.Wait()
	close(b.stopped)
	stopCommit()
	committing.Wait()
	return lost
}

// ServeConn serves one connection, wherever it comes from, until it ends. Serve
// has to run.
func (b *Broker) ServeConn(nc net.Conn) {
	c := newConn(b, nc)
	if b.admit(c) {
		<-c.left
	}
}

// admit begins to serve a connection, if there is room.
func (b *Broker) admit(c *conn) bool {
	why, err := b.enter(c)
	if err != nil {
		b.stats.refused.Add(1)
		b.stats.refusals.count(why)
		c.endNow(err)
		return false
	}
	c.start()
	return true
}

// enter counts the connection in, exit counts it out. enter says why the
// connection cannot stay.
func (b *Broker) enter(c *conn) (why cause, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closing:
		return becauseConnections, errShutdown
	case len(b.conns) >= b.cfg.Limits.MaxConnections:
		return becauseConnections, errTooMany
	case !b.memory.room(forConnections):
		return becauseMemoryConnection, errNoMemory
	}
	b.memory.add(forConnections, c.cost())
	b.conns[c] = struct{}{}
	b.stats.sockets.Add(1)
	b.wg.Add(1)
	return 0, nil
}

func (b *Broker) exit(c *conn) {
	b.memory.add(forConnections, -c.cost())
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
	close(c.left)
	b.wg.Done()
}

func (b *Broker) endAll(why error) {
	b.mu.Lock()
	b.closing = true
	conns := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	b.mu.Unlock()
	for _, c := range conns {
		c.end(why)
	}
}

// newTurn begins a turn for a goroutine that is not the broker's own. endTurn
// gives it back.
func (b *Broker) newTurn(done <-chan struct{}) *turn {
	t := b.turns.Get().(*turn)
	t.done = done
	t.begin()
	return t
}

func (b *Broker) endTurn(t *turn) {
	t.end()
	t.done = nil
	b.turns.Put(t)
}

// Publish takes responsibility for m, see [mqtt.Publisher].
func (b *Broker) Publish(ctx context.Context, m mqtt.Message) error {
	return b.publishWait(ctx, m, nil)
}

// PublishAsync queues m, see [mqtt.Publisher].
func (b *Broker) PublishAsync(ctx context.Context, m mqtt.Message, done func(error)) error {
	return b.publish(ctx, m, nil, done)
}

// publishWait is publish that returns what done would have been told.
func (b *Broker) publishWait(ctx context.Context, m mqtt.Message, from *session) error {
	kept := make(chan error, 1)
	if err := b.publish(ctx, m, from, func(err error) { kept <- err }); err != nil {
		return err
	}
	select {
	case err := <-kept:
		return err
	case <-ctx.Done():
		return fmt.Errorf("publish to %q: %w", m.Topic, ctx.Err())
	case <-b.stopped:
		return fmt.Errorf("publish to %q: broker: %w", m.Topic, mqtt.ErrClosed)
	}
}

// publish queues m, which the inbox of from publishes; nil: somebody else inside
// the process does.
func (b *Broker) publish(ctx context.Context, m mqtt.Message, from *session, done func(error)) error {
	return b.publishAs(ctx, m, publication{waiter: waiter{done: done}, from: from, relay: from != nil})
}

// publishAs queues m as p, which says from whom it is and who waits.
func (b *Broker) publishAs(ctx context.Context, m mqtt.Message, p publication) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if size := len(m.Topic) + len(m.Payload); size > int(b.cfg.Limits.MaxPacketSize) {
		return fmt.Errorf("publish %d bytes to %q, max_packet_size is %v: %w", size, m.Topic, b.cfg.Limits.MaxPacketSize, mqtt.ErrTooLarge)
	}
	select {
	case <-b.stopped:
		return fmt.Errorf("publish to %q: broker: %w", m.Topic, mqtt.ErrClosed)
	default:
	}
	t := b.newTurn(ctx.Done())
	defer b.endTurn(t)
	b.stats.received.Add(1)
	p.topic, p.payload, p.props, p.qos, p.retain = []byte(m.Topic), m.Payload, propertiesOf(&m), m.QoS, m.Retain
	if err := b.routeWait(ctx, t, &p); err != nil {
		return fmt.Errorf("publish to %q: %w", m.Topic, cmp.Or(ctx.Err(), err))
	}
	return nil
}
