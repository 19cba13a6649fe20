package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Passwords are the users of a password file. They do not change; a file that
// did is loaded again, and what was verified before counts no more.
type Passwords struct {
	users    map[string]hash
	cost     int // iterations that every wrong password costs
	verified *verified

	// hashing holds a token while a password is hashed: one at a time, so that
	// a flood of wrong passwords leaves the other cores, or half of the only
	// one, to those who are in.
	hashing chan struct{}
}

// LoadPasswords reads a password file in mosquitto's format. If lines are wrong
// the error is a [LineErrors] with all of them. The path is as in the messages.
func LoadPasswords(path string) (*Passwords, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the password file: %w", err)
	}
	return parsePasswords(path, text)
}

func parsePasswords(path string, text []byte) (*Passwords, error) {
	p := &Passwords{users: make(map[string]hash), verified: newVerified(), hashing: make(chan struct{}, 1)}
	lines := make(map[string]int)
	err := eachLine(path, text, func(n int, line string) error {
		user, h, err := parseUser(line)
		if err != nil || user == "" {
			return err
		}
		if first, twice := lines[user]; twice {
			return fmt.Errorf("user %q has a password in line %d already: keep one of the two", user, first)
		}
		lines[user], p.users[user] = n, h
		p.cost = max(p.cost, h.iterations)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(p.users) == 0 {
		p.cost = writeIterations
	}
	return p, nil
}

// parseUser reads a line. The user is "" if the line holds none.
func parseUser(line string) (user string, h hash, err error) {
	if isRemark(line) {
		return "", hash{}, nil
	}
	user, text, ok := cutUser(line)
	if !ok {
		return "", hash{}, errors.New("the line has no colon; it takes the form user:hash, which the command passwd writes")
	}
	if err := CheckUser(user); err != nil {
		return "", hash{}, err
	}
	if h, err = parseHash(text); err != nil {
		return "", hash{}, fmt.Errorf("user %q: %w", user, err)
	}
	return user, h, nil
}

// isRemark reports whether a line is a comment or blank. As with mosquitto the
// hash sign of a comment is the first character.
func isRemark(line string) bool {
	return strings.HasPrefix(line, "#") || strings.Trim(line, blanks) == ""
}

// cutUser splits user:hash. Blanks around either do not count.
func cutUser(line string) (user, text string, ok bool) {
	user, text, ok = strings.Cut(line, ":")
	return strings.Trim(user, blanks), strings.Trim(text, blanks), ok
}

// Verify reports whether password is that of user. A wrong one costs as much as
// the dearest hash in the file, whether there is such a user or not; a right one
// costs next to nothing the second time. It may be called from any goroutine, and
// waits for its turn.
func (p *Passwords) Verify(user string, password []byte) bool {
	ok, _ := p.verify(context.Background(), user, password)
	return ok
}

// verify is Verify for callers that do not wait for ever. Its error is that of ctx.
func (p *Passwords) verify(ctx context.Context, user string, password []byte) (bool, error) {
	if len(password) == 0 || len(password) > maxPassword {
		return false, nil // nobody's: SetPassword takes none of these
	}
	proof := p.verified.proof(user, password)
	if p.verified.has(proof) {
		return true, nil
	}
	select {
	case p.hashing <- struct{}{}:
		defer func() { <-p.hashing }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return false, err // select takes either
	}
	if p.verified.has(proof) { // since somebody had it hashed while we waited
		return true, nil
	}
	if !p.hashed(user, password) {
		return false, nil
	}
	p.verified.add(proof)
	return true, nil
}

// hashed compares password with the user's hash. What a wrong one did not cost is
// made up for, so that time tells nobody whether the user exists.
func (p *Passwords) hashed(user string, password []byte) bool {
	h, known := p.users[user]
	if known && h.matches(password) {
		return true
	}
	if rest := p.cost - h.iterations; rest > 0 {
		hash{iterations: rest, salt: make([]byte, saltSize)}.matches(password)
	}
	return false
}
