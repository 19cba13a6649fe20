package auth

import (
	"context"
	"fmt"
)

// Accounts let clients in that know a password, and others if they may be
// anonymous. The zero value lets nobody in.
type Accounts struct {
	Passwords *Passwords // nil: there is no password file
	Anonymous bool       // clients may connect without a user name
}

// Authenticate implements [Authenticator].
//
// Without a password file a user name proves nothing: such a client is anonymous
// if that is allowed, so that no rule for a user applies to whoever takes the name.
func (a Accounts) Authenticate(ctx context.Context, r Request) (Identity, error) {
	named := r.HasUser && a.Passwords != nil
	switch {
	case !named && a.Anonymous:
		return Identity{ClientID: r.ClientID}, nil
	case !named && a.Passwords == nil:
		return Identity{}, fmt.Errorf("%w: anonymous clients are not allowed, and no password_file says who else is", ErrNotAuthorized)
	case !named:
		return Identity{}, fmt.Errorf("%w: the client gives no user name, and anonymous clients are not allowed", ErrNotAuthorized)
	}
	known, err := a.Passwords.verify(ctx, r.User, r.Password)
	switch {
	case err != nil:
		return Identity{}, fmt.Errorf("check the password of user %q: %w", r.User, err)
	case !known:
		return Identity{}, fmt.Errorf("%w: user %q", ErrBadCredentials, r.User)
	}
	return Identity{User: r.User, ClientID: r.ClientID}, nil
}
