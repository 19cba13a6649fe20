package proxy

import "fmt"

// Mode is what the network does to connections.
type Mode int

// The modes. A connection that went through Silent, UpOnly or DownOnly has holes,
// so it is reset when the mode changes.
const (
	// Pass hands bytes on in both directions.
	Pass Mode = iota

	// Cut resets every connection, and each new one as soon as it is accepted.
	Cut

	// Drop ends every connection in an orderly way, and each new one as soon
	// as it is accepted, as a load balancer without a server does.
	Drop

	// Silent keeps connections open and accepts new ones, but swallows every
	// byte and every end of a connection in both directions.
	Silent

	// UpOnly swallows what the server sends, DownOnly what the client sends.
	UpOnly
	DownOnly

	// HalfOpen loses the connections that stand when it is set: the server's
	// side is reset, the client hears nothing of it, ever. New ones pass.
	HalfOpen
)

// String names the mode.
func (m Mode) String() string {
	switch m {
	case Pass:
		return "pass"
	case Cut:
		return "cut"
	case Drop:
		return "drop"
	case Silent:
		return "silent"
	case UpOnly:
		return "up only"
	case DownOnly:
		return "down only"
	case HalfOpen:
		return "half-open"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// swallows reports whether bytes of one way get lost.
func (m Mode) swallows(up bool) bool {
	return m == Silent || m == UpOnly && !up || m == DownOnly && up
}

// leavesHoles reports whether connections have holes after the mode.
func (m Mode) leavesHoles() bool { return m.swallows(true) || m.swallows(false) }
