package bridge

import (
	"context"
	"time"

	"tidegate/mqtt"
)

// link is one connection to one server. It begins with the server's consent and
// is never used again once lost.
type link interface {
	// publish hands a message over for sending, in the order of the calls. What
	// becomes of it at QoS 1, o learns, maybe before publish returns; at QoS 0, nobody.
	// An error says that it is not sent. Publish blocks while the connection takes no
	// more, and not once it is lost. It must be called from one goroutine at a time,
	// and may wait for flush.
	publish(m mqtt.Message, o owner) error

	// flush sends what was published. Whoever publishes calls it before it waits
	// for anything. It may be called from any goroutine.
	flush()

	// limit is how many messages of QoS 1 the server takes at once.
	limit() int

	// listen asks the server for what subs match and hands what comes to to, in
	// order and one at a time. What comes before the call waits. Its error says
	// which filters the server refuses, or that the link is lost.
	listen(ctx context.Context, subs []mqtt.Subscription, to taker) error

	// unlisten has the server's session forget filters.
	unlisten(ctx context.Context, filters []string) error

	// heard returns when the server last sent anything.
	heard() time.Time

	// resumed reports whether the server had kept the session.
	resumed() bool

	// alive is done when the connection is lost or was aborted;
	// [context.Cause] then says why.
	alive() context.Context

	// abort ends the connection at once. The first cause counts. It may be
	// called from any goroutine.
	abort(cause error)

	// close takes leave of the server if the connection still stands, and
	// frees everything. It blocks for a bounded time and must be called once,
	// when publish will not be called any more.
	close()
}

// taker takes what a server sends. It may block while the link stands.
type taker interface {
	take(a arrival)

	// release takes note that the server does not send the message of QoS 2 again
	// that it had numbered id. complete lets it use the number for another one.
	release(id uint16, complete func())
}

// arrival is a message that the server sent.
type arrival struct {
	mqtt.Message        // its topic is the server's
	id           uint16 // the server's number for it until it is released; QoS 2 only
	again        bool   // the server may have sent it before
	tooLarge     bool   // its payload was larger than max_packet_size, and is gone

	// ack tells the server that the gateway has taken responsibility. It may
	// block while the link stands. It does nothing for QoS 0.
	ack func()
}

// openFunc connects to server, "tcp://host:port". Its errors say what to do.
type openFunc func(ctx context.Context, server string) (link, error)
