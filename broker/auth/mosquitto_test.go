package auth

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/internal/client"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
)

// houseRules are what both brokers decide by. The user root sees and writes all,
// which shows what the others may.
const houseRules = `# anonymous clients
topic read public/#
topic write in/anonymous
topic plain

user alice
topic readwrite home/#
topic deny home/safe/#
topic read home/safe/open
topic write log/+/x
topic read   with space/a b
topic read $app/+
user bob
topic #
topic deny secret
user alice
topic read late
topic write late/#

  user root
topic #
topic readwrite $app/#
topic readwrite $evil/#

user dora
topic readwrite shelf/#
pattern own/%u/#
pattern deny own/%u/locked
pattern write dev/%c/data
pattern read part-%u-x/%c
pattern read %c/first
pattern read everybody/+
pattern deny shelf/%u
`

// clients of the comparison; what each has as user name is its password.
var houseClients = []Identity{
	{"", "c1"},
	{"alice", "c1"},
	{"alice", "alice"},
	{"bob", "c1"},
	{"carol", "c2"}, // not in the ACL
	{"dora", "c1"},
	{"alice", "a/b"},
	{"alice", "a+b"},
	{"carol", "#"},
	{"u/v", "c1"},
	{"+", "c1"},
	{"carol", "$evil"},
}

var houseTopics = []string{
	"public", "public/a", "in/anonymous", "plain", "nowhere",
	"home", "home/kitchen", "home/safe", "home/safe/open", "home/safe/x", "log/a/x", "log/a", "with space/a b", "with space/a",
	"$app/a", "$app/a/b", "secret", "secret/a", "late", "late/a",
	"own/alice", "own/alice/a", "own/alice/locked", "own/bob/a", "own/bob/locked", "own/carol/a", "own/u/v/a", "own/u", "own/u/v/locked",
	"dev/c1/data", "dev/c2/data", "dev/c1", "dev/a/b/data", "part-alice-x/c1", "part-carol-x/c2", "part--x/c1",
	"c1/first", "alice/first", "$evil/first", "a/b/first", "everybody/a", "everybody/a/b",
	"shelf", "shelf/dora", "shelf/a",
}

// differs says where the two brokers decide differently on purpose, and whether it
// is we who forbid.
func differs(id Identity, topic string) (why string, stricter bool) {
	both := id.User + id.ClientID
	switch {
	case topic == "shelf/"+id.User, topic == "own/"+id.User+"/locked":
		return "with mosquitto a topic rule beats the denial of a pattern", true
	case strings.HasPrefix(id.ClientID, "$"):
		return "with mosquitto a client id reaches $ topics by a pattern that does not begin with $", true
	case strings.ContainsAny(both, "+#"):
		return "with mosquitto no pattern is for a client with + or # in one of its names, whichever of them it uses", false
	case strings.Contains(both, "/"):
		return "with mosquitto a name can be several levels", true
	}
	return "", false
}

// The real broker and our rules decide the same, reading and writing.
func TestACLDecidesLikeMosquitto(t *testing.T) {
	dir := t.TempDir()
	addr := testbed.StartMosquitto(t, "allow_anonymous true", "sys_interval 0", houseAccounts(t, dir), houseACL(t, dir)).Addr
	rules := acl(t, houseRules)
	root, seen := connect(t, addr, Identity{"root", "root"}, "#", "$app/#", "$evil/#")
	for _, id := range houseClients {
		c, got := connect(t, addr, id, houseTopics...)
		publishAll(t, root, houseTopics)
		barrier(t, c)
		compare(t, rules, id, Read, take(got))
		take(seen)

		publishAll(t, c, houseTopics)
		barrier(t, root)
		compare(t, rules, id, Write, take(seen))
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
	}
}

func compare(t *testing.T, rules *ACL, id Identity, action Action, allowed []string) {
	t.Helper()
	for _, topic := range houseTopics {
		ours, theirs := rules.Allowed(id, action, topic), slices.Contains(allowed, topic)
		if ours == theirs {
			continue
		}
		why, stricter := differs(id, topic)
		if why == "" || ours == stricter {
			t.Errorf("%+v, action %d, %q: we allow %v, mosquitto %v", id, action, topic, ours, theirs)
			continue
		}
		t.Logf("%+v, action %d, %q: we allow %v: %s", id, action, topic, ours, why)
	}
}

