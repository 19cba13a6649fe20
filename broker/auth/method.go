package auth

import "context"

// Method is a way to authenticate in several steps, which MQTT 5 clients ask for
// by its name (MQTT 5.0, section 4.12): SCRAM, Kerberos, or one of your own.
type Method interface {
	// Begin begins an exchange with the client of r and returns its first step,
	// which is called with what came along with the CONNECT. A user name and a
	// password that the client has sent prove nothing yet.
	//
	// A client that is connected may authenticate again, to renew what expires.
	// Then r.User is whom it has proved to be, and it can become nobody else.
	//
	// Begin may be called from any goroutine. It must be quick.
	Begin(r Request) Step
}

// Step is one step of an exchange. It gets what the client has sent, nil for
// nothing, and may keep it. Of one exchange one step runs at a time, and the
// function is called for each. It may take its time, until ctx is done: only its
// client waits. If the client goes away or takes too long it is not called again.
//
// An error refuses the client. It is told about ErrBadCredentials and
// ErrNotAuthorized; any other means that the server is unavailable.
type Step func(ctx context.Context, data []byte) (Reply, error)

// Reply is what a step answers.
type Reply struct {
	Data []byte // for the client, at most 65535 bytes; nil: none
	Done bool   // the client has proved who it is; else it is to go on
	User string // Done: who that is. "": anonymous
}
