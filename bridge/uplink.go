package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"tidegate/mqtt"
)

// drainTimeout bounds the wait for acknowledgements when the bridge stops. Each
// that comes spares a duplicate after the restart.
const drainTimeout = time.Second

// maxRemaining is the largest PUBLISH without its fixed header (MQTT 3.1.1,
// section 2.2.3).
const maxRemaining = 268435455

// errUnmatched means that no rule knows a message: it was queued under others.
var errUnmatched = errors.New("no rule matches")

// uplink moves messages over one link: send, once for each stream, reads them from the
// inbox and hands them to the link, whose goroutine confirms them in the same order. What is
// between the two is bounded by the inbox, which hands out MaxInflight.
type uplink struct {
	cfg     *Config
	server  string
	link    link
	inbox   mqtt.Inbox
	monitor *monitor
	log     *slog.Logger
	owes    func() int64                              // what the inbox has not acknowledged
	status  string                                    // here, of the gateway: the link itself says it upstream; "": it does not
	ripe    func(context.Context, mqtt.Delivery) bool // waits for the clock, if there is a time in it; false: not before ctx was done
	seal    func(mqtt.Delivery) mqtt.Delivery         // makes what goes upstream of it, but for the topic
	sending func(mqtt.Delivery, mqtt.Message)         // is told what goes upstream, as what
	warned  *firsts                                   // filters whose messages were refused; of the bridge
	local   mqtt.Publisher                            // takes dead letters
	suspect *suspect                                  // of the bridge
	window  *window
	pacer   *pacer

	publishing turns // of the two streams
	flight     *flight
}

// turns is a lock that goes to whoever waits for it first: a [sync.Mutex] goes to the one
// that has just had it, over and over, while a live message waits for a millisecond.
// Whoever sends has the lock, and receives to give it back.
type turns chan struct{}

// run moves messages until ctx is done, which is no error, or the link is lost.
func (u *uplink) run(ctx context.Context) error {
	finished := make(chan struct{})
	var watching, sending sync.WaitGroup
	watching.Go(func() { u.watch(ctx, finished) })
	watching.Go(func() { u.patrol(finished) })
	sending.Go(func() { u.send(ctx, live, u.inbox.RecvLive) })
	u.send(ctx, backlog, u.inbox.Recv)
	sending.Wait()
	u.flight.wait(u.link.alive())
	close(finished)
	watching.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(u.link.alive())
}

// watch aborts the link if it takes longer to finish than drainTimeout once ctx
// is done: acknowledgements may not come, and publish may be blocked.
func (u *uplink) watch(ctx context.Context, finished <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-finished:
		return
	}
	u.monitor.update(func(s *Status) { s.State = Draining })
	limit := time.NewTimer(drainTimeout)
	defer limit.Stop()
	select {
	case <-limit.C:
		u.link.abort(errStopped)
	case <-finished:
	}
}

// stream is one of the two ways of messages upstream. Live ones pass the backlog, if
// the order of the catch-up says so; else all are of the backlog.
type stream int

const (
	backlog stream = iota
	live
)

// send forwards what recv hands out until it does not, or the link is lost. An
// error of the queue ends the link.
func (u *uplink) send(ctx context.Context, from stream, recv func(context.Context) (mqtt.Delivery, error)) {
	receiving, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(u.link.alive(), cancel)()
	asking, cancel := context.WithCancel(receiving)
	cancel()
	routes := newRoutes(u.cfg)
	for {
		d, err := recv(asking) // what is there
		if errors.Is(err, context.Canceled) {
			u.link.flush()
			d, err = recv(receiving)
		}
		switch {
		case receiving.Err() != nil || u.link.alive().Err() != nil:
			return
		case err != nil:
			u.link.abort(&localError{"read the queue", err})
			return
		}
		u.forward(receiving, from, routes, d)
		u.pacer.look(u.left)
	}
}

// forward sends d, or does away with it if it can never be sent.
func (u *uplink) forward(ctx context.Context, from stream, routes *routes, d mqtt.Delivery) {
	if d.Topic == u.status {
		u.inbox.Ack(d.Seq)
		return
	}
	if again := (places{u.cfg.Name}).again(); strings.HasPrefix(d.Topic, again) {
		d.Message = revived(d.Message, again)
	}
	m, err := routes.of(d.Topic).carry(d.Message)
	if err != nil {
		u.drop(d, err)
		return
	}
	if u.suspect.condemns(d.Seq, u.cfg.patience()) {
		u.bury(d, u.suspect.why)
		return
	}
	if !u.ripe(ctx, d) || from == backlog && !u.pacer.wait(ctx) || !u.window.enter(ctx.Done(), from) {
		return // it comes again
	}
	u.publish(from, d, m)
}

