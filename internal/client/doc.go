// Package client is a small MQTT 3.1.1 and 3.1 client for the command line, the
// load generator and the tests of the broker: made for pipelining and for exact
// control over what is sent.
//
// There are two nouns. A [Conn] is one connection, from CONNECT to its end; it
// never reconnects, and nothing survives it. A [Message] is what it receives.
//
// Because nothing survives a Conn, packet identifiers start at 1 with each. With
// a session that the broker keeps, let every publish of QoS 2 end before the
// connection does; a later Conn could use the identifier of one that the broker
// still holds.
//
// The goroutines of a Conn: one reads, answers, and calls the Handler; one writes
// what all others put into one buffer, so that whatever gathers during a write
// goes out with the next; one sends a PINGREQ every KeepAlive. The first of them
// to fail ends the others, and [Conn.Close] returns when all have ended.
package client
