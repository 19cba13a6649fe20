package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/internal/clock"
	"tidegate/mqtt"
)

// Local is what a bridge needs of the broker.
type Local interface {
	mqtt.Publisher
	mqtt.Subscriber

	// Backlog returns how many messages the inbox called name has not
	// acknowledged.
	Backlog(name string) int64

	// Waiting says more about them, and may read the disk for it.
	Waiting(name string) mqtt.Waiting

	// Filters returns those of its subscriptions; none if there is no such inbox.
	Filters(name string) []string
}

// Bridge carries messages to one server of several. Run may be called once at a
// time; Status from any goroutine.
type Bridge struct {
	cfg     Config
	local   Local
	log     *slog.Logger
	streams *streams
	open    openFunc
	look    openFunc // as another client, which wants nothing
	monitor monitor
	leg     leg

	returning atomic.Int64 // dead letters that Requeue has still to put back

	observe func(Change)
	status  string // topic here of what the link itself says upstream; "": none
	sealer  sealer
	echoes  *echoes   // of what may come back through in; nil: nothing can
	circle  *Circle   // of all bridges of the gateway
	hearers []*Bridge // bridges of the same gateway with rules for in, perhaps this one

	// Of Run.
	warned    firsts          // see uplink
	warnedIn  map[string]bool // see downlink
	dropped   numbers         // of messages at QoS 2 that were dropped and not released
	listened  string          // the server of the last link; "": there was none since the start
	heard     time.Time       // when a server last sent anything; zero: not since the start
	clockBy   time.Time       // until when what has a time in it waits for the clock; zero: there was no link yet
	announced string          // last payload of the state topic
	changed   chan struct{}   // holds one token when there is something to report
	saidDown  bool            // the log knows

	listening []string // filters that the sessions of the servers may have; nil: not known yet
	saidKept  bool     // the log knows that a server does not forget some

	saidRefused bool    // the log knows that a subscription is refused
	suspect     suspect // may be why the server ends connections
	fruitless   bool    // the last link acknowledged nothing of what it was owed
}

// New returns a bridge of the gateway called gateway, with the defaults filled
// in. It starts nothing and opens nothing.
func New(cfg Config, gateway string, local Local, log *slog.Logger) (*Bridge, error) {
	cfg.SetDefaults()
	if problems := cfg.Check(); len(problems) > 0 {
		return nil, fmt.Errorf("bridge %q: %s: %s", cfg.Name, problems[0].Path, problems[0].Text)
	}
	cfg.ClientID = cfg.clientID(gateway)
	dialer := net.Dialer{KeepAlive: time.Duration(cfg.Keepalive)}
	streams := &streams{dial: dialer.DialContext, tls: cfg.TLS}
	client, stranger := cfg.client(streams, cfg.ClientID), cfg.client(streams, cfg.ClientID+"-look")
	client.listens = len(cfg.In) > 0
	status := ""
	if *cfg.Will {
		status = "gateway/" + gateway + "/status"
		client.status = cfg.statusTopic(gateway)
	}
	b := &Bridge{
		cfg:      cfg,
		local:    local,
		log:      log.With("bridge", cfg.Name),
		streams:  streams,
		open:     client.opener(cfg.Protocol),
		look:     stranger.opener(cfg.Protocol),
		warnedIn: make(map[string]bool),
		status:   status,
		changed:  make(chan struct{}, 1),
		observe:  func(Change) {},
	}
	b.sealer = sealer{gateway: gateway, bridge: cfg.Name, kind: cfg.Envelope, keep: 4 * cfg.MaxInflight, clock: clock.New()}
	Join(NewCircle(), b)
	b.monitor.status = Status{Name: cfg.Name, Server: cfg.Servers[0], Since: time.Now(), Failures: map[string]uint64{}}
	return b, nil
}

// UseDialer has the bridge reach its servers, "host:port", over connections of dial
// instead of the system's. It is called before Run.
func (b *Bridge) UseDialer(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	b.streams.dial = dial
}

// Status returns how the bridge fares.
func (b *Bridge) Status() Status {
	b.measure()
	return b.monitor.snapshot()
}