// publish hands d to the link as m, unless the link is lost. What goes first upstream
// also is first to be confirmed, whichever stream it comes from.
func (u *uplink) publish(from stream, d mqtt.Delivery, m mqtt.Message) {
	u.publishing <- struct{}{}
	defer func() { <-u.publishing }()
	if u.link.alive().Err() != nil {
		return
	}
	u.pacer.spend(d)
	sealed := u.seal(d) // not before: what is dropped leaves no hole in the numbers
	m.Payload, m.Properties = sealed.Payload, sealed.Properties
	u.monitor.sent()
	u.sending(d, m)
	if m.QoS == mqtt.AtMostOnce {
		u.confirm(&owed{d: d, from: from, err: u.link.publish(m, nil)}, time.Now())
		u.window.wake()
		return
	}
	o := u.flight.add(u, d, from)
	if err := u.link.publish(m, o); err != nil {
		u.unsent(o, err)
	}
}

// unsent takes note that the link does not send o. Unless the server would refuse it,
// the link ends here: the next message must not overtake o.
func (u *uplink) unsent(o *owed, err error) {
	if !errors.As(err, new(*refusal)) {
		u.link.abort(err)
	}
	o.acknowledged(err)
	o.rest()
}

// left returns how many messages wait to be sent.
func (u *uplink) left() int64 {
	under, _ := u.window.load()
	return u.owes() - int64(under)
}

// checkSize reports why no PUBLISH can hold payload bytes for topic, or nil.
func checkSize(topic string, payload int) error {
	const lengthAndIdentifier = 2 + 2
	if size := lengthAndIdentifier + len(topic) + payload; size > maxRemaining {
		return fmt.Errorf("%w: %d bytes are more than the %d of MQTT", mqtt.ErrTooLarge, size, maxRemaining)
	}
	return nil
}

// Why a message in the queue is lost, for the loss ledger.
const (
	lostUnmatched  = "unmatched"   // its rule is gone
	lostNotCarried = "not_carried" // no broker takes the topic that its rule makes, or it is too large for MQTT
)

// drop takes d out of the queue, which it would block for ever, counts it, and says
// so once for each filter.
func (u *uplink) drop(d mqtt.Delivery, why error) {
	reason := lostNotCarried
	u.monitor.update(func(s *Status) {
		if errors.Is(why, errUnmatched) {
			s.Unmatched++
			s.LastUnmatched = d.Topic
			reason = lostUnmatched
		} else {
			s.Refused++
		}
	})
	u.inbox.Drop(d, reason)
	_, filter := ruleFor(u.cfg.Out, d.Topic)
	if u.warned.first(filter) {
		u.log.Warn("bridge drops messages that it cannot carry: check topics, strip and prefix of its rules",
			"topic", d.Topic, "filter", filter, "error", why)
	}
}

// firsts tells the first time of each thing from all later ones.
type firsts struct {
	mu   sync.Mutex
	seen map[string]bool // as many as there are filters, twice at most
}

func (f *firsts) first(thing string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = make(map[string]bool)
	}
	known := f.seen[thing]
	f.seen[thing] = true
	return !known
}

// bury makes d a dead letter. When that cannot be kept, d stays in the queue and
// comes again over the next link.
func (u *uplink) bury(d mqtt.Delivery, why error) {
	u.link.flush()
	err := u.local.Publish(u.link.alive(), deadLetter(d.Message, places{u.cfg.Name}, why))
	if err != nil {
		u.link.abort(&localError{"a message that the server refuses cannot be put aside", err})
		return
	}
	u.monitor.update(func(s *Status) { s.DeadLetters++ })
	u.inbox.Ack(d.Seq)
	_, filter := ruleFor(u.cfg.Out, d.Topic)
	if u.warned.first("dead " + filter) {
		u.log.Warn("bridge puts a message aside that the server refuses; see docs/bridge.md, dead letters",
			"topic", d.Topic, "filter", filter, "error", why)
	}
}
