// Package mqtt is the vocabulary that the rooms of the gateway share: what a
// message is, who takes one, who hands one out, and which topic names and
// filters are lawful.
//
// There are five nouns. A [Message] is what travels. A [Publisher] takes
// responsibility for messages; the broker is one. A [Subscription] says which
// messages somebody is owed. An [Inbox] is a durable queue with one consumer
// inside the process: a bridge's uplink reads one as a network client reads its
// session. A [Subscriber] opens inboxes; the broker is one.
//
// The package imports nothing but the standard library, so broker, bridge and
// adapters can share these words without importing one another. It starts no
// goroutine.
package mqtt
