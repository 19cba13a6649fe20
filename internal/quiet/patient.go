package quiet

import (
	"net"
	"time"
)

// Patient is a connection of [Over] whose reader need not be woken for each byte.
type Patient interface {
	// Await has Read, when there is nothing, wait until least bytes are there, for
	// patience at most. Then it waits for any until deadline. A zero deadline is
	// none. It holds until the next call, and is for the goroutine that reads. A
	// runtime with nothing else to do takes a patience of less than a millisecond for one.
	Await(least int, patience time.Duration, deadline time.Time)
}

// Under returns the connection of [Over] that is below others, such as TLS, if they
// have a method NetConn as [crypto/tls.Conn]; nil if there is none.
func Under(c net.Conn) Patient {
	for {
		if p, ok := c.(Patient); ok {
			return p
		}
		upper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = upper.NetConn()
	}
}
