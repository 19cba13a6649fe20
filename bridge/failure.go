package bridge

import (
	"errors"
	"fmt"
	"net"
)

// Step is a part of the way to a server that works.
type Step string

// The steps, in their order.
const (
	StepDNS       Step = "dns"
	StepTCP       Step = "tcp"
	StepTLS       Step = "tls"
	StepWebSocket Step = "websocket"
	StepConnect   Step = "connect"
	StepSubscribe Step = "subscribe"
	StepEcho      Step = "echo"
	StepWill      Step = "will" // of a Trial only: CONNECT with the bridge's will
)

// stepError is why a step failed.
type stepError struct {
	step Step
	error
}

func (e *stepError) Unwrap() error { return e.error }

// failedAt says at which step err came about; nil stays nil.
func failedAt(step Step, err error) error {
	if err == nil {
		return nil
	}
	return &stepError{step, err}
}

// localError is what goes wrong on this side.
type localError struct {
	doing string
	error
}

func (e *localError) Error() string { return fmt.Sprintf("%s: %v", e.doing, e.error) }

func (e *localError) Unwrap() error { return e.error }

// Why a bridge left a server that it had reached, in a word. On the way there, the
// word is the step's.
const (
	causeStalled = "stalled" // nothing was acknowledged for stall_timeout
	causeSilent  = "silent"  // not even pings were answered
	causeUnread  = "unread"  // the server read no more
	causeClosed  = "closed"  // the server or the network ended the connection
	causeEnded   = "ended"   // the server said that it ends it, in MQTT 5
	causeRefused = "refused" // the server refused a message, not for good
	causeLocal   = "local"   // the queue here could not be read, or not be written
	causeOther   = "other"
)

// causeOf sorts what ends a try or a link into a fixed set of words.
func causeOf(err error) string {
	var at *stepError
	var stalled *stallError
	var bye *farewell
	var r *refusal
	var here *localError
	switch {
	case errors.As(err, &at):
		return string(at.step)
	case errors.As(err, &stalled):
		return causeStalled
	case errors.As(err, &bye):
		return causeEnded
	case errors.As(err, &r):
		return causeRefused
	case errors.Is(err, errNotReading):
		return causeUnread
	case errors.As(err, &here):
		return causeLocal
	case isTimeout(err):
		return causeSilent
	case isClosed(err), errors.Is(err, net.ErrClosed):
		return causeClosed
	}
	return causeOther
}
