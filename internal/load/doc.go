// Package load puts a bounded load on an MQTT broker of this machine and reports
// what came of it and what it cost the broker.
//
// There are five nouns. A scenario says who publishes what to whom; [Options]
// choose one and its numbers. A conn is one raw MQTT connection on package packet,
// a publisher sends the messages of one, and a receiver counts those that arrive
// at one: losses, duplicates, order, latency. A broker is the process under load,
// whose use of processor, memory and disk is read from /proc. A [Report] is the
// outcome.
//
// [Run] does all of it and returns when everything it started has ended. It is
// made to take little processor time itself, since it shares the machine with the
// broker: packets are encoded into and decoded from a connection's two buffers,
// a write takes all there is to say, and nothing is allocated per message.
package load
