package mqtt

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// QoS is the delivery guarantee of a message or the highest one that a
// subscription asks for (MQTT 3.1.1, section 4.3).
type QoS byte

// The three guarantees. A subscription may answer a refused filter with
// [QoSFailure] instead.
const (
	AtMostOnce  QoS = 0
	AtLeastOnce QoS = 1
	ExactlyOnce QoS = 2

	QoSFailure QoS = 0x80
)

// Valid reports whether q is one of the three guarantees.
func (q QoS) Valid() bool { return q <= ExactlyOnce }

// Message is one application message. It is immutable once published: Payload
// is shared by everybody who receives it and never written.
type Message struct {
	Topic   string
	Payload []byte
	QoS     QoS
	Retain  bool

	// Expiry is how long the message may wait for a receiver, in whole seconds
	// (MQTT 5.0, section 3.3.2.3.3). 0: for ever.
	Expiry time.Duration

	Properties *Properties // nil: none
}

// Properties are what else MQTT 5 lets a message carry from its publisher to its
// receivers (section 3.3.2.3). Like the message they are never written.
type Properties struct {
	UTF8            bool   // the payload is text
	ContentType     string // "": none, as below
	ResponseTopic   string
	CorrelationData []byte
	User            []UserProperty // in the publisher's order
}

// UserProperty is one pair of texts that means something to publisher and
// receiver. Names may come more than once.
type UserProperty struct{ Name, Value string }

// Errors of publishing, to be matched with [errors.Is].
var (
	// ErrInvalidTopic wraps every complaint about a topic name or filter.
	ErrInvalidTopic = errors.New("invalid topic")

	// ErrTooLarge means a message is over the size limit of its receiver.
	ErrTooLarge = errors.New("message too large")

	// ErrClosed means the broker or inbox has ended.
	ErrClosed = errors.New("closed")
)

// Validate reports why m cannot be published, or nil.
func (m Message) Validate() error {
	if !m.QoS.Valid() {
		return fmt.Errorf("publish to %q: QoS %d is not 0, 1 or 2", m.Topic, m.QoS)
	}
	return ValidName(m.Topic)
}

// Publisher takes responsibility for messages.
type Publisher interface {
	// Publish returns nil once the gateway has taken responsibility for m:
	// for every durable session that m matches, m is on disk or was
	// acknowledged by that session. It may be called from any goroutine.
	Publish(ctx context.Context, m Message) error

	// PublishAsync queues m behind all that this goroutine published before
	// and returns. It blocks only while the memory for messages on their way
	// to disk is used up, which is the backpressure of a producer that cannot
	// wait for each message, or while a queue that m would go to is full and
	// refuses it. Its error says that m was not queued.
	//
	// done, if not nil, is called once with what Publish would have returned.
	// It is called from a goroutine of the gateway and must not block. With a
	// nil done nobody waits for m, so the write to disk may be delayed by up
	// to a second to spare the card.
	PublishAsync(ctx context.Context, m Message, done func(error)) error
}

// Subscription is one filter and the highest QoS its holder wants. What stands
// below QoS exists only in MQTT 5 (section 3.8.3.1); its zero values are what
// MQTT 3.1.1 does.
type Subscription struct {
	Filter string
	QoS    QoS

	NoLocal           bool   // not what its holder published itself
	RetainAsPublished bool   // messages keep the retain flag of their publisher
	RetainHandling    byte   // retained messages: 0 at every subscribe, 1 at the first, 2 never
	ID                uint32 // 1 to 268435455, comes with each message; 0: none
}

// GatewayClient is how the client identifiers of gateways' bridges begin, unless
// they are configured otherwise.
const GatewayClient = "tidegate-"

// Delivery is a message handed out by an [Inbox], with Retain as it was
// published. Its payload may lie in a piece of memory, of 4 KiB at most, that others
// share: who keeps it for long does better to keep a copy.
type Delivery struct {
	Seq     uint64    // names the delivery in Ack; rises with each message
	Relayed bool      // it came through a bridge, ours or another gateway's
	At      time.Time // when it was published, on the line of time that the broker was given; zero: not noted
	Message
}

// InboxOptions are the limits of an inbox.
type InboxOptions struct {
	// MaxInflight is how many deliveries may be handed out whose acknowledgement
	// has not come or is not on disk: so many a crash makes come again, at most.
	// 0 means 100.
	MaxInflight int

	Queue QueueLimits // of what it is owed

	// LiveFirst lets what is published while the inbox is open pass what was
	// queued before: RecvLive hands it out, Recv the rest, each in its own
	// order. What comes faster than it is taken waits in its place for Recv.
	LiveFirst bool
}

// Waiting is what an inbox has not acknowledged.
type Waiting struct {
	Messages int64
	Bytes    int64         // of them, with what they need beside their payload
	Oldest   time.Duration // age of the oldest of them; 0: there is none, or it is not known
}

// Inbox is a durable queue with one consumer. What is not acknowledged is handed
// out again, in the same order, when the inbox is opened the next time, also
// after a restart.
//
// As a [Publisher] the inbox is itself the sender: what it publishes does not
// come back through its subscriptions with NoLocal.
type Inbox interface {
	Publisher

	// Recv waits for the next message; one that is there comes even if ctx is
	// done. It fails with ctx's error, or with ErrClosed once the inbox is closed
	// or was opened by somebody else. It must be called from one goroutine at a
	// time.
	Recv(ctx context.Context) (Delivery, error)

	// RecvLive is Recv for what may pass the others. It may be called from
	// another goroutine at the same time. Without LiveFirst there is nothing.
	RecvLive(ctx context.Context) (Delivery, error)

	// Ack releases the delivery seq for good. It may be called from any
	// goroutine and in any order. An unknown seq is no error.
	Ack(seq uint64)

	// Drop is Ack for a delivery that its consumer gives up: it goes into the loss
	// ledger, with the reason, in one word. At QoS 0 nothing was owed, and nothing is
	// counted.
	Drop(d Delivery, reason string)

	// PublishOnce is PublishAsync for a message that upstream numbers with id
	// until it knows that the gateway has taken responsibility and says so: then
	// Release is called. What comes with the id before that is the same message and
	// known and not published again, also after a restart; done is then called when
	// the first is safe. done is never nil.
	PublishOnce(ctx context.Context, id uint16, m Message, done func(error)) (known bool, err error)

	// Release lets the next message have the number id. done is called like that
	// of PublishAsync when the disk knows it, too.
	Release(id uint16, done func(error))

	// ReleaseAll releases all numbers and waits until the disk knows it.
	ReleaseAll(ctx context.Context) error

	// Arrived returns how much at QoS 1 and 2 the inbox has been owed since it
	// was opened: messages, and the bytes of their topics and payloads.
	Arrived() (messages, bytes uint64)

	// Close ends the consumer and keeps what is queued.
	Close()
}

// Subscriber opens inboxes.
type Subscriber interface {
	// OpenInbox opens the inbox called name and gives it exactly the
	// subscriptions subs. An inbox that is new owns what is published from
	// now on. Whoever had it open before gets ErrClosed.
	OpenInbox(ctx context.Context, name string, o InboxOptions, subs ...Subscription) (Inbox, error)
}
