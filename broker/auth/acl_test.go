package auth

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/mqtt"
)

func acl(t testing.TB, text string) *ACL {
	t.Helper()
	a, err := parseACL("acl", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSubscribe(t *testing.T) {
	const file = `
topic read public/#
user alice
topic read home/+/temp
topic write log/#
topic read a/b
topic deny home/safe/#
topic read vault/#
topic deny vault/#
topic read $app/x
user ben
topic read room/#
topic deny room/+
pattern read own/%u/#
pattern read tray/%c
pattern deny own/%u/locked
`
	alice, ben, nobody := Identity{"alice", "c1"}, Identity{"ben", "c1"}, Identity{"", "c1"}
	cases := []struct {
		id     Identity
		filter string
		want   bool
	}{
		{alice, "#", true},
		{alice, "+", false}, // nothing to read has one level
		{alice, "+/+", true},
		{alice, "home/kitchen/temp", true},
		{alice, "home/kitchen/hum", false},
		{alice, "home/#", true},
		{alice, "home/safe/temp", false},
		{alice, "home/safe/#", false},
		{alice, "+/safe/temp", false},
		{alice, "+/safe/#", false}, // of all that alice may read only home/+/temp has such topics
		{alice, "log/#", false},
		{alice, "vault/#", false},
		{alice, "vault/x", false},
		{alice, "vault", false},
		{ben, "room/#", true}, // room itself, and what is two levels below
		{ben, "room/+", false},
		{ben, "room/a", false},
		{ben, "+", true},
		{alice, "$app/#", true},
		{alice, "$app/y", false},
		{alice, "+/x", false},
		{alice, "own/alice", true},
		{alice, "own/alice/locked", false},
		{alice, "own/alice/+", true},
		{alice, "own/bob/#", false},
		{alice, "tray/c1", true},
		{alice, "tray/c2", false},
		{alice, "public/x", false}, // of anonymous clients only
		{nobody, "public", true},
		{nobody, "public/x/y", true},
		{nobody, "own/#", false},
		{nobody, "tray/+", true},
		{Identity{"alice", "c/1"}, "tray/+/1", false},
		{Identity{"+", "c1"}, "own/alice/x", false},
	}
	a := acl(t, file)
	for _, c := range cases {
		if got := a.Allowed(c.id, Subscribe, c.filter); got != c.want {
			t.Errorf("%+v may subscribe to %s: %v, want %v", c.id, c.filter, got, c.want)
		}
	}
	if a.Allowed(alice, Action(9), "a/b") || new(ACL).Allowed(alice, Read, "a/b") || new(ACL).Allowed(alice, Subscribe, "#") {
		t.Error("an unknown action, or the zero value, allows something")
	}
}

func TestWrongLinesOfAnACLAreNamedAllAtOnce(t *testing.T) {
	cases := []struct{ line, reason string }{
		{"# comment", ""},
		{"  # comment", ""},
		{" \t", ""},
		{"topic", "the topic is missing"},
		{"topic  ", "the topic is missing"},
		{"pattern", "the topic is missing"},
		{"user", "user takes a name"},
		{"topic readonly a", `the access is read, write, readwrite or deny, not "readonly"`},
		{"topic a b", `a topic with blanks needs one before it`},
		{"topic read a/#/b", "levels behind #"},
		{"topic read a+", "a wildcard beside other characters"},
		{"pattern read %u#", "a wildcard beside other characters"},
		{"topic read a\xff", "not UTF-8"},
		{"acl read a", `a line begins with topic, pattern, user or #, not with "acl"`},
		{"Topic a", "a line begins with"},
		{"topic read", ""},
		{"user a b", ""},
		{"topic read " + strings.Repeat("x", 70000), "70000 bytes are more than 65535"},
	}
	var text strings.Builder
	for _, c := range cases {
		text.WriteString(c.line + "\r\n")
	}
	_, err := parseACL("dir/acl", []byte(text.String()))
	wrong, ok := errors.AsType[LineErrors](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	reasons := make(map[int]string)
	for _, e := range wrong {
		reasons[e.Line] = e.Reason
	}
	for i, c := range cases {
		if got := reasons[i+1]; (got == "") != (c.reason == "") || !strings.Contains(got, c.reason) {
			t.Errorf("%.40q: got %.100q, want %q", c.line, got, c.reason)
		}
	}
	if !strings.HasPrefix(err.Error(), "dir/acl:4: the topic is missing") {
		t.Errorf("the text is\n%.200s", err)
	}
}

func TestLoadACL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acl")
	if _, err := LoadACL(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(path, []byte("user alice\ntopic read a"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := LoadACL(path)
	if err != nil || !a.Allowed(Identity{User: "alice"}, Read, "a") || a.Allowed(Identity{User: "alice"}, Write, "a") {
		t.Errorf("got %+v, %v", a, err)
	}
}

// oracle decides as the documentation says, rule by rule and without a tree.
func oracle(a *ACL, id Identity, want access, name string) bool {
	var sum access
	if r := a.users[id.User]; r != nil {
		for _, r := range r.list {
			if mqtt.Match(filterText(r.filter), name) {
				sum |= r.grant
			}
		}
	}
	for _, r := range a.patterns.list {
		if oracleMatch(r, id, name) {
			sum |= r.grant
		}
	}
	return sum&deny == 0 && sum&want != 0
}

func oracleMatch(r rule, id Identity, name string) bool {
	names := strings.NewReplacer("%u", id.User, "%c", id.ClientID)
	for i, l := range r.filter {
		hasUser, hasClient := strings.Contains(l.text, "%u"), strings.Contains(l.text, "%c")
		bad := func(used bool, name string) bool {
			return used && (strings.ContainsAny(name, "+#/") || i == 0 && strings.HasPrefix(name, "$"))
		}
		switch {
		case hasUser && id.User == "" || hasClient && id.ClientID == "":
			return false
		case bad(hasUser, id.User) || bad(hasClient, id.ClientID):
			if i == 0 {
				return r.grant == deny
			}
			return r.grant == deny && mqtt.Match(names.Replace(filterText(r.filter[:i]))+"/+/#", name)
		}
	}
	return mqtt.Match(names.Replace(filterText(r.filter)), name)
}

func filterText(levels []level) string {
	texts := make([]string, len(levels))
	for i, l := range levels {
		texts[i] = l.text
	}
	return strings.Join(texts, "/")
}

// agrees holds a against the oracle, and the decision about a subscription against
// those about the messages that it brings.
func agrees(t *testing.T, a *ACL, id Identity, filter, name string) {
	t.Helper()
	for action, want := range map[Action]access{Read: read, Write: write} {
		if got := a.Allowed(id, action, name); got != oracle(a, id, want, name) {
			t.Fatalf("%+v, action %d, %q: allowed %v, want %v", id, action, name, got, !got)
		}
	}
	if mqtt.Match(filter, name) && a.Allowed(id, Read, name) && !a.Allowed(id, Subscribe, filter) {
		t.Fatalf("%+v may read %q, but not subscribe to %q", id, name, filter)
	}
}

// Small random rules over an alphabet of few levels meet each other often.
func TestRandomRulesAgreeWithTheOracle(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	path := func(levels ...string) string {
		all := make([]string, 1+r.IntN(3))
		for i := range all {
			all[i] = pick(levels...)
		}
		return strings.Join(all, "/")
	}
	for range 2000 {
		var text strings.Builder
		for range r.IntN(8) {
			grant := pick("read", "write", "readwrite", "deny")
			switch r.IntN(5) {
			case 0:
				fmt.Fprintf(&text, "user %s\n", pick("a", "b", "$x"))
			case 1, 2:
				fmt.Fprintf(&text, "topic %s %s\n", grant, path("a", "b", "", "+", "$x")+pick("", "", "/#"))
			default:
				fmt.Fprintf(&text, "pattern %s %s\n", grant, path("a", "b", "+", "%u", "%c", "x%u", "%c%u")+pick("", "", "/#"))
			}
		}
		rules := acl(t, text.String())
		for range 20 {
			id := Identity{pick("", "a", "b", "$x", "a/b", "+"), pick("a", "b", "xa", "", "$x", "#")}
			agrees(t, rules, id, path("a", "b", "+", "$x", "xa")+pick("", "/#"), path("a", "b", "", "xa", "$x", "ab"))
		}
		if t.Failed() {
			t.Logf("the rules were\n%s", text.String())
			return
		}
	}
}

// Without denials a subscription is allowed exactly if something could come.
func TestSubscriptionIsRefusedIfNothingCouldCome(t *testing.T) {
	levels := []string{"a", "b", "+", "#", "$x"}
	names := []string{"a", "b", "$x"}
	filters, topics := paths(levels, 3), paths(append(names, "c"), 4)
	for _, grant := range filters {
		rules := acl(t, "topic read "+grant)
		for _, asked := range filters {
			want := false
			for _, name := range topics {
				want = want || mqtt.Match(grant, name) && mqtt.Match(asked, name)
			}
			if got := rules.Allowed(Identity{}, Subscribe, asked); got != want {
				t.Errorf("with %s granted, %s may be subscribed: %v, want %v", grant, asked, got, want)
			}
		}
	}
}

// paths are all lawful filters of up to depth of these levels.
func paths(levels []string, depth int) []string {
	all, last := []string{}, []string{""}
	for i := range depth {
		var next []string
		for _, head := range last {
			for _, l := range levels {
				p := head + "/" + l
				if i == 0 {
					p = l
				}
				if mqtt.ValidFilter(p) == nil {
					next = append(next, p)
				}
			}
		}
		all, last = append(all, next...), next
	}
	return all
}

func FuzzACL(f *testing.F) {
	f.Add([]byte(houseRules), "alice", "c1", "home/+", "home/safe/x")
	f.Add([]byte("pattern deny %c/%u/#\npattern a%ub/+\nuser $x\ntopic #"), "$x", "a/b", "#", "$x/y")
	f.Add([]byte("topic deny a\r\ntopic read a/#"), "", "", "a/#", "a")
	f.Fuzz(func(t *testing.T, text []byte, user, client, filter, name string) {
		a, err := parseACL("f", text)
		if err != nil {
			if _, ok := errors.AsType[LineErrors](err); !ok {
				t.Fatal(err)
			}
			return
		}
		if mqtt.ValidFilter(filter) == nil && mqtt.ValidName(name) == nil {
			agrees(t, a, Identity{user, client}, filter, name)
		}
	})
}

// hundred has 100 rules: 60 of a user, 20 of another, 20 patterns.
func hundred(tb testing.TB) *ACL {
	var text strings.Builder
	text.WriteString("user plant\n")
	for i := range 60 {
		fmt.Fprintf(&text, "topic read site/%d/+/temperature\n", i)
	}
	text.WriteString("user other\n")
	for i := range 20 {
		fmt.Fprintf(&text, "topic readwrite other/%d/#\n", i)
	}
	for i := range 20 {
		fmt.Fprintf(&text, "pattern write device/%d/%%u/%%c/data\n", i)
	}
	return acl(tb, text.String())
}

func TestDecisionsDoNotAllocate(t *testing.T) {
	a, id := hundred(t), Identity{"plant", "c1"}
	for topic, action := range map[string]Action{"site/59/kitchen/temperature": Read, "device/19/plant/c1/data": Write} {
		if !a.Allowed(id, action, topic) {
			t.Errorf("%s is forbidden", topic)
		}
		if n := testing.AllocsPerRun(100, func() { a.Allowed(id, action, topic) }); n > 0 {
			t.Errorf("%s: %v allocations", topic, n)
		}
	}
}

func BenchmarkAllowed(b *testing.B) {
	a, id := hundred(b), Identity{"plant", "c1"}
	for _, c := range []struct {
		name, topic string
		action      Action
	}{
		{"read", "site/59/kitchen/temperature", Read},
		{"pattern", "device/19/plant/c1/data", Write},
		{"forbidden", "site/99/kitchen/temperature", Read},
		{"subscribe", "site/59/#", Subscribe},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.Allowed(id, c.action, c.topic)
			}
		})
	}
}
