package broker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"tidegate/broker/auth"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// admit lets the client in that has proved to be who, if err is nil and it may
// leave its will. If not it answers the CONNECT and returns why.
func (c *conn) admit(t *turn, a *arrival, who auth.Identity, err error) error {
	if err == nil && len(who.User) > math.MaxUint16 {
		err = fmt.Errorf("the user name has %d bytes, at most %d are possible", len(who.User), math.MaxUint16)
	}
	c.client.User = who.User
	if err == nil && a.Will != nil {
		err = c.mayWrite(a.Will.Topic)
	}
	switch {
	case err == nil:
		return c.welcome(t, a)
	case errors.Is(err, auth.ErrBadCredentials):
		c.b.stats.badCredentials.Add(1)
	case errors.Is(err, auth.ErrNotAuthorized):
		c.b.stats.notAuthorized.Add(1)
	}
	return c.refuse(t, a, err)
}

// authenticate finds out who the client is, in what is left of connect_timeout. A
// certificate that stands for a user name proves more than a password.
func (c *conn) authenticate(p *packet.Connect) (who auth.Identity, err error) {
	if user := c.certifiedUser(); user != "" {
		return auth.Identity{User: user, ClientID: p.ClientID}, nil
	}
	defer caught(c.log, "Authenticator", &err)
	ctx, cancel := context.WithTimeout(life{c}, time.Duration(c.deadline-c.b.now()))
	defer cancel()
	who, err = c.b.access.Load().authenticator.Authenticate(ctx, auth.Request{
		ClientID: p.ClientID, User: p.Username, HasUser: p.HasUsername, Password: p.Password, Remote: c.client.Remote,
	})
	if err != nil {
		return auth.Identity{}, refusal{err}
	}
	return who, nil
}

// refusal is what a hook says to a stranger. It bounds what that writes into the
// log, and its text is not for the stranger.
type refusal struct{ error }

func (r refusal) Error() string { return brief(r.error.Error()) }
func (r refusal) Unwrap() error { return r.error }

// brief cuts a text from outside down to what a log line should have.
func brief(s string) string {
	if len(s) <= 200 {
		return s
	}
	return s[:200] + "..."
}

// verdict is what becomes of a publication of a client.
type verdict struct {
	drop   bool          // nobody gets it; the client is answered nevertheless
	reason packet.Reason // of that answer, in MQTT 5
	why    error         // ... in words; nil: the client is to believe that all is well
}

// route passes a publication of the client on, unless that must not be.
func (c *conn) route(t *turn, p *publication) error {
	v, err := c.judge(t, p)
	switch {
	case err != nil:
		return err
	case v.drop:
		c.turnDown(t, p, v.reason, v.why)
		return nil
	}
	if c.parked.any() { // what comes behind stays behind
		return c.park(t, p)
	}
	if err = c.pass(t, p); errors.Is(err, errFull) {
		return c.park(t, p)
	}
	return err
}

// turnDown answers a publication that goes nowhere. Only MQTT 5 has words for it;
// after a failure the client does not release a QoS 2 message [MQTT-4.3.3-9].
func (c *conn) turnDown(t *turn, p *publication, reason packet.Reason, why error) {
	if p.qos == mqtt.AtMostOnce {
		return
	}
	if c.version == packet.V5 && reason.Failed() {
		f := c.five.Load()
		ack := packet.Ack{Type: packet.TypePuback, Reason: reason, Properties: f.because(reason, why)} // a PUBREC has the same size
		f.fit(&ack.Properties, ack.Append)
		id := c.out.explain(p.waiter.turn, reason, ack.Properties)
		if p.receipt != nil {
			c.s.takeReceipt(id, p.receipt)
			c.out.arrived()
		}
	}
	p.waiter.tellNow(t)
}

// maxExplained is how many answers in a row may keep words of explanation while
// they wait for those before them.
const maxExplained = 16

// explain gives a reason to an answer that is owed, in words if there is room for
// them, and returns the packet identifier that it is for.
func (o *output) explain(n uint64, reason packet.Reason, words packet.Properties) (id uint16) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ack := &o.answers.at(int(n - o.first)).ack
	ack.Reason = reason
	if n-o.first < maxExplained {
		ack.Properties = words
	}
	return ack.ID
}

