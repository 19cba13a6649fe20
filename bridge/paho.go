package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

const (
	// connectTimeout bounds DNS, TCP, TLS, WebSocket and CONNECT together.
	connectTimeout = 10 * time.Second

	// pongTime is added to keepalive for the silence that ends a link: paho
	// looks every five seconds whether a ping is due, and the server may take
	// ten to answer.
	pongTime = 15 * time.Second

	// closeTimeout bounds the leave-taking. A paho client that takes longer
	// is abandoned: it holds nothing but its own goroutines.
	closeTimeout = time.Second
)

// pahoClient is what every client of a bridge has in common. A client lives as
// long as its connection and never reconnects: paho's own reconnecting completes
// tokens without an acknowledgement, and its sessions keep tokens for ever.
type pahoClient struct {
	clientID, username, password string
	keepalive, stallTimeout      time.Duration
	streams                      *streams
	maxPacketSize                int    // of what the server sends
	listens                      bool   // the server is to keep a session with what it owes us
	status                       string // topic where the server keeps whether we are connected; "": none
	mute                         bool   // that is only left as the will, and not said
}

// says returns the topic of what a link says of itself; "": nothing is said.
func (c *pahoClient) says() string {
	if c.mute {
		return ""
	}
	return c.status
}

// pahoLink is a link: a client and, under it, a connection that is ours.
type pahoLink struct {
	client paho.Client
	wire   *wire
	out    publisher
	kept   bool // the server had kept the session

	intake *intake
	status string // of the client
}

// What the server keeps at pahoClient.status, retained.
const (
	online  = "online"
	offline = "offline" // its will, too
)

// client returns a client of c's servers called id, which is to keep no session.
func (c *Config) client(s *streams, id string) *pahoClient {
	return &pahoClient{
		clientID:      id,
		username:      c.Username,
		password:      c.Password,
		keepalive:     time.Duration(c.Keepalive),
		stallTimeout:  time.Duration(c.StallTimeout),
		streams:       s,
		maxPacketSize: int(c.MaxPacketSize),
	}
}

// opener returns the openFunc for a version of MQTT, as in the configuration.
func (c *pahoClient) opener(protocol int) openFunc {
	if protocol == 5 {
		return (&paho5Client{c}).open
	}
	return c.open
}

// open is an openFunc.
func (c *pahoClient) open(ctx context.Context, server string) (link, error) {
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
	l := c.newLink(conn, server)
	if err := l.connect(ctx); err != nil {
		return nil, failedAt(StepConnect, c.connectError(e, err))
	}
	c.streams.passed(StepConnect, "MQTT 3.1.1, client id "+c.clientID)
	l.say(online)
	return l, nil
}

func (c *pahoClient) newLink(conn net.Conn, server string) *pahoLink {
	w := newWire(conn, c.keepalive+pongTime, c.stallTimeout, c.maxPacketSize)
	l := &pahoLink{wire: w, out: publisher{wire: w}, intake: newIntake(w), status: c.says()}
	o := paho.NewClientOptions().
		AddBroker(server).
		SetProtocolVersion(4). // no second try with MQTT 3.1
		SetClientID(c.clientID).
		SetUsername(c.username).
		SetPassword(c.password).
		SetCleanSession(!c.listens).
		SetStore(noStore{}).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetResumeSubs(false).
		SetOrderMatters(true).
		SetAutoAckDisabled(true).
		SetConnectTimeout(connectTimeout).
		SetKeepAlive(c.keepalive).
		SetPingTimeout(2 * (c.keepalive + pongTime)). // never: the wire is sooner
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { l.arrived(m) }).
		SetConnectionLostHandler(func(_ paho.Client, err error) { l.wire.fail(err) }).
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return l.wire, nil })
	if c.status != "" {
		o.SetWill(c.status, offline, byte(mqtt.AtLeastOnce), true)
	}
	l.client = paho.NewClient(o)
	return l
}

// connect sends CONNECT and waits for the server's consent.
func (l *pahoLink) connect(ctx context.Context) error {
	token := l.client.Connect().(*paho.ConnectToken)
	defer context.AfterFunc(ctx, func() { l.wire.fail(context.Cause(ctx)) })()
	abandon := time.NewTimer(connectTimeout + closeTimeout)
	defer abandon.Stop()
	select {
	case <-token.Done():
	case <-abandon.C:
		return errors.New("the MQTT client hangs")
	}
	if err := token.Error(); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	l.kept = token.SessionPresent()
	l.wire.arm()
	if cause := context.Cause(l.wire.alive); cause != nil { // paho takes a return code it does not know for consent, and closes
		l.close()
		return cmp.Or(context.Cause(ctx), cause)
	}
	return nil
}

