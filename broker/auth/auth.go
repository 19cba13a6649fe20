package auth

import (
	"context"
	"errors"
)

// Identity is who a client is. It is comparable.
type Identity struct {
	User     string // as authenticated; "": anonymous
	ClientID string // as chosen by the client or the broker; nobody vouches for it
}

// Request is what a client brings to its authentication.
type Request struct {
	ClientID string
	User     string
	HasUser  bool   // the CONNECT has a user name, which may be empty
	Password []byte // nil: none
	Remote   string // where the client comes from, as "192.0.2.7:49152"
}

// Authenticator says who a client is.
type Authenticator interface {
	// Authenticate returns the identity that r proves, or an error that wraps
	// ErrBadCredentials, ErrNotAuthorized or the error of ctx. It may take long
	// and may be called from any goroutine.
	Authenticate(ctx context.Context, r Request) (Identity, error)
}

// Action is what a client wants to do with a topic.
type Action uint8

// The actions, and what their topic is.
const (
	Read      Action = iota // get a message: its topic name
	Write                   // publish a message, also a will: its topic name
	Subscribe               // subscribe: the topic filter, without a $share/group/ before it
)

// Authorizer says what a client may do.
type Authorizer interface {
	// Allowed reports whether id may do a with topic, which is lawful. It may
	// be called from any goroutine, for every message.
	Allowed(id Identity, a Action, topic string) bool
}

// Why a client is refused, to be matched with [errors.Is].
var (
	// ErrBadCredentials means that user name and password do not belong
	// together. CONNACK has return code 4 for it (MQTT 3.1.1, section 3.2.2.3).
	ErrBadCredentials = errors.New("wrong user name or password")

	// ErrNotAuthorized means that the client may not connect without a user
	// name. CONNACK has return code 5 for it.
	ErrNotAuthorized = errors.New("not authorized")
)
