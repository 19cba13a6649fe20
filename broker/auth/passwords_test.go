package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// Made by Debian's mosquitto_passwd 2.0.11 of the passwords in madeWith.
const mosquittoFile = `# the house
alice:$7$101$kq+KyU9aMz/v4s61$rQ6FguuixJp2s4EZLY5sGNnJ5PcvnvNuuaB69i0fiPopn93eDrGvZusWevJ7ieGh3ftpwgQc0LSU/7eKwUV5HQ==

bob:$7$101$E6r2chKfd2jXt+GS$KvynM2sRpLFwxJmxD7IwuENDNbZO3KxlmS41CGRk6mC9jKIh/3THu6gmDjmlzQEJhlQSpdWpG5E8Ds9TpeRjzQ==
carol:$6$lnbFf8j6GMODVFB+$a3SOgESQ5bCxioIO06doS8VUHnlU3Cv5RnO5XIM1FPY3H7ednnkpQpiHSLBBlgybtWPeNaoFjdqMS2+ceJkg6g==
it:$7$1000$RytV7UmAXkWtnkQ0$5vzyTQN+9Etj71ecgn27sRC3avcz9wj6Z2kyBKgRhnNN95xyJBTfvTeXNWYn+j+E9V1hLSfqtBGgjkorDZagQw==
#dave:$7$101$A8dloEKWn7SaDz73$PivW98nhrkv6Z7x3d0blSgJ5LIqOEXP3/iu3fgM78DrMWKj0pp2vnf1ZR94V1vO21L7MHAiQ0EiZtSEso1/CJA==
long:$7$101$8qcLNxJk/oT0qHVs$7g9M/DzVdLcr6pE+EY7ZhpuRnhhY9d6SZQIyXxALohNmBZq4Qe8HOdcsPVf5hFxF73cjfPRWMw8I3Bejj8JlJQ==
`

var madeWith = map[string]string{
	"alice": "secret", "bob": "pä ss", "carol": "secret6", "it": "x", "long": strings.Repeat("x", 300),
}

