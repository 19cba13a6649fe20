package broker

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"tidegate/mqtt"
)

// counters are what the broker has counted since it was made.
type counters struct {
	packets, received, sent, dropped, refused, retainedRefused atomic.Uint64

	accepted  atomic.Int64 // QoS 1 and 2 messages that sessions were to get
	delivered atomic.Int64 // those that they have acknowledged; the others are queued or in the ledger

	packetsSent, bytesReceived, bytesSent, connections, sockets atomic.Uint64

	refusals refusals

	badCredentials, notAuthorized, publicationsDenied, subscriptionsDenied atomic.Uint64
}

// Status is a snapshot of the broker.
type Status struct {
	Connections int `json:"connections"`
	Sessions    int `json:"sessions"`
	Retained    int `json:"retained"`

	PacketsReceived    uint64 `json:"packets_received"`
	MessagesReceived   uint64 `json:"messages_received"`   // from clients and adapters
	MessagesSent       uint64 `json:"messages_sent"`       // to clients, without those at QoS 0 nobody had room for
	MessagesDropped    uint64 `json:"messages_dropped"`    // a bound was reached, they had expired, or an inbox gave them up
	ConnectionsRefused uint64 `json:"connections_refused"` // no CONNECT, a wrong one, or too many
	RetainedRefused    uint64 `json:"retained_refused"`    // not kept because a bound was reached

	// Messages at QoS 1 and 2, once for each session that is owed them. At rest
	// accepted = delivered + queued + what is in the loss ledger.
	MessagesAccepted  int64 `json:"messages_accepted"`  // since the gateway started, with what was queued or in the ledger then
	MessagesDelivered int64 `json:"messages_delivered"` // acknowledged by those who were owed them, since then
	MessagesQueued    int64 `json:"messages_queued"`    // not acknowledged

	BadCredentials      uint64 `json:"bad_credentials"`      // connections refused for a wrong user name or password
	NotAuthorized       uint64 `json:"not_authorized"`       // connections refused because the client, or its will, has no right
	PublicationsDenied  uint64 `json:"publications_denied"`  // messages from clients that have no right to send them, or that were refused otherwise
	SubscriptionsDenied uint64 `json:"subscriptions_denied"` // likewise

	Refused map[string]uint64 `json:"refused"` // what was refused, by cause; the causes are fixed

	MemoryLimit uint64            `json:"memory_limit"` // bytes that clients may take together, as the broker estimates it
	MemoryUsed  uint64            `json:"memory_used"`
	Memory      map[string]uint64 `json:"memory"` // what of it is taken for what; the names are fixed

	Flash        FlashStatus `json:"flash"`
	MaxStoreSize int64       `json:"max_store_size"` // bytes; 0: any

	StoreError string `json:"store_error,omitempty"` // why nothing can be written; empty: it can
}

// SessionStatus is a snapshot of one durable or connected session, or of the
// queue of a shared subscription.
type SessionStatus struct {
	ID            string `json:"id"`                  // of a shared subscription: its filter
	Inbox         bool   `json:"inbox"`               // a bridge's, inside the gateway
	Unclaimed     bool   `json:"unclaimed,omitempty"` // ... that is not configured any more: it collects nothing
	Connected     bool   `json:"connected"`
	Durable       bool   `json:"durable"`
	Subscriptions int    `json:"subscriptions"`
	Shared        int    `json:"shared,omitempty"`  // those of them that are shared
	Members       int    `json:"members,omitempty"` // sessions that share it; 0: it is no shared subscription
	Queued        int64  `json:"queued"`            // messages that are not acknowledged
	QueuedBytes   int64  `json:"queued_bytes"`      // what they take on disk, about, if all of them were there; 0: not durable
	OnDisk        uint64 `json:"on_disk"`
	Dropped       uint64 `json:"dropped"`
	Refuses       bool   `json:"refuses,omitempty"` // it is full, and who publishes to it is refused or waits
}

