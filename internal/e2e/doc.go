// Package e2e tests the gateway from outside: the real binary in a process of
// its own, sensors over ptys, and as the broker upstream Debian's mosquitto and
// RabbitMQ, and NATS.
//
// There are seven nouns. A gateway is the process, which can be killed and
// started again on the same data. A sensor writes numbered lines at the rate of
// a serial line. The upstream is everything behind the uplink: a proxy that plays
// the network, a tap, mosquitto, and a collector that subscribes to all of it. A
// cluster is three servers that nobody here wrote, each behind a tap. A tap reads
// the packets between bridge and server, so the truth about what upstream has
// taken is each PUBLISH that the server has answered with PUBACK. A ledger is what
// somebody has seen of numbered messages: which, how often, and in which order for
// the first time. A board is what takes a month: the gateway's rooms in the
// process of the test, in virtual time, on a machine whose clock is wrong.
//
// TIDEGATE_SEED repeats the random points of a run. TIDEGATE_E2E=full sends ten
// times as many messages and talks to all servers; scripts/e2e sets it. The lines
// with figures are shown by go test -v.
package e2e
