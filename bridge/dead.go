package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tidegate/internal/check"
	"tidegate/internal/units"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// A message that the server refuses for good must not block those behind it. It
// becomes a dead letter: a message in an inbox of its own, bridge/NAME/dead, which
// stands on disk like any queue. Requeue puts it back.

// DeadLetters bounds the dead letters. At a bound the oldest make room, and are
// counted as lost.
type DeadLetters struct {
	MaxMessages int        `yaml:"max_messages"`
	MaxDisk     units.Size `yaml:"max_disk"`
}

func (d DeadLetters) check(p *check.Problems) {
	if d.MaxMessages < 1 {
		p.Add("dead_letters.max_messages", "%d is no bound; write 1 or more, 10000 is usual", d.MaxMessages)
	}
	if d.MaxDisk < 64*units.KiB {
		p.Add("dead_letters.max_disk", "%v is too little for a queue; write 64KiB or more, 16MiB is usual", d.MaxDisk)
	}
}

func (d DeadLetters) limits() mqtt.QueueLimits {
	return mqtt.QueueLimits{MaxMessages: int64(d.MaxMessages), MaxDisk: int64(d.MaxDisk), Overflow: mqtt.DropOldest}
}

// maxTries is how often the server may refuse one message, or end the connection
// because of it, before it is a dead letter.
const maxTries = 5

// patience is for how long it must do so at least. A server in trouble, such as a
// cluster that elects a leader, ends connections whatever is sent.
func (c *Config) patience() time.Duration { return 2 * time.Duration(c.StallTimeout) }

// The user properties of a dead letter.
const (
	propertyRefused = "tidegate-refused" // why the server does not take it
	propertyRetain  = "tidegate-retain"  // it was to be retained
)

// places are a bridge's inboxes, and its topics: of its dead letters, and for in and out, see recall. Clients have no
// business there: topics that begin with $ match no wildcard at the front.
type places struct{ name string }

func (p places) inbox() string     { return "bridge/" + p.name }
func (p places) deadInbox() string { return "bridge/" + p.name + "/dead" }
func (p places) in() string        { return "$bridge/" + p.name + "/in/" }
func (p places) out() string       { return "$bridge/" + p.name + "/out/" }
func (p places) dead() string      { return "$bridge/" + p.name + "/dead/" }
func (p places) again() string     { return "$bridge/" + p.name + "/again/" }

// Abandoned reports whether the inbox called name is that of a bridge, or of its dead
// letters, and of none of bridges.
func Abandoned(name string, bridges ...*Bridge) bool {
	return strings.HasPrefix(name, "bridge/") && !slices.ContainsFunc(bridges, func(b *Bridge) bool {
		at := places{b.cfg.Name}
		return name == at.inbox() || name == at.deadInbox()
	})
}

// openDead opens the inbox of the dead letters, for so many under way and as many times
// the bounds of the configuration.
func (b *Bridge) openDead(ctx context.Context, most, times int) (mqtt.Inbox, error) {
	at := places{b.cfg.Name}
	sub := mqtt.Subscription{Filter: at.dead() + "#", QoS: mqtt.AtLeastOnce}
	bounds := DeadLetters{times * b.cfg.DeadLetters.MaxMessages, units.Size(times) * b.cfg.DeadLetters.MaxDisk}
	inbox, err := b.local.OpenInbox(ctx, at.deadInbox(), mqtt.InboxOptions{MaxInflight: most, Queue: bounds.limits()}, sub)
	if err != nil {
		return nil, &localError{"open the queue " + at.deadInbox(), err}
	}
	return inbox, nil
}

// Requeue puts the dead letters that are there now back into the queue, behind
// what is in it, and returns how many. It must not be called while it runs: whoever
// is first gets [mqtt.ErrClosed].
//
// What the server refuses anew comes back before its place is free. So that it does not
// cost another one's, there is twice the room meanwhile.
func (b *Bridge) Requeue(ctx context.Context) (n int, err error) {
	left := int(b.local.Backlog(places{b.cfg.Name}.deadInbox()))
	if left == 0 {
		return 0, nil
	}
	inbox, err := b.openDead(ctx, left, 2)
	if err != nil {
		return 0, err
	}
	b.returning.Add(int64(left))
	b.measureAnew()
	for n < left && err == nil {
		if err = b.requeue(ctx, inbox); err == nil {
			n++
			b.returning.Add(-1)
		}
	}
	inbox.Close()
	if err != nil { // the others do not come
		b.returning.Add(int64(n - left))
		b.measureAnew()
	}
	if errors.Is(err, mqtt.ErrClosed) { // somebody else has it now
		return n, err
	}
	return n, errors.Join(err, b.declareDead(context.WithoutCancel(ctx)))
}

