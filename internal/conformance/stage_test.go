package conformance

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/broker"
	"tidegate/broker/auth"
	"tidegate/internal/balance"
	"tidegate/internal/units"
	"tidegate/mqtt/packet"
	"tidegate/store"
)

// stage is a broker on a store of its own, in virtual time, and the clients that
// talk to it through pipes.
type stage struct {
	t       *testing.T
	version version
	dir     string
	limits  broker.Limits
	broker  *broker.Broker
	stop    func()
	clients map[string]*client
	known   map[duty]bool
}

// settled is longer than the broker lets anything wait that is due.
const settled = 100 * time.Millisecond

// play holds a script in one version. It must be called in a synctest bubble.
func play(t *testing.T, s *script, v version, all map[duty]bool) {
	st := &stage{t: t, version: v, dir: filepath.Join(t.TempDir(), "store"), clients: make(map[string]*client), known: all}
	for _, step := range s.steps {
		if step.in(v) {
			st.do(step)
		}
		if t.Failed() {
			break
		}
	}
	for _, c := range st.clients {
		c.close()
	}
	if st.stop != nil {
		st.stop()
	}
}

// do does one step.
func (st *stage) do(s step) {
	switch {
	case s.verb == "limit":
		st.limit(s)
		return
	case st.broker == nil:
		st.start()
	}
	switch s.verb {
	case "wait":
		d, err := time.ParseDuration(s.rest)
		st.must(s, err)
		time.Sleep(d)
		synctest.Wait()
	case "restart":
		st.stop()
		st.start()
	default:
		st.client(s.who).do(s)
	}
}

func (st *stage) must(s step, err error) {
	st.t.Helper()
	if err != nil {
		st.t.Errorf("%s: %v", s.at, err)
	}
}

// limit changes a limit of the broker.
func (st *stage) limit(s step) {
	name, value, _ := strings.Cut(s.rest, " ")
	n, err := strconv.Atoi(value)
	st.must(s, err)
	switch name {
	case "receive_maximum":
		st.limits.ReceiveMaximum = n
	case "max_packet_size":
		st.limits.MaxPacketSize = units.Size(n)
	case "max_subscriptions":
		st.limits.MaxSubscriptions = n
	case "max_topic_alias":
		st.limits.MaxTopicAlias = n
	case "max_keepalive":
		st.limits.MaxKeepalive = units.Duration(time.Duration(n) * time.Second)
	case "session_expiry":
		st.limits.SessionExpiry = units.Duration(time.Duration(n) * time.Second)
	default:
		st.t.Errorf("%s: no such limit", s.at)
	}
}

// start starts the broker.
func (st *stage) start() {
	st.t.Helper()
	db, err := store.Open(st.dir, store.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		st.t.Fatal(err)
	}
	cfg := broker.Config{Limits: st.limits}
	cfg.SetDefaults()
	cfg.Listeners = nil
	hooks := broker.Hooks{Authenticator: doorman{}, Authorizer: doorman{}, Event: st}
	b, err := broker.New(cfg, broker.Options{Store: db, Hooks: hooks, OnlineDelay: units.Duration(settled / 2)})
	if err != nil {
		st.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx) }()
	synctest.Wait()
	st.broker = b
	st.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-served, db.Close()); err != nil {
			st.t.Errorf("stop the broker: %v", err)
		}
		balance.Check(st.t, b)
	})
}

// OnEvent holds the statement that a client is said to have broken against the
// list of its version.
func (st *stage) OnEvent(e broker.Event) {
	var broken *packet.Error
	if !errors.As(e.Reason, &broken) {
		return
	}
	v := st.version
	if v == v31 {
		v = v311
	}
	id := strings.TrimPrefix(broken.ID, "MQTT-")
	unknown := e.Kind == broker.Refused && st.known[duty{v311, id}] // a CONNECT that did not get to its version
	if !st.known[duty{v, id}] && !unknown {
		st.t.Errorf("the broker says %q, which is no statement of MQTT %s", broken, v)
	}
}

// doorman lets in everybody but nobody, and none below secret.
type doorman struct{}

func (doorman) Authenticate(_ context.Context, r auth.Request) (auth.Identity, error) {
	if r.User == "nobody" {
		return auth.Identity{}, auth.ErrBadCredentials
	}
	return auth.Identity{User: r.User, ClientID: r.ClientID}, nil
}

func (doorman) Allowed(_ auth.Identity, _ auth.Action, topic string) bool {
	return !strings.HasPrefix(topic, "secret")
}

// client returns the client of that name.
func (st *stage) client(name string) *client {
	c := st.clients[name]
	if c == nil {
		c = &client{st: st, name: name}
		st.clients[name] = c
	}
	return c
}

// dial returns our end of a new connection.
func (st *stage) dial() net.Conn {
	near, far := net.Pipe()
	go st.broker.ServeConn(far)
	return near
}
