package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"tidegate/broker/auth"
	"tidegate/mqtt/packet"
)

// What one authentication may take, beside connect_timeout. No method that is in
// use comes near.
const (
	maxSteps     = 16
	maxStepBytes = 64 << 10
)

var (
	errNoProof   = fmt.Errorf("%w: the authentication was not ended in time", auth.ErrNotAuthorized)
	errLongProof = &packet.Error{
		Reason: packet.ReasonQuotaExceeded, ID: "MQTT-4.13.1-1",
		Text: fmt.Sprintf("the authentication takes more than %d steps or %d bytes", maxSteps, maxStepBytes),
	}
)

// exchange is the authentication in steps of a client that named a method in its
// CONNECT (MQTT 5.0, section 4.12). It is of the reading goroutine.
type exchange struct {
	method   string
	begin    func(auth.Request) auth.Step
	user     string      // whom the client has to prove to be; "": anybody, or if it is connected nobody
	waiting  *arrival    // the CONNECT that is to be answered; nil: the client is connected
	step     auth.Step   // nil: nothing is under way
	deadline int64       // broker time by which it has to end
	timer    *time.Timer // of that, once the client is connected
	steps    int
	bytes    int // that the client has sent
}

// beginExchange begins to authenticate a client with the method that it asks for.
func (c *conn) beginExchange(t *turn, a *arrival, method string) error {
	m := c.b.hooks.Methods[method]
	if m == nil { // [MQTT-4.12.0-1]
		c.b.stats.badCredentials.Add(1)
		return c.refuse(t, a, fmt.Errorf("%w: %q", errMethod, brief(method)))
	}
	c.version = a.Version
	c.exchange = &exchange{method: method, begin: m.Begin, user: c.certifiedUser(), waiting: a, deadline: c.deadline}
	data, _ := a.Properties.Bytes(packet.PropAuthData)
	return c.advance(t, auth.Request{
		ClientID: a.ClientID, User: a.Username, HasUser: a.HasUsername, Password: a.Password, Remote: c.client.Remote,
	}, data)
}

var errMethod = errors.New("there is no such authentication method here")

// proceed handles a packet of a client whose CONNECT waits for its proof: it must
// send nothing but AUTH and DISCONNECT [MQTT-3.1.2-30].
func (c *conn) proceed(t *turn, f packet.Frame) error {
	switch f.Type() {
	case packet.TypeAuth:
		return c.auth(t, f)
	case packet.TypeDisconnect:
		if err := new(packet.Disconnect5).Decode(f); err != nil {
			return err
		}
		return errDisconnected
	}
	return c.refuse(t, c.exchange.waiting, &packet.Error{
		Reason: packet.ReasonProtocolError, ID: "MQTT-3.1.2-30", Text: fmt.Sprintf("%s before the authentication has ended", f.Type()),
	})
}

// auth handles an AUTH (MQTT 5.0, section 3.15).
func (c *conn) auth(t *turn, f packet.Frame) error {
	var p packet.Auth
	err := p.Decode(f)
	if err == nil {
		err = c.exchange.accepts(&p)
	}
	switch {
	case err == nil:
	case c.s == nil:
		return c.refuse(t, c.exchange.waiting, err)
	default:
		return err
	}
	if p.Reason == packet.ReasonReauthenticate {
		c.renew()
	}
	data, _ := p.Properties.Bytes(packet.PropAuthData)
	return c.advance(t, auth.Request{ClientID: c.client.ID, User: c.client.User, HasUser: true, Remote: c.client.Remote}, data)
}

// accepts says which rule an AUTH breaks, or nil.
func (x *exchange) accepts(p *packet.Auth) error {
	wrong := func(id, text string) error {
		return &packet.Error{Reason: packet.ReasonProtocolError, ID: id, Text: text}
	}
	switch {
	case x == nil:
		return wrong("MQTT-4.12.0-7", "AUTH from a client that has named no authentication method")
	case p.Properties.Text(packet.PropAuthMethod) != x.method:
		return wrong("MQTT-4.12.0-5", "AUTH with another authentication method than the CONNECT")
	case p.Reason == packet.ReasonReauthenticate && x.step != nil:
		return wrong("MQTT-4.12.0-3", "AUTH begins an authentication while one is under way")
	case p.Reason == packet.ReasonContinueAuthentication && x.step == nil:
		return wrong("MQTT-4.12.0-3", "AUTH goes on with an authentication that nobody has begun")
	}
	return nil
}