// requeue puts the next dead letter back.
func (b *Bridge) requeue(ctx context.Context, dead mqtt.Inbox) error {
	d, err := dead.Recv(ctx)
	if err != nil {
		return fmt.Errorf("read the dead letters: %w", err)
	}
	m, at := d.Message, places{b.cfg.Name}
	m.Topic = at.again() + strings.TrimPrefix(m.Topic, at.dead())
	if err := b.local.Publish(ctx, m); err != nil {
		return err
	}
	dead.Ack(d.Seq)
	return nil
}

// revived returns m, which came from under prefix, as it was before the server had
// refused it.
func revived(m mqtt.Message, prefix string) mqtt.Message {
	m.Topic = strings.TrimPrefix(m.Topic, prefix)
	if m.Properties == nil {
		return m
	}
	p := *m.Properties
	p.User = nil
	for _, u := range m.Properties.User {
		switch u.Name {
		case propertyRefused:
		case propertyRetain:
			m.Retain = true
		default:
			p.User = append(p.User, u)
		}
	}
	m.Properties = &p
	return m
}

// deadLetter is m as a dead letter. It does not expire: somebody has to look at it.
func deadLetter(m mqtt.Message, at places, why error) mqtt.Message {
	var p mqtt.Properties
	if m.Properties != nil {
		p = *m.Properties
	}
	p.User = append(p.User[:len(p.User):len(p.User)], mqtt.UserProperty{Name: propertyRefused, Value: why.Error()})
	if m.Retain {
		p.User = append(p.User, mqtt.UserProperty{Name: propertyRetain, Value: "1"})
	}
	return mqtt.Message{Topic: at.dead() + m.Topic, Payload: m.Payload, QoS: mqtt.AtLeastOnce, Properties: &p}
}

// suspect is the message that may be why a server ends connections, or refuses
// something. Used by Run's goroutine between links, and read by send during one.
type suspect struct {
	seq   uint64
	tries int
	first time.Time
	last  time.Time
	why   error
}

// blame counts a try of the message seq that the server did not take.
func (s *suspect) blame(seq uint64, why error) {
	if s.seq != seq {
		*s = suspect{seq: seq, first: time.Now()}
	}
	s.tries++
	s.last = time.Now()
	s.why = why
}

// condemns reports whether the message seq has had its tries, over at least
// patience.
func (s *suspect) condemns(seq uint64, patience time.Duration) bool {
	return s.seq == seq && s.tries >= maxTries && s.last.Sub(s.first) >= patience
}

// final reports whether trying again with the same message is useless.
func (r *refusal) final() bool {
	switch r.reason {
	case packet.ReasonNotAuthorized, packet.ReasonTopicNameInvalid, packet.ReasonPacketTooLarge,
		packet.ReasonPayloadFormatInvalid, packet.ReasonRetainNotSupported, packet.ReasonQoSNotSupported:
		return true
	}
	return false
}

// busy reports whether the refusal is not about the message at all.
func (r *refusal) busy() bool {
	return r.reason == packet.ReasonQuotaExceeded || r.reason == packet.ReasonReceiveMaximumExceeded
}

// culprit returns the message that the server did not take when the link ended
// with err, if one can be named: the one that it refused, or the only one that
// was under way when it cut the connection.
func (u *uplink) culprit(err error) (seq uint64, ok bool) {
	var r *refusal
	var bye *farewell
	head, _ := u.flight.head()
	switch under, _ := u.window.load(); {
	case head == 0:
		return 0, false
	case errors.As(err, &r):
		return head, !r.busy()
	case errors.As(err, &bye):
		return head, under == 1 && bye.final()
	default:
		return head, under == 1 && isClosed(err)
	}
}