// Declare makes sure that the broker has the bridge's queue, with the
// subscriptions of its rules, so that it is owed what is published from now on.
// It must not be called while Run is.
func (b *Bridge) Declare(ctx context.Context) error {
	inbox, err := b.openInbox(ctx)
	if err != nil {
		return err
	}
	inbox.Close()
	return b.declareDead(ctx)
}

// declareDead makes sure that dead letters have a place.
func (b *Bridge) declareDead(ctx context.Context) error {
	dead, err := b.openDead(ctx, 1, 1)
	if err != nil {
		return err
	}
	dead.Close()
	return nil
}

func (b *Bridge) openInbox(ctx context.Context) (mqtt.Inbox, error) {
	o := mqtt.InboxOptions{MaxInflight: b.cfg.MaxInflight, LiveFirst: b.cfg.CatchUp.Order == liveFirst, Queue: b.cfg.Queue.Limits()}
	at := places{b.cfg.Name}
	again := mqtt.Subscription{Filter: at.again() + "#", QoS: mqtt.AtLeastOnce}
	b.recall()
	inbox, err := b.local.OpenInbox(ctx, at.inbox(), o, slices.Concat(subscriptions(b.cfg.Out), []mqtt.Subscription{again}, b.reminders())...)
	if err != nil {
		return nil, &localError{"open the queue " + at.inbox(), err}
	}
	return inbox, nil
}

// Run connects, carries and connects again until ctx is done. It returns nil
// when everything it started has ended.
func (b *Bridge) Run(ctx context.Context) error {
	var heralding sync.WaitGroup
	heralding.Go(func() { b.herald(ctx) })
	b.announce(ctx, "0")
	if err := b.declareDead(ctx); err != nil && ctx.Err() == nil {
		b.log.Warn("bridge has no place for messages that the server refuses", "error", err)
	}
	b.follow(ctx, newCourse(&b.cfg))
	heralding.Wait()
	b.stopped(ctx)
	return nil
}

// ending is how a try to have a link, or the link, ended.
type ending struct {
	proven bool          // the server did its part, so that the next try may come soon
	stood  time.Duration // for how long there was a link
	why    error
}

// round is one try and its link. A link to another server than the first ends when
// the first is well.
func (b *Bridge) round(ctx context.Context, c *course) ending {
	server := b.cfg.Servers[c.at]
	b.monitor.update(func(s *Status) { s.State, s.Server = Dialing, server })
	l, err := b.open(ctx, server)
	if err != nil {
		return ending{why: err}
	}
	begin := time.Now()
	carrying, leave := context.WithCancel(ctx)
	var scouting sync.WaitGroup
	well := false
	if c.scouts() {
		scouting.Go(func() {
			if well = scout(carrying, c.need, b.firstIsWell); well {
				leave()
			}
		})
	}
	proven, err := b.carry(carrying, server, l)
	leave()
	scouting.Wait()
	if well && err == nil {
		err = errReturn
	}
	return ending{proven, time.Since(begin), err}
}

// firstIsWell reports whether the first server answers CONNECT, as another client
// than the one that is connected: servers that belong together would else end that
// one's connection.
func (b *Bridge) firstIsWell(ctx context.Context) bool {
	l, err := b.look(ctx, b.cfg.Servers[0])
	if err != nil {
		return doesNotKnow(err)
	}
	l.close()
	return true
}

