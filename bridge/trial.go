package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"tidegate/mqtt"
)

const (
	// slowStep is how long a step may take before its finding says so.
	slowStep = 2 * time.Second

	// echoTimeout bounds the way of a message to the server and back.
	echoTimeout = 10 * time.Second
)

// Trial tries whether the servers of a bridge work, each step by step, without
// a word to the bridge: as a client of its own, on a topic of its own, with a
// clean session and nothing retained.
type Trial struct {
	Config  Config           // checked
	Gateway string           // its name
	Topic   string           // upstream, for the echo; "": that of the gateway itself, see Check
	Now     func() time.Time // for certificates; nil: what the system says

	dial   dialFunc // nil: that of the network
	lookup func(ctx context.Context, host string) ([]string, error)
}

// Finding is what became of one step of a [Trial].
type Finding struct {
	Server  string  `json:"server"`
	Step    Step    `json:"step"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Text    string  `json:"text"` // what was found, or what is wrong and what to do
}

// Run tries one server and hands each finding to report as soon as there is one.
// It reports whether all steps work.
func (t *Trial) Run(ctx context.Context, server string, report func(Finding)) (works bool) {
	r := &attempt{Trial: t, server: server, report: report, began: time.Now(), works: true}
	e, err := parseServer(server)
	if err == nil {
		err = r.resolve(ctx, e.host)
	}
	if err == nil {
		err = r.talk(ctx)
	}
	if err != nil {
		step := StepDNS
		if at := (*stepError)(nil); errors.As(err, &at) {
			step = at.step
		}
		r.failed(step, err)
	}
	return r.works
}

// attempt is one Run.
type attempt struct {
	*Trial
	server string
	report func(Finding)
	began  time.Time // the step
	works  bool
}

func (r *attempt) passed(step Step, text string) {
	took := time.Since(r.began)
	if took > slowStep {
		text = strings.TrimPrefix(text+"; slow: the bridge gives up after "+connectTimeout.String(), "; ")
	}
	r.tell(Finding{Server: r.server, Step: step, OK: true, Text: text})
}

func (r *attempt) failed(step Step, err error) {
	r.works = false
	r.tell(Finding{Server: r.server, Step: step, Text: err.Error()})
}

func (r *attempt) tell(f Finding) {
	f.Seconds = time.Since(r.began).Seconds()
	r.report(f)
	r.began = time.Now()
}

// resolve looks the name up before the connection does it once more.
func (r *attempt) resolve(ctx context.Context, host string) error {
	if net.ParseIP(host) != nil {
		r.passed(StepDNS, "not needed: "+host+" is an address")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	lookup := r.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	addresses, err := lookup(ctx, host)
	if err != nil {
		return dialError(host, err)
	}
	r.passed(StepDNS, strings.Join(addresses, ", "))
	return nil
}

// talk connects as a client of its own, subscribes, and sends a message to itself.
func (r *attempt) talk(ctx context.Context) error {
	dial := r.dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	s := &streams{dial: dial, tls: r.Config.TLS, now: r.Now, watch: r.passed}
	client := r.Config.client(s, r.Config.clientID(r.Gateway)+"-test")
	l, err := client.opener(r.Config.Protocol)(ctx, r.server)
	if err != nil {
		return err
	}
	err = r.listenAndEcho(ctx, l)
	l.close()
	if err != nil {
		return err
	}
	s.watch = nil
	return r.leaveWill(ctx, client)
}

// leaveWill connects once more, with the bridge's will: a server may refuse just that. It
// takes leave at once, so that the server forgets it.
func (r *attempt) leaveWill(ctx context.Context, client *pahoClient) error {
	if client.status = r.Config.statusTopic(r.Gateway); client.status == "" {
		return nil
	}
	client.mute = true
	r.began = time.Now()
	l, err := client.opener(r.Config.Protocol)(ctx, r.server)
	if at := (*stepError)(nil); errors.As(err, &at) && at.step == StepConnect {
		return failedAt(StepWill, fmt.Errorf("with a will on %q: %w", client.status, err))
	}
	if err != nil {
		return err
	}
	l.close()
	r.passed(StepWill, client.status)
	return nil
}

// listenAndEcho subscribes to what the bridge would, and to the topic of the echo.
func (r *attempt) listenAndEcho(ctx context.Context, l link) error {
	topic := r.Topic
	if topic == "" {
		topic = r.Config.own("gateway/" + r.Gateway + "/test")
	}
	subs := r.Config.wanted()
	if topic != "" {
		subs = append(subs, mqtt.Subscription{Filter: topic, QoS: mqtt.AtLeastOnce})
	}
	payload := fmt.Sprintf("tidegate bridge test, %s", time.Now().UTC().Format(time.RFC3339Nano))
	back := make(chan struct{}, 1)
	err := l.listen(ctx, subs, listener{topic, payload, back})
	blind, err := r.subscribed(subs, topic, err)
	if err != nil || topic == "" {
		return err
	}
	m := mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: mqtt.AtLeastOnce}
	return failedAt(StepEcho, r.echo(ctx, l, m, back, blind))
}

// listener is a taker that waits for one message.
type listener struct {
	topic, payload string
	back           chan<- struct{} // has room for one
}

func (l listener) take(a arrival) {
	if a.Topic == l.topic && string(a.Payload) == l.payload {
		select {
		case l.back <- struct{}{}:
		default:
		}
	}
	a.ack()
}

func (listener) release(_ uint16, complete func()) { complete() }

// subscribed says how subscribing went. It is blind if nothing can be read on the
// topic of the echo, which no bridge needs.
func (r *attempt) subscribed(subs []mqtt.Subscription, topic string, err error) (blind bool, fatal error) {
	var refused *subscribeError
	if err != nil && !errors.As(err, &refused) {
		return false, failedAt(StepSubscribe, listenError(r.server, r.Config.clientID(r.Gateway), err))
	}
	if refused != nil {
		blind = slices.Contains(refused.filters, topic)
		refused.filters = slices.DeleteFunc(refused.filters, func(f string) bool { return f == topic })
	}
	switch {
	case refused != nil && len(refused.filters) > 0:
		r.failed(StepSubscribe, refused)
	case len(subs) > 0:
		filters := make([]string, len(subs))
		for i, s := range subs {
			filters[i] = s.Filter
		}
		r.passed(StepSubscribe, strings.Join(filters, ", "))
	}
	return blind, nil
}

// echo sends m and waits for its acknowledgement, and for m itself unless blind.
func (r *attempt) echo(ctx context.Context, l link, m mqtt.Message, back <-chan struct{}, blind bool) error {
	ctx, cancel := context.WithTimeout(ctx, echoTimeout)
	defer cancel()
	switch err := r.ask(ctx, l, m); {
	case err != nil:
		return err
	case blind:
		r.passed(StepEcho, fmt.Sprintf("acknowledged; whether it arrives is not seen, since this user may not read %q", m.Topic))
		return nil
	}
	select {
	case <-back:
		r.passed(StepEcho, m.Topic)
		return nil
	case <-l.alive().Done():
		return lostError(r.server, r.Config.clientID(r.Gateway), 0, context.Cause(l.alive()))
	case <-ctx.Done():
		return fmt.Errorf("%s acknowledges a message on %q but does not deliver it back within %v: it must allow this user to publish and to read there, or else drops messages without a word", r.server, m.Topic, echoTimeout)
	}
}

// ask sends m and waits for its acknowledgement.
func (r *attempt) ask(ctx context.Context, l link, m mqtt.Message) error {
	said := make(verdict, 1)
	if err := l.publish(m, said); err != nil {
		said <- err
	}
	l.flush()
	select {
	case err := <-said:
		if err != nil {
			return fmt.Errorf("%s refuses a message on %q: %w", r.server, m.Topic, err)
		}
		return nil
	case <-l.alive().Done():
		return lostError(r.server, r.Config.clientID(r.Gateway), 0, context.Cause(l.alive()))
	case <-ctx.Done():
		return &stallError{r.server, echoTimeout}
	}
}

// verdict is the owner of one message. It has room for what is said of it.
type verdict chan error

func (v verdict) acknowledged(err error) { v <- err }

func (verdict) rest() {}

// clientID returns the id that the bridge of gateway uses.
func (c *Config) clientID(gateway string) string {
	return cmp.Or(c.ClientID, mqtt.GatewayClient+gateway+"-"+c.Name)
}

// statusTopic returns the topic upstream on which the server keeps whether the bridge is
// connected, "" if it does not.
func (c *Config) statusTopic(gateway string) string {
	if !*c.Will {
		return ""
	}
	return c.own("gateway/" + gateway + "/status")
}

// own returns the topic upstream of what a gateway says about itself on topic:
// that of the rule that carries it, or else under the first prefix. "" if nothing
// goes up at all.
func (c *Config) own(topic string) string {
	if r, _ := ruleFor(c.Out, topic); r != nil {
		if to, err := r.target(topic); err == nil {
			return to
		}
	}
	if len(c.Out) == 0 {
		return ""
	}
	return c.Out[0].Prefix + topic
}
