package broker

import (
	"errors"
	"os"
	"sync/atomic"

	"tidegate/broker/auth"
	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// cause is why the broker has refused something. There are few, so that they can
// be labels of a metric.
type cause byte

const (
	becauseConnections      cause = iota // max_connections
	becauseSessions                      // max_sessions
	becauseSubscriptions                 // max_subscriptions
	becauseRetained                      // max_retained, max_retained_size, memory_limit, or a topic that is too long to keep
	becausePacketSize                    // max_packet_size
	becauseReceiveMaximum                // too many QoS 1 and 2 messages under way, or not released
	becauseTopicAlias                    // an alias over the maximum, or topics that are too long for so many
	becauseMemoryConnection              // memory_limit: a connection
	becauseMemorySession                 // ... a session, or its will
	becauseMemorySubscription
	becauseMemoryHolder  // ... the client that holds the most of what passes through
	becauseNoConnect     // connect_timeout
	becauseSilence       // keep-alive
	becauseUnread        // the client takes nothing of what is sent to it
	becauseTakenOver     // another client came with the same identifier
	becauseProtocol      // a packet that is wrong
	becauseCredentials   // wrong user name or password
	becauseNotAuthorized // the client may not connect, or may not leave its will
	becauseQueue         // a message for a queue that is full; or the publisher waits
	becauseFilter        // a filter that the broker does not do
	causes
)

var causeNames = [causes]string{
	"connections", "sessions", "subscriptions", "retained", "packet_size", "receive_maximum", "topic_alias",
	"memory_connection", "memory_session", "memory_subscription", "memory_holder",
	"no_connect", "keep_alive", "unread", "taken_over", "protocol", "credentials", "not_authorized", "queue", "filter",
}

// refusals counts what was refused, by cause.
type refusals [causes]atomic.Uint64

func (r *refusals) count(why cause) { r[why].Add(1) }

// byName returns the counts, also those that are 0.
func (r *refusals) byName() map[string]uint64 {
	counts := make(map[string]uint64, causes)
	for why, name := range causeNames {
		counts[name] = r[why].Load()
	}
	return counts
}

// causeOfEnd returns why the broker has ended a connection because of err, and
// false if that was not the broker's wish.
func causeOfEnd(err error) (why cause, refused bool) {
	for known, why := range map[error]cause{
		errMemory: becauseMemoryHolder, errNoMemory: becauseMemorySession, errTooMany: becauseSessions,
		errNoConnect: becauseNoConnect, errKeepAlive: becauseSilence, errTakenOver: becauseTakenOver,
		errTooManyQoS2: becauseReceiveMaximum, auth.ErrBadCredentials: becauseCredentials, auth.ErrNotAuthorized: becauseNotAuthorized,
		mqtt.ErrTooLarge: becausePacketSize, os.ErrDeadlineExceeded: becauseUnread,
	} {
		if errors.Is(err, known) {
			return why, true
		}
	}
	var e *packet.Error
	switch {
	case !errors.As(err, &e):
		return 0, false
	case e.Reason == packet.ReasonReceiveMaximumExceeded:
		return becauseReceiveMaximum, true
	case e.Reason == packet.ReasonTopicAliasInvalid, e.Reason == packet.ReasonQuotaExceeded:
		return becauseTopicAlias, true
	case e.Reason == packet.ReasonPacketTooLarge:
		return becausePacketSize, true
	}
	return becauseProtocol, true
}

// refusedSubscription returns why a subscription was refused because of err. What
// the client has no right to is counted apart.
func refusedSubscription(err error) (why cause, refused bool) {
	switch {
	case errors.Is(err, errSubscriptions), errors.Is(err, errShares):
		return becauseSubscriptions, true
	case errors.Is(err, errNoMemory):
		return becauseMemorySubscription, true
	case errors.Is(err, errTooDeep), errors.Is(err, errShareName):
		return becauseFilter, true
	}
	return 0, false
}
