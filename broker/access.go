package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"tidegate/broker/auth"
	"tidegate/internal/check"
)

// access is who may connect, and what clients may do. It is not written; Reload
// makes another one.
type access struct {
	authenticator auth.Authenticator
	authorizer    auth.Authorizer // nil: everybody may do everything
	log           *slog.Logger
}

// may reports whether who may do something with a topic. An error means that the
// program's authorizer panicked, which is no permission.
func (a *access) may(who auth.Identity, do auth.Action, topic string) (ok bool, err error) {
	if a == nil || a.authorizer == nil {
		return true, nil
	}
	defer caught(func() *slog.Logger { return a.log }, "Authorizer", &err)
	return a.authorizer.Allowed(who, do, topic), nil
}

// Reload reads the password file and the ACL file again. If one of them is wrong
// both stay in force as they were. Clients that are connected stay connected;
// rights count from the next message on, also for what waits to be subscribed
// to or published. What was queued before is still delivered.
//
// A program with an Authorizer of its own calls Reload when that has changed its
// mind about reading: who gets the messages of a topic is remembered.
func (b *Broker) Reload() error {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	a := &access{authenticator: b.hooks.Authenticator, authorizer: b.hooks.Authorizer, log: b.log}
	var errPasswords, errACL error
	if a.authenticator == nil {
		a.authenticator, errPasswords = b.cfg.accounts()
	}
	if a.authorizer == nil && b.cfg.ACLFile != "" {
		a.authorizer, errACL = auth.LoadACL(b.cfg.ACLFile)
	}
	if err := errors.Join(errPasswords, errACL); err != nil {
		return err
	}
	b.access.Store(a)
	b.trie.setAccess(a)
	b.lookAtShares()
	return nil
}

// accounts are those of the password file.
func (c *Config) accounts() (a auth.Accounts, err error) {
	a.Anonymous = c.AllowAnonymous != nil && *c.AllowAnonymous
	if c.PasswordFile != "" {
		a.Passwords, err = auth.LoadPasswords(c.PasswordFile)
	}
	return a, err
}

// setAccess makes the trie match only who may read.
func (t *trie) setAccess(a *access) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.access, t.cached = a, nil
}

// readable leaves out of m who may not read its topic. Inboxes may everything.
// The caller holds the trie's lock.
func (m *matches) readable(a *access) *matches {
	if a == nil || a.authorizer == nil {
		return m
	}
	may := func(s *session) bool {
		ok, _ := a.may(s.identity, auth.Read, m.topic)
		return ok || s.inbox
	}
	mayNot := func(to target) bool {
		if g := to.s.share; g != nil {
			return !g.mayRead(may)
		}
		return !may(to.s)
	}
	m.durable = slices.DeleteFunc(m.durable, mayNot)
	m.transient = slices.DeleteFunc(m.transient, mayNot)
	return m
}

// identify notes who has the session now. It reports whether that was somebody
// else before.
func (s *session) identify(who auth.Identity) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.identity == who {
		return false
	}
	t := &s.b.trie
	t.mu.Lock()
	defer t.mu.Unlock()
	s.identity = who
	if len(s.subs) > 0 {
		t.cached = nil
	}
	return true
}

// isFor reports whether the session may be handed to who: a user's session, with
// what is queued in it, is not for other users who come with its client id. An
// anonymous one never was anybody's secret.
func (s *session) isFor(who auth.Identity) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity.User == "" || s.identity.User == who.User
}

// mayRead reports whether the session may get a message now.
func (s *session) mayRead(topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mayReadLocked([]byte(topic))
}

func (s *session) mayReadLocked(topic []byte) bool {
	a := s.b.access.Load()
	if a == nil || a.authorizer == nil || s.inbox {
		return true
	}
	ok, _ := a.may(s.identity, auth.Read, string(topic))
	return ok
}

// unshared takes the $share/group/ off a filter (MQTT 5, section 4.8.2).
func unshared(filter string) string {
	if rest, shared := strings.CutPrefix(filter, "$share/"); shared {
		if _, inner, ok := strings.Cut(rest, "/"); ok {
			return inner
		}
	}
	return filter
}

// setAccessDefaults lets clients in without a user name as long as they can only
// come from this machine.
func (c *Config) setAccessDefaults() {
	if c.AllowAnonymous == nil {
		local := !slices.ContainsFunc(c.Listeners, func(l Listener) bool { return !l.Loopback() })
		c.AllowAnonymous = &local
	}
}

// checkAccess refuses listeners through which nobody could get in. Whether
// strangers from the network may is for the user to say.
func (c *Config) checkAccess(p *check.Problems) {
	if c.PasswordFile != "" || c.AllowAnonymous == nil || *c.AllowAnonymous {
		return
	}
	local, open := true, false
	for i, l := range c.Listeners {
		path := fmt.Sprintf("listeners[%d].address", i)
		wrong := slices.ContainsFunc(*p, func(q check.Problem) bool { return q.Path == path })
		local, open = local && l.Loopback(), open || l.identifies()
		if !wrong && !l.Loopback() && !l.identifies() {
			p.Add(path, "%q is reachable from the network, so say who may connect: name a broker.password_file, which %q makes, "+
				"or write broker.allow_anonymous: true to let everybody in", l.Address, "tidegate passwd FILE USER")
		}
	}
	if local && !open && len(c.Listeners) > 0 {
		p.Add("allow_anonymous", "false lets nobody in: name a password_file as well, which %q makes", "tidegate passwd FILE USER")
	}
}

// identifies reports whether every client of the listener has a user name from its
// certificate.
func (l Listener) identifies() bool { return l.Identity != "" }

// certifiedUser returns the user name that the client's certificate stands for, or "".
func (c *conn) certifiedUser() string { return c.caller().user }
