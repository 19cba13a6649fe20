package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

const (
	// receive5 is how many messages the server may send before the first of them
	// is safe here. Each may have max_packet_size, and all wait in memory.
	receive5 = 32

	// maxAliases bounds the topics that are sent as numbers.
	maxAliases = 256

	// neverExpires is a session expiry interval (MQTT 5.0, section 3.1.2.11.2).
	neverExpires = 0xffffffff
)

// paho5Client is what every MQTT 5 client of a bridge has in common.
type paho5Client struct{ *pahoClient }

// paho5Link is a link in MQTT 5: a client and, under it, a connection that is ours.
type paho5Link struct {
	client  *paho5.Client
	wire    *wire
	out     publisher
	props   packet.Properties // room for those of the next PUBLISH
	session *session5
	kept    bool // the server had kept the session

	aliases  map[string]uint16 // topics that the server knows by a number
	most     int               // such topics
	window   int               // the server's receive maximum
	retains  bool              // the server takes retained messages
	maxBytes int               // of a packet that the server takes; 0: any

	intake *intake
	status string // of the client
}

// open is an openFunc.
func (c *paho5Client) open(ctx context.Context, server string) (link, error) {
	e, err := parseServer(server)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := c.streams.open(ctx, e)
	if err != nil {
		return nil, err
	}
	l := c.newLink(conn)
	defer context.AfterFunc(ctx, func() { l.wire.fail(context.Cause(ctx)) })() // paho's first write has no time-out
	answer, err := l.client.Connect(ctx, c.hello())
	switch {
	case answer != nil && answer.ReasonCode >= 0x80:
		return nil, failedAt(StepConnect, c.refused(e, packet.Reason(answer.ReasonCode), answer.Properties.ReasonString))
	case err != nil:
		return nil, failedAt(StepConnect, handshakeError(e, "MQTT 5", cmp.Or(context.Cause(ctx), err)))
	}
	if err := l.agree(answer); err != nil {
		l.close()
		return nil, failedAt(StepConnect, fmt.Errorf("%s %w", e.address, err))
	}
	c.streams.passed(StepConnect, "MQTT 5, client id "+c.clientID)
	l.say(online)
	return l, nil
}

func (c *paho5Client) newLink(conn net.Conn) *paho5Link {
	w := newWire(conn, c.keepalive+pongTime, c.stallTimeout, c.maxPacketSize)
	w.in.five = true
	l := &paho5Link{
		wire: w, out: publisher{wire: w}, session: newSession5(w), intake: newIntake(w), status: c.says(),
		aliases: make(map[string]uint16),
	}
	l.client = paho5.NewClient(paho5.ClientConfig{
		Conn:              &whole{wire: w},
		Session:           l.session,
		PingHandler:       pinger{c.keepalive},
		PacketTimeout:     connectTimeout,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){l.arrived},
		OnClientError:     w.fail,
	})
	return l
}

// hello is the CONNECT.
func (c *paho5Client) hello() *paho5.Connect {
	p := &paho5.Connect{
		ClientID:  c.clientID,
		KeepAlive: uint16(c.keepalive / time.Second),
		Username:  c.username, UsernameFlag: c.username != "",
		Password: []byte(c.password), PasswordFlag: c.password != "",
		CleanStart: !c.listens,
		Properties: &paho5.ConnectProperties{
			ReceiveMaximum:     paho5.Uint16(receive5),
			RequestProblemInfo: true,
		},
	}
	if c.maxPacketSize > 0 {
		p.Properties.MaximumPacketSize = paho5.Uint32(uint32(c.maxPacketSize))
	}
	if c.status != "" {
		p.WillMessage = &paho5.WillMessage{Topic: c.status, Payload: []byte(offline), QoS: byte(mqtt.AtLeastOnce), Retain: true}
	}
	if c.listens {
		p.Properties.SessionExpiryInterval = paho5.Uint32(neverExpires)
	}
	return p
}