// passwords parses the lines of a file without mistakes.
func passwords(t testing.TB, text string) *Passwords {
	t.Helper()
	p, err := parsePasswords("passwd", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFileOfMosquittoPasswd(t *testing.T) {
	for name, text := range map[string]string{"LF": mosquittoFile, "CRLF": strings.ReplaceAll(mosquittoFile, "\n", "\r\n")} {
		p := passwords(t, text)
		if len(p.users) != len(madeWith) {
			t.Errorf("%s: %d users, want %d", name, len(p.users), len(madeWith))
		}
		for user, password := range madeWith {
			for range 2 { // hashed, remembered
				if !p.Verify(user, []byte(password)) {
					t.Errorf("%s: the password of %s is refused", name, user)
				}
			}
			// HMAC fills its key up with zeros, so one more at the end would be right.
			for _, wrong := range []string{"", password + "x", strings.ToUpper(password), "\x00", "\x00" + password} {
				if p.Verify(user, []byte(wrong)) {
					t.Errorf("%s: %q is taken as the password of %s", name, wrong, user)
				}
			}
		}
		for _, nobody := range []string{"", "dave", "#dave", "Alice", "alice "} {
			if p.Verify(nobody, []byte("secret")) || p.Verify(nobody, []byte("x")) {
				t.Errorf("%s: %q can log in", name, nobody)
			}
		}
	}
}

func TestWrongLinesAreNamedAllAtOnceAndWithoutPasswords(t *testing.T) {
	salt, sum := base64.StdEncoding.EncodeToString(make([]byte, 12)), base64.StdEncoding.EncodeToString(make([]byte, 64))
	cases := []struct{ line, reason string }{
		{"hunter2", "the line has no colon"},
		{"alice:hunter2", `user "alice": the password is not hashed`},
		{"alice:", `user "alice": the password is not hashed`},
		{"alice", "the line has no colon"},
		{":$6$" + salt + "$" + sum, "the user name is empty"},
		{"a\x01b:$6$" + salt + "$" + sum, `the user name "a\x01b" has characters`},
		{"a\xffb:hunter2", "the line is not UTF-8"},
		{"a:$7$101$" + salt, "a $7$ hash has the form"},
		{"a:$6$" + salt, "a $6$ hash has the form"},
		{"a:$7$0$" + salt + "$" + sum, "the iterations of the hash are not a number from 1 to 1000000"},
		{"a:$7$1000001$" + salt + "$" + sum, "the iterations"},
		{"a:$7$99999999999999999999$" + salt + "$" + sum, "the iterations"},
		{"a:$7$hunter2$" + salt + "$" + sum, "the iterations"},
		{"a:$7$1$$" + sum, "the salt is not"},
		{"a:$7$1$hunter2$" + sum, "the salt is not"},
		{"a:$7$1$" + salt + "$" + salt, "the hash is not 64 bytes"},
		{"a:$7$1$" + salt + "$hunter2", "the hash is not"},
		{"a:$argon2id$v=19$hunter2$x", "the kind of the hash is not known"},
		{"a:$2b$12$hunter2", "the kind of the hash is not known"},
		{"b:$6$" + salt + "$" + sum, ""},
		{"b:$6$" + salt + "$" + sum, "user \"b\" has a password in line 20 already"},
	}
	var text strings.Builder
	for _, c := range cases {
		text.WriteString(c.line + "\n")
	}
	_, err := parsePasswords("dir/passwd", []byte(text.String()))
	wrong, ok := errors.AsType[LineErrors](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	for i, c := range cases {
		at := slices.IndexFunc(wrong, func(e LineError) bool { return e.Line == i+1 })
		if at < 0 != (c.reason == "") || at >= 0 && !strings.Contains(wrong[at].Reason, c.reason) {
			t.Errorf("%q: got %v, want %q", c.line, wrong, c.reason)
		}
	}
	if !strings.HasPrefix(err.Error(), "dir/passwd:1: the line has no colon") || strings.Count(err.Error(), "\n") != len(cases)-2 {
		t.Errorf("the text is\n%v", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the text tells a password:\n%v", err)
	}
}

func TestLoadPasswords(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadPasswords(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("# x\n", maxFile/4+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPasswords(big); err == nil || !strings.Contains(err.Error(), "is it the right file?") {
		t.Errorf("a file that is too large: %v", err)
	}
	if p := passwords(t, ""); p.Verify("a", []byte("b")) {
		t.Error("an empty file lets somebody in")
	}
	none, err := newHash(nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := passwords(t, "a:"+none.String()); p.Verify("a", nil) || p.Verify("a", []byte{}) {
		t.Error("the hash of no password lets somebody in without one")
	}
}

func TestOnlyRightPasswordsAreRemembered(t *testing.T) {
	p := passwords(t, mosquittoFile)
	for range 3 {
		p.Verify("alice", []byte("wrong"))
		p.Verify("nobody", []byte("secret"))
		p.Verify("alice", []byte("secret"))
	}
	if n := len(p.verified.proofs); n != 1 {
		t.Errorf("%d are remembered, want 1", n)
	}
	if again := passwords(t, mosquittoFile); again.verified.has(p.verified.proof("alice", []byte("secret"))) || len(again.verified.proofs) > 0 {
		t.Error("a file that was loaded again remembers what was right before")
	}
}

func TestMemoryOfRightPasswordsIsBounded(t *testing.T) {
	v := newVerified()
	for i := range maxVerified + 500 {
		p := v.proof("u", fmt.Append(nil, i))
		v.add(p)
		if !v.has(p) {
			t.Fatalf("the newest, %d, is not remembered", i)
		}
	}
	if n := len(v.proofs); n != maxVerified {
		t.Errorf("%d are remembered, want %d", n, maxVerified)
	}
}

func TestProofsTellNameAndPasswordApart(t *testing.T) {
	v := newVerified()
	if v.proof("ab", []byte("c")) == v.proof("a", []byte("bc")) || v.proof("", []byte("a")) == v.proof("a", nil) {
		t.Error("two pairs have the same proof")
	}
	if v.proof("a", []byte("b")) == newVerified().proof("a", []byte("b")) {
		t.Error("two processes make the same proof")
	}
}

// While a password is hashed others wait, but not for ever, and not those whose
// password is remembered.
func TestWaitingForTheTurn(t *testing.T) {
	p := passwords(t, mosquittoFile)
	p.Verify("alice", []byte("secret"))
	p.hashing <- struct{}{}
	a := Accounts{Passwords: p}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Authenticate(ctx, Request{User: "bob", HasUser: true, Password: []byte("pä ss")}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrBadCredentials) {
		t.Errorf("got %v", err)
	}
	if id, err := a.Authenticate(ctx, Request{User: "alice", HasUser: true, Password: []byte("secret"), ClientID: "c"}); err != nil || id != (Identity{"alice", "c"}) {
		t.Errorf("got %v, %v", id, err)
	}
	<-p.hashing
	if !p.Verify("bob", []byte("pä ss")) {
		t.Error("bob is refused once it is his turn")
	}
}

// Who waits while somebody else has the same password hashed does not hash it again.
func TestOneHashForTheSamePasswordAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := passwords(t, "")
		p.hashing <- struct{}{}
		answer := make(chan bool, 1)
		go func() { answer <- p.Verify("alice", []byte("secret")) }()
		synctest.Wait()
		p.verified.add(p.verified.proof("alice", []byte("secret")))
		<-p.hashing
		if !<-answer { // the file has no alice: only what is remembered can be right
			t.Error("the password was hashed again")
		}
	})
}

func TestVerifyFromManyGoroutines(t *testing.T) {
	p := passwords(t, mosquittoFile)
	var all sync.WaitGroup
	for user, password := range madeWith {
		for range 4 {
			all.Go(func() {
				if !p.Verify(user, []byte(password)) || p.Verify(user, []byte(password+"!")) {
					t.Errorf("wrong answer for %s", user)
				}
			})
		}
	}
	all.Wait()
	if n := len(p.verified.proofs); n != len(madeWith) {
		t.Errorf("%d are remembered, want %d", n, len(madeWith))
	}
}

func TestAccounts(t *testing.T) {
	p := passwords(t, mosquittoFile)
	alice, wrong := Request{"c", "alice", true, []byte("secret"), ""}, Request{"c", "alice", true, []byte("no"), ""}
	nameless := Request{ClientID: "c", Password: []byte("secret")}
	anonymous := Identity{ClientID: "c"}
	cases := []struct {
		name     string
		accounts Accounts
		request  Request
		want     Identity
		err      error
	}{
		{"a user", Accounts{p, false}, alice, Identity{"alice", "c"}, nil},
		{"a user where others are anonymous", Accounts{p, true}, alice, Identity{"alice", "c"}, nil},
		{"a wrong password", Accounts{p, false}, wrong, Identity{}, ErrBadCredentials},
		{"a wrong password does not make one anonymous", Accounts{p, true}, wrong, Identity{}, ErrBadCredentials},
		{"no password", Accounts{p, true}, Request{ClientID: "c", User: "alice", HasUser: true}, Identity{}, ErrBadCredentials},
		{"a password longer than MQTT has", Accounts{p, true}, Request{User: "alice", HasUser: true, Password: make([]byte, maxPassword+1)}, Identity{}, ErrBadCredentials},
		{"an empty user name", Accounts{p, true}, Request{HasUser: true, Password: []byte("x")}, Identity{}, ErrBadCredentials},
		{"no user name", Accounts{p, false}, nameless, Identity{}, ErrNotAuthorized},
		{"anonymous beside a password file", Accounts{p, true}, nameless, anonymous, nil},
		{"anonymous", Accounts{nil, true}, nameless, anonymous, nil},
		{"a name that nobody checks", Accounts{nil, true}, alice, anonymous, nil},
		{"the zero value", Accounts{}, alice, Identity{}, ErrNotAuthorized},
		{"the zero value, no user name", Accounts{}, nameless, Identity{}, ErrNotAuthorized},
	}
	for _, c := range cases {
		id, err := c.accounts.Authenticate(t.Context(), c.request)
		if id != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %+v, %v; want %+v, %v", c.name, id, err, c.want, c.err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", c.name, err)
		}
	}
	var _ Authenticator = Accounts{}
	var _ Authorizer = new(ACL)
}

// What the parser takes, it writes the same, and changing one user leaves the rest.
func FuzzPasswords(f *testing.F) {
	f.Add([]byte(mosquittoFile), "alice")
	f.Add([]byte("a:$6$QUFB$QUFB\r\n#c\n a : $7$1$QQ==$"), "a")
	f.Add([]byte("x:y"), "bob")
	f.Fuzz(func(t *testing.T, text []byte, user string) {
		before, err := parsePasswords("f", text)
		if err != nil {
			if _, ok := errors.AsType[LineErrors](err); !ok {
				t.Fatal(err)
			}
			return
		}
		for name, h := range before.users {
			if again, err := parseHash(h.String()); err != nil || again.String() != h.String() {
				t.Fatalf("the hash of %q becomes %v, %v", name, again, err)
			}
		}
		if CheckUser(user) != nil {
			return
		}
		fresh := hash{iterations: 7, salt: []byte("salt"), sum: make([]byte, 64)}
		text, found := replaceUser(text, user, user+":"+fresh.String()+"\n")
		after, err := parsePasswords("f", text)
		if err != nil || after.users[user].String() != fresh.String() {
			t.Fatalf("after the change: %v\n%q", err, text)
		}
		if _, had := before.users[user]; had != found {
			t.Fatalf("%q: had %v, found %v", user, had, found)
		}
		delete(before.users, user)
		delete(after.users, user)
		if len(before.users) != len(after.users) {
			t.Fatalf("%d users became %d", len(before.users), len(after.users))
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	h, err := newHash([]byte("right"))
	if err != nil {
		b.Fatal(err)
	}
	p := passwords(b, "u:"+h.String()+"\n")
	for _, password := range []string{"wrong", "right"} {
		b.Run(password, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Verify("u", []byte(password))
			}
		})
	}
}