// Status returns a snapshot of the broker.
func (b *Broker) Status() Status {
	b.mu.Lock()
	st := Status{Connections: len(b.conns), Sessions: len(b.sessions) + len(b.shares)}
	b.mu.Unlock()
	st.Retained = b.retained.count()
	st.PacketsReceived = b.stats.packets.Load()
	st.MessagesReceived = b.stats.received.Load()
	st.MessagesSent = b.stats.sent.Load()
	st.MessagesDropped = b.stats.dropped.Load()
	st.ConnectionsRefused = b.stats.refused.Load()
	st.RetainedRefused = b.stats.retainedRefused.Load()
	st.BadCredentials = b.stats.badCredentials.Load()
	st.NotAuthorized = b.stats.notAuthorized.Load()
	st.PublicationsDenied = b.stats.publicationsDenied.Load()
	st.SubscriptionsDenied = b.stats.subscriptionsDenied.Load()
	st.Refused = b.stats.refusals.byName()
	st.MemoryLimit = uint64(b.memory.limit)
	st.MemoryUsed, st.Memory = b.memory.byName()
	st.MaxStoreSize = b.commit.disk.bounds.maxSize
	st.Flash = b.commit.flash.status(b.now())
	st.MessagesAccepted, st.MessagesDelivered = b.stats.accepted.Load(), b.stats.delivered.Load()
	st.MessagesQueued = b.queuedMessages()
	if err := b.commit.health(); err != nil {
		st.StoreError = err.Error()
	}
	return st
}

// queuedMessages returns how many messages all sessions together are owed.
func (b *Broker) queuedMessages() (n int64) {
	for _, s := range b.Sessions() {
		n += s.Queued
	}
	return n
}

// inventory returns how many messages are queued or lost.
func (b *Broker) inventory() int64 {
	n := b.queuedMessages()
	for _, l := range b.Losses() {
		n += int64(l.Count)
	}
	return n
}

// Sessions returns a snapshot of all sessions and shared subscriptions, in the
// order of their names.
func (b *Broker) Sessions() []SessionStatus {
	b.mu.Lock()
	sessions := make([]*session, 0, len(b.sessions)+len(b.shares))
	for _, s := range b.sessions {
		sessions = append(sessions, s)
	}
	for _, g := range b.shares {
		sessions = append(sessions, g.s)
	}
	b.mu.Unlock()
	list := make([]SessionStatus, 0, len(sessions))
	for _, s := range sessions {
		list = append(list, s.status())
	}
	slices.SortFunc(list, func(x, y SessionStatus) int { return cmp.Compare(x.ID, y.ID) })
	return list
}

// Backlog returns how many messages the inbox called name has not acknowledged.
func (b *Broker) Backlog(name string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[inboxKey(name)]; s != nil {
		return s.owed.Load()
	}
	return 0
}

// Filters returns the subscriptions of the inbox called name.
func (b *Broker) Filters(name string) []string {
	b.mu.Lock()
	s := b.sessions[inboxKey(name)]
	b.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.subs))
}

// Waiting says more about the messages that the inbox called name has not
// acknowledged. It may read the first of them from the disk.
func (b *Broker) Waiting(name string) mqtt.Waiting {
	b.mu.Lock()
	s := b.sessions[inboxKey(name)]
	b.mu.Unlock()
	if s == nil {
		return mqtt.Waiting{}
	}
	oldest := max(0, s.oldest())
	s.mu.Lock()
	defer s.mu.Unlock()
	return mqtt.Waiting{Messages: s.owed.Load(), Bytes: s.bytes, Oldest: oldest}
}

func (s *session) status() SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SessionStatus{
		ID: strings.TrimPrefix(s.id, "\x00"), Inbox: s.inbox, Unclaimed: s.unclaimed, Connected: s.link != nil, Durable: s.durable(),
		Subscriptions: len(s.subs), Shared: len(s.shares), Dropped: s.dropped.Load(), QueuedBytes: s.bytes, Refuses: s.refuses.Load(),
	}
	if s.share != nil {
		st.Members = len(s.share.members)
	}
	if st.Queued = s.owed.Load(); !st.Durable {
		st.Queued = int64(s.window.len() + s.ram.len())
	}
	s.b.commit.mu.Lock()
	st.OnDisk = uint64(s.stored.n)
	s.b.commit.mu.Unlock()
	return st
}