// agree takes over what the server allows. Its error says why that is too little.
func (l *paho5Link) agree(answer *paho5.Connack) error {
	p := answer.Properties
	if p.MaximumQoS != nil && *p.MaximumQoS == 0 {
		return errors.New("takes messages at QoS 0 only, which loses them: choose another server")
	}
	l.kept = answer.SessionPresent
	l.window = int(orElse(p.ReceiveMaximum, 65535))
	l.most = min(maxAliases, int(orElse(p.TopicAliasMaximum, 0)))
	l.maxBytes = int(orElse(p.MaximumPacketSize, 0))
	l.retains = p.RetainAvailable
	l.wire.arm()
	return nil
}

func orElse[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

func (l *paho5Link) limit() int { return l.window }

// say has the server keep whether we are connected, as long as it listens.
func (l *paho5Link) say(status string) {
	if l.status != "" && l.wire.alive.Err() == nil {
		_ = l.publish(mqtt.Message{Topic: l.status, Payload: []byte(status), Retain: true}, nil) // the wire knows
		l.flush()
	}
}

func (l *paho5Link) flush() { l.wire.flush() }

// publish writes the packet itself, as in MQTT 3.1.1.
func (l *paho5Link) publish(m mqtt.Message, o owner) error {
	p := l.out.prepare(packet.V5, m)
	p.Retain = p.Retain && l.retains
	alias, known := l.alias(m.Topic)
	l.props = appendProperties(l.props[:0], m)
	if alias != 0 {
		l.props = l.props.AppendUint(packet.PropTopicAlias, uint32(alias))
	}
	if p.Properties = l.props; known {
		p.Topic = nil
	}
	err := l.out.send(p, o, l.maxBytes)
	if err == nil && alias != 0 && !known {
		l.aliases[m.Topic] = alias
	}
	return err
}

// appendProperties appends those that belong to m.
func appendProperties(p packet.Properties, m mqtt.Message) packet.Properties {
	if m.Expiry > 0 {
		p = p.AppendUint(packet.PropMessageExpiry, uint32(min(m.Expiry/time.Second, 0xffffffff)))
	}
	from := m.Properties
	if from == nil {
		return p
	}
	if from.UTF8 {
		p = p.AppendUint(packet.PropPayloadFormat, 1)
	}
	for _, text := range []struct {
		id packet.Property
		of string
	}{
		{packet.PropContentType, from.ContentType},
		{packet.PropResponseTopic, from.ResponseTopic},
		{packet.PropCorrelationData, string(from.CorrelationData)},
	} {
		if text.of != "" {
			p = p.AppendText(text.id, text.of)
		}
	}
	for _, u := range from.User {
		p = p.AppendUser(u.Name, u.Value)
	}
	return p
}

// alias returns the number of a topic, and whether the server knows it by that already.
// 0: it is one of too many (MQTT 5.0, section 3.3.2.3.4). Topics never lose theirs.
func (l *paho5Link) alias(topic string) (id uint16, known bool) {
	if id, known = l.aliases[topic]; known || len(l.aliases) >= l.most {
		return id, known
	}
	return uint16(len(l.aliases) + 1), false
}

func (l *paho5Link) listen(ctx context.Context, subs []mqtt.Subscription, to taker) error {
	l.intake.begin(to)
	if len(subs) == 0 {
		return nil
	}
	p := &paho5.Subscribe{}
	for _, sub := range subs {
		p.Subscriptions = append(p.Subscriptions, paho5.SubscribeOptions{
			Topic: sub.Filter, QoS: byte(sub.QoS),
			NoLocal: sub.NoLocal && !strings.HasPrefix(sub.Filter, "$share/"), // [MQTT-3.8.3-4]

			RetainAsPublished: sub.RetainAsPublished,
		})
	}
	ctx, cancel := l.within(ctx)
	defer cancel()
	answer, err := l.client.Subscribe(ctx, p)
	if answer == nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	granted := make(map[string]byte)
	for i, reason := range answer.Reasons {
		if i < len(subs) {
			granted[subs[i].Filter] = reason
		}
	}
	return refusedError(granted)
}

func (l *paho5Link) unlisten(ctx context.Context, filters []string) error {
	ctx, cancel := l.within(ctx)
	defer cancel()
	if _, err := l.client.Unsubscribe(ctx, &paho5.Unsubscribe{Topics: filters}); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return nil
}

// within returns ctx that is also done when the connection is lost.
func (l *paho5Link) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.wire.alive, func() { cancel(context.Cause(l.wire.alive)) })
	return ctx, func() { stop(); cancel(nil) }
}