// say has the server keep whether we are connected, as long as it listens.
func (l *pahoLink) say(status string) {
	if l.status != "" && l.wire.alive.Err() == nil {
		_ = l.publish(mqtt.Message{Topic: l.status, Payload: []byte(status), Retain: true}, nil) // the wire knows
		l.flush()
	}
}

func (l *pahoLink) flush() { l.wire.flush() }

// publish writes the packet itself. Paho's Publish hands it through three goroutines, and
// its token is done without an acknowledgement when the client goes down.
func (l *pahoLink) publish(m mqtt.Message, o owner) error {
	return l.out.send(l.out.prepare(packet.V311, m), o, 0)
}

// limit is none: MQTT 3.1.1 leaves the window to the client.
func (l *pahoLink) limit() int { return maxInflight }

func (l *pahoLink) listen(ctx context.Context, subs []mqtt.Subscription, to taker) error {
	l.intake.begin(to)
	if len(subs) == 0 {
		return nil
	}
	filters := make(map[string]byte, len(subs))
	for _, sub := range subs {
		filters[sub.Filter] = byte(sub.QoS)
	}
	token := l.client.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	if err := l.await(ctx, token); err != nil {
		return err
	}
	return refusedError(token.Result())
}

func (l *pahoLink) unlisten(ctx context.Context, filters []string) error {
	token := l.client.Unsubscribe(filters...)
	if err := l.await(ctx, token); err != nil {
		return err
	}
	return token.Error()
}

// await returns when the server has answered, or why it will not have.
func (l *pahoLink) await(ctx context.Context, token paho.Token) error {
	within, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	select {
	case <-token.Done():
		return nil
	case <-l.wire.alive.Done():
		return context.Cause(l.wire.alive)
	case <-within.Done():
		return context.Cause(within)
	}
}

func (l *pahoLink) arrived(m paho.Message) {
	l.intake.take(arrival{
		Message: mqtt.Message{Topic: m.Topic(), Payload: m.Payload(), QoS: mqtt.QoS(m.Qos()), Retain: m.Retained()},
		id:      m.MessageID(),
		again:   m.Duplicate(),
		ack:     m.Ack,
	})
}

// noStore is a [paho.Store] that keeps nothing: what is under way, the queue here
// and the session of the server know.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}

func (l *pahoLink) heard() time.Time { return l.wire.heard() }

func (l *pahoLink) resumed() bool { return l.kept }

func (l *pahoLink) alive() context.Context { return l.wire.alive }

func (l *pahoLink) abort(cause error) { l.wire.fail(cause) }

func (l *pahoLink) close() {
	l.wire.hurry(closeTimeout / 2) // for a DISCONNECT that nobody reads
	l.say(offline)
	l.wire.release()
	l.client.Disconnect(uint(closeTimeout / time.Millisecond))
	l.wire.fail(net.ErrClosed)
}

// doesNotKnow reports whether a server was not reached by err, but refuses this
// client for who it is.
func doesNotKnow(err error) bool {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r.reason == packet.ReasonClientIDNotValid || r.reason == packet.ReasonNotAuthorized
	}
	return errors.Is(err, packets.ErrorRefusedIDRejected) || errors.Is(err, packets.ErrorRefusedNotAuthorised)
}

// orWill says that a server may refuse only what the client leaves as its will.
func (c *pahoClient) orWill() string {
	if c.status == "" {
		return ""
	}
	return fmt.Sprintf("; if they may not publish on %q, write will: false", c.status)
}

// connectError says why the server at e did not accept us, and what to do.
func (c *pahoClient) connectError(e endpoint, err error) error {
	address := e.address
	switch {
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword):
		return fmt.Errorf("%s refuses user %q, %w: check username and password_file", address, c.username, err)
	case errors.Is(err, packets.ErrorRefusedNotAuthorised):
		return fmt.Errorf("%s refuses user %q with client id %q, %w: check username and password_file, and what the server allows them%s", address, c.username, c.clientID, err, c.orWill())
	case errors.Is(err, packets.ErrorRefusedIDRejected):
		return fmt.Errorf("%s refuses client id %q, %w: set client_id to one that it allows", address, c.clientID, err)
	case errors.Is(err, packets.ErrorRefusedServerUnavailable):
		return fmt.Errorf("%s refuses for now, %w: ask who runs it", address, err)
	case errors.Is(err, packets.ErrorRefusedBadProtocolVersion):
		return fmt.Errorf("%s refuses MQTT 3.1.1, %w: it must allow protocol level 4", address, err)
	}
	return handshakeError(e, "MQTT 3.1.1", err)
}
