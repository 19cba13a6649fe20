// Package bridge carries messages from the local broker to a server upstream:
// at least once, in order, through any outage.
//
// There are five nouns. A [Bridge] is one way upstream: it dials, backs off,
// and says how it fares in its [Status]. A [Rule] says which messages go and
// under which topic. A link is one connection to one server, from CONNECT to
// its end: paho.go makes those of MQTT 3.1.1, paho5.go with session5.go those of
// MQTT 5, and no other file knows paho. An uplink moves messages over one link. A
// downlink publishes what the server sends, as the inbox, and acknowledges what
// is safe here; intake.go and guard.go bring it there, and PUBREL, which paho never sees.
//
// The queue is not here. It is an inbox of the local broker, called
// bridge/NAME, that is owed messages like any other session. It is open only
// while a link is up, so that the broker knows when nobody consumes it, and
// what a lost link left unacknowledged comes again, in order, over the next.
//
// A message takes this way: inbox, uplink.go send (routes.go, rules.go), paho.go, gather.go,
// wire.go, the server; its acknowledgement comes back through guard.go, receipts.go,
// flight.go, inbox, all in the goroutine that reads, which sleeps until there is a handful of
// them (handful.go). It is acknowledged to the inbox only when the server acknowledged it
// over the link that is still up. How many are under way, window.go and depth.go decide; what
// the server refuses for good goes to an inbox of its own, see dead.go.
//
// # Goroutines
//
//	goroutine           started by   ends when                         joined by
//	dial, back off,     caller       ctx is done                       caller
//	send: Bridge.Run
//	herald, to report   Bridge.Run   ctx is done                       Bridge.Run
//	confirm, listen     downlink.    the link is lost, or all that     downlink.end, for
//	                    start        came is safe                      at most a second
//	scout, to look at   Bridge.      the link ends, or the first       Bridge.round
//	the first server    round        server is well
//	watch, patrol       uplink.run   the uplink has finished           uplink.run
//	paho's own          link open    link.close; a client that hangs   link.close, for
//	                                 then is abandoned                 at most a second
package bridge
