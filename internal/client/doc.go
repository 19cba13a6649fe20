// Package client is a small MQTT 5.0, 3.1.1 and 3.1 client for the command line,
// the load generator and the tests of the broker: made for pipelining and for
// exact control over what is sent.
//
// There are two nouns. A [Conn] is one connection, from CONNECT to its end; it
// never reconnects, and nothing survives it. A [Message] is what it receives.
//
// Because nothing survives a Conn, packet identifiers start at 1 with each. With
// a session that the broker keeps, let every publish of QoS 2 end before the
// connection does; a later Conn could use the identifier of one that the broker
// still holds.
//
// What MQTT 5 adds is there with Version packet.V5. Properties go in and out as
// [packet.Properties]; those that are sent must be lawful, as nobody but the
// broker checks them again. Limits that the broker sets in its CONNACK are kept:
// a publish over one fails and sends nothing, the window and the keep alive
// follow. What the broker refuses with a reason is a [*ReasonError], and a
// connection that breaks the protocol is told the reason before it is closed.
//
// The goroutines of a Conn: one reads, answers, and calls the Handler; one writes
// what all others put into one buffer, so that whatever gathers during a write
// goes out with the next; one sends a PINGREQ every KeepAlive. The first of them
// to fail ends the others, and [Conn.Close] returns when all have ended.
package client