// renew lets a connected client begin an authentication. Until it ends the last
// one counts, and other packets go on (section 4.12.1).
func (c *conn) renew() {
	x, limit := c.exchange, time.Duration(c.b.cfg.Limits.ConnectTimeout)
	x.steps, x.bytes, x.user = 0, 0, c.client.User
	x.deadline = c.turn.now + int64(limit)
	x.timer = time.AfterFunc(limit, func() { c.end(errNoProof) })
}

// advance lets the program see what the client has sent, and the client what comes
// of it.
func (c *conn) advance(t *turn, r auth.Request, data []byte) error {
	x := c.exchange
	t.end() // it may take long
	reply, err := c.callStep(x, r, data)
	t.begin()
	switch {
	case err == nil && !reply.Done:
		return c.sendAuth(t, packet.ReasonContinueAuthentication, reply.Data)
	case x.waiting != nil:
		a := x.waiting
		a.proof = reply.Data
		x.stop()
		return c.admit(t, a, auth.Identity{User: reply.User, ClientID: a.ClientID}, err)
	case err != nil: // [MQTT-4.12.1-2]
		return fmt.Errorf("%w: the client cannot prove again who it is: %w", auth.ErrNotAuthorized, err)
	}
	x.stop()
	return c.sendAuth(t, packet.ReasonSuccess, reply.Data)
}

// stop notes that nothing is under way any more.
func (x *exchange) stop() {
	x.step, x.waiting = nil, nil
	if x.timer != nil {
		x.timer.Stop()
	}
}

// callStep calls the program, for the first step after it has begun.
func (c *conn) callStep(x *exchange, r auth.Request, data []byte) (reply auth.Reply, err error) {
	x.steps++
	if x.bytes += len(data); x.steps > maxSteps || x.bytes > maxStepBytes {
		return reply, errLongProof
	}
	defer caught(c.log, "Method", &err)
	if x.step == nil {
		x.step = x.begin(r)
	}
	ctx, cancel := context.WithTimeout(life{c}, time.Duration(x.deadline-c.b.now()))
	defer cancel()
	if reply, err = x.step(ctx, bytes.Clone(data)); err == nil {
		err = x.check(&reply)
	}
	if err != nil {
		return auth.Reply{}, refusal{err}
	}
	return reply, nil
}

// check says what is wrong with a reply, and completes it.
func (x *exchange) check(r *auth.Reply) error {
	switch {
	case len(r.Data) > math.MaxUint16:
		return fmt.Errorf("the authentication method answers %d bytes, at most %d are possible", len(r.Data), math.MaxUint16)
	case r.Done && r.User != x.user && (x.user != "" || x.waiting == nil):
		return fmt.Errorf("%w: the client proves to be user %q, and has to be %q", auth.ErrNotAuthorized, r.User, x.user)
	}
	return nil
}

// sendAuth sends a step of the broker, or ends the connection of a client that
// does not take it.
func (c *conn) sendAuth(t *turn, reason packet.Reason, data []byte) error {
	p := packet.Auth{Reason: reason, Properties: c.exchange.properties(data)}
	f := c.five.Load()
	if f == nil {
		f = c.exchange.waiting.five
	}
	raw := p.Append(nil)
	if f.takes(len(raw)) {
		c.flushIf(t, c.out.packet(raw))
		return nil
	}
	err := &packet.Error{
		Reason: packet.ReasonPacketTooLarge, ID: "MQTT-3.1.2-24",
		Text: fmt.Sprintf("AUTH has %d bytes, more than the client takes", len(raw)),
	}
	if c.s == nil {
		return c.refuse(t, c.exchange.waiting, err)
	}
	return err
}

// properties are those of an AUTH, and of the CONNACK that ends it well
// [MQTT-4.12.0-5].
func (x *exchange) properties(data []byte) packet.Properties {
	p := packet.Properties(nil).AppendText(packet.PropAuthMethod, x.method)
	if data != nil {
		p = p.AppendText(packet.PropAuthData, string(data))
	}
	return p
}
