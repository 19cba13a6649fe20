// Package proxy plays a bad network between a client and a server, so that an
// outage can be rehearsed on one machine.
//
// There are three nouns. A [Proxy] listens on the loopback interface and hands
// each connection on to its target. A [Mode] is what the network does just now:
// pass everything, cut everything, or swallow bytes without a word, as a radio
// link or a dead NAT entry does. Delay and rate say how good it is while it
// passes.
//
// [Proxy.Run] accepts and joins one goroutine per connection, which joins three
// more: each way has one that reads, and one that writes when the delay is over.
// They end when either side closes, the mode cuts them, or the proxy closes.
package proxy
