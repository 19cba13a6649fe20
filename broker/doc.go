// Package broker is a small MQTT broker (5.0, 3.1.1, 3.1) whose acknowledgements
// can be relied on.
//
// There are seven nouns. A [Broker] routes messages. A session is what is kept for
// one client or inbox; it outlives its connection unless the client asked for a
// clean one. A consumer reads a session: a network connection, or an inbox
// inside the process. A share is the queue of a shared subscription, a session
// without a consumer of its own: its members draw from it. An outbox is what a
// session is owed, a window in memory over the journal on disk. A record is the
// promise that goes with a message for durable sessions: kept once the message is
// on disk or acknowledged by all. The committer writes whatever is dirty in groups.
//
// The files in the order a message meets them:
//
//	listener.go   connections, with listener_tls.go and listener_ws.go
//	transport.go  bytes from the socket
//	conn.go       packets from bytes, and the turn that ends with a flush
//	connect.go    CONNECT and its session (sessions.go, mirror.go), wills.go; exchange.go, its AUTH
//	admission.go  what the client may do (access.go), and hooks.go
//	receive.go    PUBLISH and acknowledgements from clients
//	subscribe.go  SUBSCRIBE; client5.go has what is special with MQTT 5
//	router.go     who gets it (trie.go), retained messages (retained.go)
//	record.go     the promise; committer.go and commit.go keep it
//	outbox.go     what a session is owed, the journal's part in position.go and page.go; unsaved.go, when a position is written
//	live.go       its second way out, past the backlog
//	shared.go     shared subscriptions; lend.go passes their messages to members
//	trim.go       what is over its bounds, and age.go, what is too old, goes (cuts.go, thin.go); refuse.go, who has to wait
//	loss.go       what it was owed and does not get
//	window.go     what was sent and not yet acknowledged
//	output.go     bytes to the socket; inbox.go for consumers in the process (names.go, their topics), inbox_once.go for what they publish at QoS 2, unclaimed.go for those that nobody opens any more
//	budget.go     what all clients take of the memory (holding.go), and who has to go
//	refused.go    the causes for which something is refused; reasons.go, what a client of MQTT 5 is told
//
// # Locks
//
// In the order in which they are taken: Broker.mu, committer.order, session.mu
// of a share, session.mu of its members and of others, retained.mu, then the leaves
// committer.mu, trie.mu, alarms.mu, output.mu, inbox.mu, vacancy.mu, parked.mu,
// lossLedger.mu and hush.mu.
// No lock is held while a packet is written, a commit runs, or a channel
// is waited for.
//
// # Goroutines
//
// [Broker.Serve] runs one accept loop per listener, the committer, the alarms (of
// sessions that expire, wills that were held back and messages that are too old), the relief that disconnects
// who holds the most when memory is short, and one goroutine per
// connection, which reads, routes and flushes, and which hands over to a fresh one
// when the client seems to have nothing to say. A connection whose
// socket is full gets a second one that writes, for as long as something waits; one
// whose publications a full queue refuses gets one that passes them on later.
// Serve returns when all of them have ended.
package broker