func (l *paho5Link) arrived(received paho5.PublishReceived) (bool, error) {
	p := received.Packet
	l.intake.take(arrival{
		Message: message5(p),
		id:      p.PacketID,
		again:   p.Duplicate(),
		ack:     func() { l.session.acknowledge(p.PacketID, p.QoS) },
	})
	return true, nil
}

// message5 is what p carries, the reverse of appendProperties.
func message5(p *paho5.Publish) mqtt.Message {
	m := mqtt.Message{Topic: p.Topic, Payload: p.Payload, QoS: mqtt.QoS(p.QoS), Retain: p.Retain}
	from := p.Properties
	m.Expiry = time.Duration(orElse(from.MessageExpiry, 0)) * time.Second
	props := mqtt.Properties{
		UTF8: orElse(from.PayloadFormat, 0) == 1, ContentType: from.ContentType,
		ResponseTopic: from.ResponseTopic, CorrelationData: from.CorrelationData,
	}
	for _, u := range from.User {
		props.User = append(props.User, mqtt.UserProperty{Name: u.Key, Value: u.Value})
	}
	m.Properties = &props
	return m
}

func (l *paho5Link) heard() time.Time { return l.wire.heard() }

func (l *paho5Link) resumed() bool { return l.kept }

func (l *paho5Link) alive() context.Context { return l.wire.alive }

func (l *paho5Link) abort(cause error) { l.wire.fail(cause) }

func (l *paho5Link) close() {
	l.wire.hurry(closeTimeout / 2) // for a DISCONNECT that nobody reads
	l.say(offline)
	l.wire.release()
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = l.client.Disconnect(&paho5.Disconnect{})
	}()
	limit := time.NewTimer(closeTimeout)
	defer limit.Stop()
	select {
	case <-left:
	case <-limit.C:
	}
	l.wire.fail(net.ErrClosed)
}

// refused says why the server at e did not accept us, and what to do.
func (c *paho5Client) refused(e endpoint, reason packet.Reason, said string) error {
	err := &refusal{reason, said}
	switch reason {
	case packet.ReasonBadUsernameOrPassword:
		return fmt.Errorf("%s refuses user %q, %w: check username and password_file", e.address, c.username, err)
	case packet.ReasonNotAuthorized, packet.ReasonBanned:
		return fmt.Errorf("%s refuses user %q with client id %q, %w: check username and password_file, and what the server allows them%s", e.address, c.username, c.clientID, err, c.orWill())
	case packet.ReasonClientIDNotValid:
		return fmt.Errorf("%s refuses client id %q, %w: set client_id to one that it allows", e.address, c.clientID, err)
	case packet.ReasonRetainNotSupported, packet.ReasonTopicNameInvalid:
		return fmt.Errorf("%s refuses the retained will on %q, %w: write will: false", e.address, c.status, err)
	case packet.ReasonUnsupportedVersion:
		return fmt.Errorf("%s refuses MQTT 5, %w: write protocol: 4", e.address, err)
	}
	return fmt.Errorf("%s refuses for now, %w: ask who runs it", e.address, err)
}

// refusal is what a server says in MQTT 5 when it does not take something.
type refusal struct {
	reason packet.Reason
	said   string // the server's own words, if it has any
}

func (r *refusal) Error() string {
	if r.said == "" {
		return r.reason.String()
	}
	return fmt.Sprintf("%v (%q)", r.reason, r.said)
}

// whole is a wire that takes packets in parts. Paho writes them so, and locks the
// connection around them so that they do not mix.
type whole struct {
	*wire
	mu     sync.Mutex // held from Lock to Unlock, where nothing waits
	packet []byte
}

func (p *whole) Lock() {
	p.out.room()
	p.mu.Lock()
}

func (p *whole) Write(b []byte) (int, error) {
	p.packet = append(p.packet, b...)
	return len(b), nil
}

func (p *whole) Unlock() {
	p.out.put(p.packet)
	if p.packet = p.packet[:0]; cap(p.packet) > maxGathered {
		p.packet = nil
	}
	p.mu.Unlock()
	if err := p.sent(p.out.drive()); err != nil {
		p.fail(err)
	}
}
