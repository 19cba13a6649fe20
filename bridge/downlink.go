package bridge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"tidegate/mqtt"
)

const (
	// maxUnsafe is how many messages from upstream may wait to be safe here.
	// Behind them the server is read no further.
	maxUnsafe = 256

	// quietTime without a message ends what the server had kept for us, and
	// with it the doubt about how old its messages are.
	quietTime = 5 * time.Second
)

// Why a message from upstream is acknowledged and not carried.
var (
	errEcho     = errors.New("the bridge sent it itself")
	errReserved = errors.New("a topic that begins with $ belongs to the broker that it is on")
	errCircle   = errors.New("it goes in a circle: its topic begins with the prefix three times")
	errTooOld   = errors.New("it may be older than valid_for")
	errPayload  = errors.New("it is larger than max_packet_size")
)

// downlink publishes what a server sends, as the bridge's inbox, so that it does
// not go up again. take, on the link's goroutine, publishes; confirm acknowledges
// upstream, in order, what has become safe. What is between the two is bounded.
type downlink struct {
	cfg     *Config
	link    link
	inbox   mqtt.Inbox
	dropped *numbers // at QoS 2, over all links
	echoes  *echoes
	circle  *Circle
	monitor *monitor
	log     *slog.Logger
	warned  map[string]bool // filters whose messages were refused; of the bridge, used by take

	missed  time.Duration // for how long the server may have kept messages for us; 0: not at all
	quiet   time.Time     // when the last message came
	current bool          // what comes is new
	moved   bool          // the last link may have been to another server, with a session of its own

	unsafe   chan unsafe
	stopping context.Context // is done when no more is to be taken
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// downlink returns the way down over l, which begins with its start.
func (b *Bridge) downlink(l link, inbox mqtt.Inbox) *downlink {
	d := &downlink{
		cfg: &b.cfg, link: l, inbox: inbox, dropped: &b.dropped, echoes: b.echoes, circle: b.circle,
		monitor: &b.monitor, log: b.log, warned: b.warnedIn,
	}
	switch {
	case !l.resumed():
	case b.heard.IsZero():
		d.missed = forEver
	default:
		d.missed = time.Since(b.heard)
	}
	return d
}

// refused takes note that nothing, or not all, comes down over l. What goes up
// goes on.
func (b *Bridge) refused(l link, why error) {
	if l.alive().Err() != nil {
		return // said when the link has ended
	}
	why = listenError(b.Status().Server, b.cfg.ClientID, why)
	b.monitor.update(func(s *Status) { s.Error, s.ErrorAt = why.Error(), time.Now() })
	if !b.saidRefused {
		b.saidRefused = true
		b.log.Warn("bridge brings nothing down for some rules of in", "error", why)
	}
}

// unsafe is a message, or the release of one, that is not yet safe here.
type unsafe struct {
	done chan error // told once
	ack  func()
}

// await gives ack its place among the answers to the server. It blocks while too
// much is not yet safe, and fails when nothing more is to be taken.
func (d *downlink) await(ack func()) (done chan<- error, ok bool) {
	kept := unsafe{make(chan error, 1), ack}
	select {
	case d.unsafe <- kept:
		return kept.done, true
	case <-d.stopping.Done():
	case <-d.link.alive().Done():
	}
	return nil, false
}

// start subscribes and begins to carry, and does not wait for the server's
// consent. refused is told what it does not consent to; then comes leave, with the same.
func (d *downlink) start(refused func(link, error), leave func(context.Context, link, error)) {
	d.quiet = time.Now()
	d.unsafe = make(chan unsafe, maxUnsafe)
	d.stopping, d.stop = context.WithCancel(context.Background())
	d.running.Go(d.confirm)
	d.running.Go(func() {
		if !d.begin() {
			return
		}
		err := d.link.listen(d.stopping, d.cfg.wanted(), d)
		if err != nil && d.stopping.Err() == nil {
			refused(d.link, err)
		}
		leave(d.stopping, d.link, err)
	})
}

// begin forgets the numbers of messages if the server has: it gives them anew.
func (d *downlink) begin() bool {
	if d.link.resumed() {
		return true
	}
	d.dropped.clear()
	err := d.inbox.ReleaseAll(d.stopping)
	if err != nil && d.stopping.Err() == nil {
		d.link.abort(&localError{"begin a new session", err})
	}
	return err == nil
}

// end takes no more, acknowledges what becomes safe within closeTimeout, and
// waits for what was started.
func (d *downlink) end() {
	d.stop()
	limit := time.AfterFunc(closeTimeout, func() { d.link.abort(errStopped) })
	defer limit.Stop()
	d.running.Wait()
}

// take publishes what came. It blocks while too much is not yet safe.
func (d *downlink) take(a arrival) {
	done, ok := d.await(a.ack)
	if !ok {
		return
	}
	if err := d.renumber(a); err != nil {
		done <- err
		return
	}
	if a.QoS == mqtt.ExactlyOnce && d.dropped.has(a.id) {
		done <- nil
		return
	}
	m, err := d.address(a)
	if err != nil {
		d.drop(a, err)
		done <- nil
		return
	}
	switch err := d.publish(a, m, func(err error) { done <- err }); {
	case err == nil:
	case errors.Is(err, mqtt.ErrTooLarge), errors.Is(err, mqtt.ErrInvalidTopic):
		d.drop(a, err)
		done <- nil
	default:
		done <- err
	}
}

// renumber forgets whose number a has now. Servers of a cluster share a session and its
// numbers, others do not, and nothing tells which these are. But what a server sends
// for the first time (MQTT 3.1.1, section 3.3.1.1) is new, whatever had its number.
func (d *downlink) renumber(a arrival) error {
	if !d.moved || a.again || a.QoS != mqtt.ExactlyOnce {
		return nil
	}
	d.dropped.remove(a.id)
	released := make(chan error, 1)
	d.inbox.Release(a.id, func(err error) { released <- err })
	select {
	case err := <-released:
		return err
	case <-d.link.alive().Done():
		return context.Cause(d.link.alive())
	}
}

// publish publishes a as m, at QoS 2 unless it has been, and counts it.
func (d *downlink) publish(a arrival, m mqtt.Message, done func(error)) (err error) {
	known := false
	if a.QoS == mqtt.ExactlyOnce {
		known, err = d.inbox.PublishOnce(d.link.alive(), a.id, m, done)
	} else {
		err = d.inbox.PublishAsync(d.link.alive(), m, done)
	}
	if err != nil || known {
		return err
	}
	d.monitor.update(func(s *Status) {
		s.In.Received++
		if a.again {
			s.In.Again++
		}
	})
	return nil
}

// release has the gateway forget the number of a message. The server is answered
// only then: a number that it uses again must not look like the old one.
func (d *downlink) release(id uint16, complete func()) {
	if done, ok := d.await(complete); ok {
		d.dropped.remove(id)
		d.inbox.Release(id, func(err error) { done <- err })
	}
}

// address says as what a is published here, or why it never is.
func (d *downlink) address(a arrival) (mqtt.Message, error) {
	rule, _ := ruleFor(d.cfg.In, a.Topic)
	stale := d.stale(a)
	switch {
	case rule == nil:
		return mqtt.Message{}, errUnmatched
	case a.tooLarge:
		return mqtt.Message{}, errPayload
	case d.echoes.own(a.Topic, a.Payload):
		return mqtt.Message{}, errEcho
	case rule.ValidFor > 0 && stale > time.Duration(rule.ValidFor):
		return mqtt.Message{}, errTooOld
	}
	to, err := rule.target(a.Topic)
	if err != nil {
		return mqtt.Message{}, err
	}
	m := a.Message
	m.Topic, m.Retain = to, m.Retain && rule.retains()
	m.QoS = min(m.QoS, rule.qos())
	if valid := time.Duration(rule.ValidFor); valid > 0 && (m.Expiry == 0 || m.Expiry > valid) {
		m.Expiry = valid
	}
	if d.circle.Returned(m.Topic, m.Payload) {
		return mqtt.Message{}, errEcho
	}
	return m, nil
}

// stale returns how old a may be at most, as far as is known. MQTT does not say:
// what the server had kept is as old as our absence at most, and what it retains
// may be of any age. The first quietTime without a message ends what was kept.
func (d *downlink) stale(a arrival) time.Duration {
	now := time.Now()
	d.current = d.current || d.missed == 0 || now.Sub(d.quiet) >= quietTime
	d.quiet = now
	switch {
	case a.Retain:
		return forEver
	case d.current:
		return 0
	}
	return d.missed
}

// forEver is an age that nothing is known of.
const forEver = time.Duration(1<<63 - 1)

// drop counts a message that is not carried, and says so once for each filter
// unless that is as it should be.
func (d *downlink) drop(a arrival, why error) {
	if a.QoS == mqtt.ExactlyOnce {
		d.dropped.add(a.id)
	}
	d.monitor.update(func(s *Status) { s.In.count(why) })
	_, filter := ruleFor(d.cfg.In, a.Topic)
	if errors.Is(why, errEcho) || d.warned["in "+filter] {
		return
	}
	d.warned["in "+filter] = true
	d.log.Warn("bridge drops messages from upstream that it cannot carry: check the rules of in",
		"topic", a.Topic, "filter", filter, "error", why)
}

// confirm acknowledges upstream, in order (MQTT 3.1.1, section 4.6), until the
// link is lost, or stop was called and nothing is left.
func (d *downlink) confirm() {
	for {
		select {
		case u := <-d.unsafe:
			if !d.acknowledge(u) {
				return
			}
			continue
		case <-d.link.alive().Done():
			return
		case <-d.stopping.Done():
		}
		select {
		case u := <-d.unsafe:
			if !d.acknowledge(u) {
				return
			}
		default:
			return
		}
	}
}

// acknowledge waits until u is safe, and says so to the server. A message that
// cannot be kept ends the link: the server sends it again over the next.
func (d *downlink) acknowledge(u unsafe) bool {
	select {
	case err := <-u.done:
		if err != nil {
			d.link.abort(&localError{"a message from upstream cannot be kept, so it will come again", err})
			return false
		}
		u.ack()
		return true
	case <-d.link.alive().Done():
		return false
	}
}

// Downward counts what came from upstream.
type Downward struct {
	Received  uint64 `json:"received"`  // messages published here
	Again     uint64 `json:"again"`     // those of them that the server may have sent before
	Echoes    uint64 `json:"echoes"`    // the bridge's own messages, sent back, and dropped
	Expired   uint64 `json:"expired"`   // older than valid_for, or of unknown age, and dropped
	Refused   uint64 `json:"refused"`   // too large, or without a lawful topic, and dropped
	Unmatched uint64 `json:"unmatched"` // came under rules that are gone, and dropped
}

func (d *Downward) count(why error) {
	switch {
	case errors.Is(why, errEcho):
		d.Echoes++
	case errors.Is(why, errTooOld):
		d.Expired++
	case errors.Is(why, errUnmatched):
		d.Unmatched++
	default:
		d.Refused++
	}
}