// judge decides what becomes of a publication, and may change it. An error ends
// the connection.
func (c *conn) judge(t *turn, p *publication) (verdict, error) {
	if p.wrong != nil { // a client whose connection ended would send it again for ever
		v := c.deny(string(p.topic), p.wrong)
		v.reason = packet.ReasonPayloadFormatInvalid
		return v, nil
	}
	if c.b.access.Load().authorizer != nil || p.topic[0] == '$' {
		err := c.mayWrite(string(p.topic))
		switch {
		case errors.Is(err, errHook):
			return verdict{}, err
		case err != nil:
			return c.deny(string(p.topic), err), nil
		}
	}
	if c.returned(p) {
		return verdict{drop: true}, nil
	}
	if c.b.hooks.Publish == nil {
		return verdict{}, nil
	}
	t.end() // it may take long
	defer t.begin()
	return c.change(life{c}, p)
}

// lastWill returns the will as the program wants it, or nil. It is asked when the
// connection ends, also if the will is held back then.
func (c *conn) lastWill(t *turn) *packet.Will {
	if c.will == nil || c.b.hooks.Publish == nil {
		return c.will
	}
	w := *c.will
	p := publication{topic: []byte(w.Topic), payload: w.Payload, qos: w.QoS, retain: w.Retain}
	t.end()
	defer t.begin()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.b.cfg.Limits.ConnectTimeout))
	defer cancel()
	v, err := c.change(ctx, &p)
	if err != nil {
		c.log().Error("cannot publish the will", "topic", brief(w.Topic), "error", err)
	}
	if err != nil || v.drop {
		return nil
	}
	w.Topic, w.Payload, w.Retain = string(p.topic), p.payload, p.retain
	return &w
}

// mayLeave reports whether the will that a client has left behind may be
// published now. What it was allowed when it connected may have changed since.
func (s *session) mayLeave(w *packet.Will) bool {
	s.mu.Lock()
	who := s.identity
	s.mu.Unlock()
	ok, _ := s.b.access.Load().may(who, auth.Write, w.Topic)
	if !ok {
		s.b.stats.publicationsDenied.Add(1)
		s.b.log.Warn("refused a will", "client", brief(s.id), "topic", brief(w.Topic), "reason", auth.ErrNotAuthorized)
	}
	return ok
}

// mayWrite says why the client must not publish to topic, or nil. What the broker
// says about itself nobody else does (section 4.7.2), but for the bridges of other
// brokers, and the queues of bridges are filled by rules and servers.
func (c *conn) mayWrite(topic string) error {
	switch {
	case strings.HasPrefix(topic, "$SYS/") && !strings.HasPrefix(topic, sysPrefix+"connection/"):
		return fmt.Errorf("%w to publish to %q, which is the broker's", auth.ErrNotAuthorized, brief(topic))
	case strings.HasPrefix(topic, "$bridge/"):
		return fmt.Errorf("%w to publish to %q, which is for the bridges", auth.ErrNotAuthorized, brief(topic))
	}
	return c.may(auth.Write, topic, "publish to")
}

// maySubscribe says why the client must not have a subscription, or nil.
func (c *conn) maySubscribe(filter string) error {
	err := c.may(auth.Subscribe, unshared(filter), "subscribe to")
	switch {
	case errors.Is(err, errHook):
		c.end(err)
	case err != nil:
		c.b.stats.subscriptionsDenied.Add(1)
		c.event(Denied, filter, err)
	}
	return err
}

func (c *conn) may(do auth.Action, topic, words string) error {
	ok, err := c.b.access.Load().may(c.client.identity(), do, topic)
	if err == nil && !ok {
		err = fmt.Errorf("%w to %s %q", auth.ErrNotAuthorized, words, brief(topic))
	}
	return err
}

// maxTold is how many topics of one connection the log says are denied. A client
// that goes on and on must not fill the disk.
const maxTold = 16

// deny counts a publication that the client has no right to and says so in the
// log, once for each topic.
func (c *conn) deny(topic string, why error) verdict {
	c.b.stats.publicationsDenied.Add(1)
	c.event(Denied, topic, why)
	if topic = brief(topic); !c.told[topic] && len(c.told) < maxTold {
		if c.told == nil {
			c.told = make(map[string]bool)
		}
		c.told[topic] = true
		c.log().Warn("refused a message; others to this topic are refused silently", "topic", topic, "reason", why, "more_topics_are_named", len(c.told) < maxTold)
	}
	if errors.Is(why, auth.ErrNotAuthorized) {
		return verdict{drop: true, reason: packet.ReasonNotAuthorized, why: why}
	}
	return verdict{drop: true, reason: packet.ReasonImplementationError, why: why}
}

// life is a context that ends with a connection.
type life struct{ c *conn }

func (life) Deadline() (time.Time, bool) { return time.Time{}, false }
func (life) Value(any) any               { return nil }
func (l life) Done() <-chan struct{}     { return l.c.done }

func (l life) Err() error {
	select {
	case <-l.c.done:
		return context.Canceled
	default:
		return nil
	}
}