// houseAccounts is a password file of ours, for mosquitto to read.
func houseAccounts(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "passwd")
	for _, user := range []string{"root", "alice", "bob", "carol", "dora", "u/v", "+"} {
		if err := SetPassword(path, user, []byte(user)); err != nil {
			t.Fatal(err)
		}
	}
	return "password_file " + path
}

func houseACL(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "acl")
	if err := os.WriteFile(path, []byte(houseRules), 0o600); err != nil {
		t.Fatal(err)
	}
	return "acl_file " + path
}

// connect subscribes to the filters and returns what comes.
func connect(t *testing.T, addr string, id Identity, filters ...string) (*client.Conn, chan string) {
	t.Helper()
	got := make(chan string, 1000)
	c, err := client.Dial(deadline(t), addr, client.Options{
		ClientID: id.ClientID, Username: id.User, Password: id.User, CleanSession: true,
		Handler: func(m client.Message) { got <- m.Topic },
	})
	if err != nil {
		t.Fatalf("%+v: %v", id, err)
	}
	t.Cleanup(c.Close)
	var subs []mqtt.Subscription
	for _, filter := range filters {
		subs = append(subs, mqtt.Subscription{Filter: filter})
	}
	if _, err := c.Subscribe(deadline(t), subs...); err != nil {
		t.Fatal(err)
	}
	return c, got
}

// publishAll publishes a message to each topic. The broker has routed all of them
// when it returns.
func publishAll(t *testing.T, c *client.Conn, topics []string) {
	t.Helper()
	for _, topic := range topics {
		if err := c.PublishAsync(deadline(t), mqtt.Message{Topic: topic}, nil); err != nil {
			t.Fatal(err)
		}
	}
	barrier(t, c)
}

// barrier returns when all that the broker sent before has come.
func barrier(t *testing.T, c *client.Conn) {
	t.Helper()
	if _, err := c.Subscribe(deadline(t), mqtt.Subscription{Filter: "barrier"}); err != nil {
		t.Fatal(err)
	}
}

func take(from chan string) []string {
	var all []string
	for len(from) > 0 {
		all = append(all, <-from)
	}
	return all
}

// A file of ours lets the same in there, and a file of theirs here.
func TestPasswordFilesWorkBothWays(t *testing.T) {
	theirs := testbed.Find(t, "mosquitto_passwd")
	path := filepath.Join(t.TempDir(), "passwd")
	if err := SetPassword(path, "ours", []byte("s3cret ü")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-b", path, "seven", "pass seven"},
		{"-H", "sha512", "-b", path, "six", "pass six"},
		{"-b", path, "gone", "x"},
		{"-D", path, "gone"},
	} {
		if out, err := exec.Command(theirs, args...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd %q: %v: %s", args, err, out)
		}
	}
	if err := SetPassword(path, "again", []byte("pass again")); err != nil {
		t.Fatal(err)
	}
	p, err := LoadPasswords(path)
	if err != nil || len(p.users) != 4 {
		t.Fatalf("got %v, %v", p, err)
	}
	addr := testbed.StartMosquitto(t, "password_file "+path, "allow_anonymous false").Addr
	for user, password := range map[string]string{"ours": "s3cret ü", "seven": "pass seven", "six": "pass six", "again": "pass again"} {
		for try, want := range map[string]bool{password: true, password + "!": false} {
			c, err := client.Dial(deadline(t), addr, client.Options{ClientID: "c", Username: user, Password: try, CleanSession: true})
			if err == nil {
				c.Close()
			}
			if _, refused := errors.AsType[*client.RefusedError](err); (err == nil) != want || refused == want {
				t.Errorf("mosquitto, %s, %q: %v", user, try, err)
			}
			if p.Verify(user, []byte(try)) != want {
				t.Errorf("here, %s, %q: %v", user, try, !want)
			}
		}
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