// carry moves messages over l until it is lost, which is the error, or ctx is done.
func (b *Bridge) carry(ctx context.Context, server string, l link) (proven bool, err error) {
	defer l.close()
	inbox, err := b.openInbox(ctx)
	if err != nil {
		return false, err
	}
	defer inbox.Close()
	b.up(ctx, server)
	b.beginClockWait()
	d := b.downlink(l, inbox)
	d.moved, b.listened = b.listened != server, server
	d.start(b.refused, b.leave)
	defer d.end()
	defer func() { b.heard = l.heard() }()
	u := uplink{
		owes: func() int64 { return b.local.Backlog(places{b.cfg.Name}.inbox()) },
		cfg:  &b.cfg, server: server, link: l, inbox: inbox, ripe: b.ripe(l.flush), seal: b.sealer.seal, status: b.status, sending: b.sending,
		monitor: &b.monitor, log: b.log, warned: &b.warned,
		local: b.local, suspect: &b.suspect, window: b.newWindow(l), publishing: make(turns, 1), flight: newFlight(),
		pacer: newPacer(b.cfg.CatchUp.Rate, inbox.Arrived, l.flush),
	}
	if err = u.run(ctx); err != nil {
		if seq, ok := u.culprit(err); ok {
			b.suspect.blame(seq, err)
		}
		head, _ := u.flight.head()
		b.fruitless = head != 0 && !u.flight.proven()
		err = lostError(server, b.cfg.ClientID, time.Duration(b.cfg.Keepalive)+pongTime, err)
	}
	return u.flight.proven() || b.stoodIdle(), err
}

// newWindow returns the window of a fresh link: a small one, and one message at a
// time behind a link that acknowledged nothing, so that it is known which one the
// server does not take.
func (b *Bridge) newWindow(l link) *window {
	first := firstWindow
	if b.fruitless {
		first = 1
	}
	share := b.cfg.CatchUp.LiveShare
	if b.cfg.CatchUp.Order == inOrder {
		share = 0
	}
	w := newWindow(first, min(b.cfg.MaxInflight, l.limit()), share, slowAfter(time.Duration(b.cfg.StallTimeout)))
	w.idle = l.flush
	return w
}

// stoodIdle reports whether the link that just ended stood for a while with
// nothing to prove.
func (b *Bridge) stoodIdle() bool {
	s := b.monitor.snapshot()
	return s.InFlight == 0 && time.Since(s.Since) >= time.Duration(b.cfg.StallTimeout)
}

// Change is what became of a bridge's connection, or of a try to have one.
type Change struct {
	Bridge string
	State  State  // Up or Down
	Server string // that it is connected to, was, or tried to be
	Cause  string // why it is down, as in [Status].Failures; "": the first server is well again, Reconnect was called, or the bridge stops
	Error  string // likewise, in words to act on
}

// UseObserver has fn told of each change. It is called before Run. fn must not block.
func (b *Bridge) UseObserver(fn func(Change)) { b.observe = fn }

// tell tells the observer how the bridge is now.
func (b *Bridge) tell(why error) {
	s := b.monitor.snapshot()
	c := Change{Bridge: s.Name, State: s.State, Server: s.Server}
	if why != nil {
		c.Cause, c.Error = causeOf(why), why.Error()
	}
	b.observe(c)
}

// up, down and stopped change the state and say so: one line in the log and one
// retained message for each change, none for a try.

func (b *Bridge) up(ctx context.Context, server string) {
	b.monitor.update(func(s *Status) {
		s.State, s.Since = Up, time.Now()
		s.Connects++
	})
	b.measureAnew()
	b.tell(nil)
	b.saidDown = false
	b.log.Info("bridge is up", "server", server)
	b.announce(ctx, "1")
}

func (b *Bridge) down(ctx context.Context, why error) {
	if errors.Is(why, errReturn) {
		b.monitor.update(func(s *Status) { s.leave(); s.Returns++ })
		b.tell(nil)
		b.log.Info("bridge returns to its first server", "server", b.cfg.Servers[0])
		b.announce(ctx, "0")
		return
	}
	if errors.Is(why, errAsked) {
		b.monitor.update((*Status).leave)
		b.tell(nil)
		b.announce(ctx, "0")
		return
	}
	b.monitor.update(func(s *Status) { s.fail(why) })
	b.tell(why)
	if !b.saidDown {
		b.saidDown = true
		b.log.Warn("bridge is down, messages are queued until it is up", "error", why)
	}
	b.announce(ctx, "0")
}

func (b *Bridge) stopped(ctx context.Context) {
	b.monitor.update((*Status).leave)
	b.tell(nil)
	b.log.Info("bridge stopped")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	b.announce(ctx, "0")
	b.report(ctx)
	b.forget(ctx)
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
