package auth

import (
	"errors"
	"fmt"
	"strings"

	"tidegate/mqtt"
)

// ACL are the rules of an access control list. What no rule grants is forbidden,
// and so is what any rule denies. The zero value forbids everything.
type ACL struct {
	users    map[string]*rules // of each user; "": of anonymous clients
	patterns rules             // of everybody, with %u and %c
}

// access is what a rule grants or, with deny, takes away.
type access uint8

const (
	read access = 1 << iota
	write
	deny
)

// LoadACL reads a file in the syntax of mosquitto's acl_file. If lines are wrong
// the error is a [LineErrors] with all of them. The path is as in the messages.
func LoadACL(path string) (*ACL, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the ACL file: %w", err)
	}
	return parseACL(path, text)
}

func parseACL(path string, text []byte) (*ACL, error) {
	acl := &ACL{users: make(map[string]*rules)}
	user := ""
	err := eachLine(path, text, func(_ int, line string) error {
		word, rest := cutWord(line)
		switch {
		case word == "" || word[0] == '#':
			return nil
		case word == "topic":
			return acl.of(user).parse(rest, splitTopic)
		case word == "pattern":
			return acl.patterns.parse(rest, splitPattern)
		case word != "user":
			return fmt.Errorf("a line begins with topic, pattern, user or #, not with %q", word)
		case rest == "":
			return errors.New("user takes a name, as in: user alice")
		}
		user = rest
		return nil
	})
	if err != nil {
		return nil, err
	}
	return acl, nil
}

// of returns the rules of user, which may be new.
func (acl *ACL) of(user string) *rules {
	r := acl.users[user]
	if r == nil {
		r = new(rules)
		acl.users[user] = r
	}
	return r
}

// parse adds the rule that a line holds behind its first word.
func (r *rules) parse(line string, split func(filter string) []level) error {
	grant, filter, err := cutAccess(line)
	if err != nil {
		return err
	}
	if err := mqtt.ValidFilter(filter); err != nil {
		return err
	}
	r.add(rule{split(filter), grant})
	return nil
}

// cutAccess splits a line like "read FILTER". Without a second word the first is
// the filter. With one the filter may have blanks inside.
func cutAccess(line string) (access, string, error) {
	word, rest := cutWord(line)
	switch {
	case word == "":
		return 0, "", errors.New("the topic is missing, as in: topic read sensor/#")
	case rest == "":
		return read | write, word, nil
	}
	switch word {
	case "read":
		return read, rest, nil
	case "write":
		return write, rest, nil
	case "readwrite":
		return read | write, rest, nil
	case "deny":
		return deny, rest, nil
	}
	return 0, "", fmt.Errorf("the access is read, write, readwrite or deny, not %q; a topic with blanks needs one before it", word)
}

// cutWord splits the first word off a line.
func cutWord(line string) (word, rest string) {
	line = strings.Trim(line, blanks)
	if i := strings.IndexAny(line, blanks); i >= 0 {
		return line[:i], strings.TrimLeft(line[i:], blanks)
	}
	return line, ""
}

// Allowed implements [Authorizer]. For Read and Write it allocates nothing.
//
// A subscription is refused only if no message that it matches could be read:
// whether a single message may be delivered is a question of its own. So a client
// may subscribe to # and gets what it may read.
func (acl *ACL) Allowed(id Identity, a Action, topic string) bool {
	switch a {
	case Read:
		return acl.grants(id, read, topic)
	case Write:
		return acl.grants(id, write, topic)
	case Subscribe:
		return acl.readable(id, topic)
	}
	return false
}

// grants reports whether a rule grants want and none denies it.
func (acl *ACL) grants(id Identity, want access, name string) bool {
	sum := acl.patterns.match(id, name)
	if r := acl.users[id.User]; r != nil {
		sum |= r.match(id, name)
	}
	return sum&deny == 0 && sum&want != 0
}
