//go:build !unix

package broker

import "net"

// newSocket returns nil: only on Unix is a socket used directly.
func newSocket(net.Conn) transport { return nil }

func isReset(error) bool { return false }
