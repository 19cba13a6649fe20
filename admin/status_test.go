package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/adapters"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/clock"
	"tidegate/internal/testbed"
	"tidegate/mqtt"
	"tidegate/store"
)

var update = flag.Bool("update", false, "write testdata instead of comparing")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s\n(go test ./admin -update accepts it)", got, want)
	}
}

// example is a document with every field set.
func example() Status {
	day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	two, ninety := Seconds(2.25), Seconds(90)
	st := Status{
		Name: "pump-house", Version: "1.2.3", Time: day.Add(30 * time.Hour), Started: day, UptimeSeconds: 30 * 3600, TimeQuality: clock.Synced,
		Broker: broker.Status{
			Connections: 2, Sessions: 3, Retained: 4, PacketsReceived: 5, MessagesReceived: 6, MessagesSent: 7,
			MessagesDropped: 8, ConnectionsRefused: 9, RetainedRefused: 10,
			BadCredentials: 11, NotAuthorized: 12, PublicationsDenied: 13, SubscriptionsDenied: 14, StoreError: "no space left on device",
			Refused:     map[string]uint64{"connections": 15, "memory_holder": 16},
			MemoryLimit: 32 << 20, MemoryUsed: 17, Memory: map[string]uint64{"output": 18, "queues": 19},
		},
		Sessions: []broker.SessionStatus{
			{ID: "logger", Durable: true, Subscriptions: 1, Queued: 12345678, OnDisk: 12345678},
			{ID: "bridge/cloud", Inbox: true, Durable: true, Subscriptions: 1, Queued: 1234, OnDisk: 1200},
			{ID: "dashboard", Connected: true, Subscriptions: 2, Queued: 1, Dropped: 3},
		},
		Losses: []broker.Loss{
			{Session: "dashboard", Filter: "sensors/#", Reason: "max_memory", Count: 3, Bytes: 300, First: day, Last: day.Add(time.Hour)},
			{Session: "logger", Filter: "sensors/#", Reason: "expired", Count: 5, Bytes: 400, First: day, Last: day.Add(2 * time.Hour)},
			{Session: "meter", Filter: "other", Reason: "expired", Count: 1, Bytes: 80, First: day, Last: day},
		},
		Bridges: []Bridge{
			{
				Name: "backup", Server: "tcp://10.0.0.2:1883", State: "up", Since: day, StateAgeSeconds: 29 * 3600,
				Error: "tcp://10.0.0.2:1883 closed the connection", ErrorAt: day, Acknowledged: 99, InFlight: 1, Connects: 2,
				LastAck: day.Add(30 * time.Hour), LastAckAgeSeconds: &two, Rate: 12.5, Returns: 1,
				Failures: map[string]uint64{"stalled": 1, "tcp": 3}, In: bridge.Downward{Received: 4, Again: 1, Echoes: 2, Expired: 3},
			},
			{
				Name: "cloud", Server: "tcp://emqx-1.example.com:1883", State: "down", Since: day, StateAgeSeconds: 754,
				Backlog: 1234, BacklogBytes: 123400, OldestAgeSeconds: &ninety, SecondsToEmpty: &ninety, Failures: map[string]uint64{"tcp": 7}, Refused: 1, Unmatched: 2, LastUnmatched: "meter/a", Gone: []string{"meter/#"}, DeadLetters: 3, ErrorAt: day,
				Error: "there is no route to emqx-1.example.com:1883: is the network up? (dial tcp: network is unreachable)",
			},
		},
		Adapters: []Adapter{
			{
				Status: adapters.Status{
					Name: "flow", Kind: "serial", Device: "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A5028-if00-port0",
					State: adapters.Offline, Since: day, LastError: "/dev/ttyUSB0 is gone: was it unplugged?",
				},
				StateAgeSeconds: 42,
			},
			{
				Status: adapters.Status{
					Name: "weather", Kind: "serial", Device: "/dev/ttyAMA0", State: adapters.Online, Since: day,
					Frames: 100, Rejected: map[string]uint64{"too_long": 1, "checksum": 2}, Readings: 200, Published: 199, LastReading: day,
				},
				StateAgeSeconds: 3600, LastReadingAgeSeconds: &ninety,
			},
		},
		Store: Store{
			Error: "no space left on device", JournalBytes: 12 << 20, StateBytes: 65536, Segments: 2, Commits: 321, FailedCommits: 4,
			CommitSeconds: 1.5, LastCommitSeconds: 0.00425, Records: 5000, RecordBytes: 1000000,
			CorruptRecords: 1, CorruptRows: 2, QuarantinedFiles: 1,
			Written: map[string]Wear{"messages": {Bytes: 20_000_000, Syncs: 600}, "positions": {Bytes: 4_000_000, Syncs: 42}},
		},
	}
	st.Problems = problems(&st, errors.New("the store cannot be written, so QoS 1 and 2 messages are not acknowledged: no space left on device"))
	return st
}

func TestDocumentKeepsItsNames(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	want := example()
	if err := enc.Encode(want); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", b.String())
	var got Status
	dec := json.NewDecoder(&b)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %+v\nwant %+v", got, want)
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	_, body := newBed(t, nil).get("/api/v1/status")
	if strings.Contains(body, "null") {
		t.Errorf("the document has a null:\n%s", body)
	}
}

func TestStatusOfTheRealThing(t *testing.T) {
	var cloud *broker.Broker
	d := newBed(t, func(src *Sources) {
		cloud, _ = startBroker(t)
		src.Bridges = []*bridge.Bridge{startBridge(t, src.Broker, cloud.Addrs()[0].String())}
		src.Adapters = []*adapters.Supervisor{startAdapter(t, src.Broker, src.Events)}
	})
	sub := d.dial("logger", false)
	if _, err := sub.Subscribe(t.Context(), mqtt.Subscription{Filter: "alarm", QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	sub.Close()
	pub := d.dial("pub", true)
	if err := pub.Publish(t.Context(), mqtt.Message{Topic: "alarm", Payload: []byte("1"), QoS: mqtt.AtLeastOnce}); err != nil {
		t.Fatal(err)
	}
	st := d.eventually("all well", func(st Status) bool {
		return len(st.Problems) == 0 && st.Adapters[0].Published == 1 && st.Bridges[0].Acknowledged > 0 && st.Bridges[0].Backlog == 0 && st.Broker.Connections == 1
	})
	b, a := st.Bridges[0], st.Adapters[0]
	if !st.Ready || st.Name != "pump-house" || st.Version != "1.2.3" || st.Started.Location() != time.UTC || st.UptimeSeconds <= 0 {
		t.Errorf("the document begins with %+v", st)
	}
	if b.Name != "cloud" || b.State != "up" || b.Connects != 1 || b.LastAckAgeSeconds == nil || *b.LastAckAgeSeconds > Seconds(patience.Seconds()) {
		t.Errorf("bridge: %+v", b)
	}
	if a.Name != "weather" || a.State != adapters.Online || a.Device != "/dev/ttyS9" || a.Frames != 7 || a.Readings != 1 ||
		a.LastReadingAgeSeconds == nil || a.Rejected["checksum"] != 2 {
		t.Errorf("adapter: %+v", a)
	}
	logger := slices.IndexFunc(st.Sessions, func(s broker.SessionStatus) bool { return s.ID == "logger" })
	if logger < 0 || st.Sessions[logger].Queued != 1 || st.Sessions[logger].Connected {
		t.Errorf("sessions: %+v", st.Sessions)
	}
	if s := st.Store; !s.Writable || s.Commits == 0 || s.JournalBytes == 0 || s.Segments != 1 || s.LastCommitSeconds <= 0 || s.Records == 0 {
		t.Errorf("store: %+v", s)
	}
}

func TestBacklogOfABridgeThatIsDown(t *testing.T) {
	d := newBed(t, func(src *Sources) {
		src.Bridges = []*bridge.Bridge{startBridge(t, src.Broker, testbed.ReserveAddr(t))}
	})
	m := mqtt.Message{Topic: "sensor/a/b", Payload: []byte("1"), QoS: mqtt.AtLeastOnce}
	if err := d.src.Broker.Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	st := d.eventually("refused", func(st Status) bool { return st.Bridges[0].Error != "" })
	b := st.Bridges[0]
	if b.Backlog != 1 || b.Connected() || b.LastAckAgeSeconds != nil || b.ErrorAt.IsZero() {
		t.Errorf("bridge: %+v", b)
	}
	if len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "bridge cloud: not connected") || !strings.Contains(st.Problems[0], "refuses connections") {
		t.Errorf("problems: %q", st.Problems)
	}
	if !st.Ready {
		t.Error("a bridge that is down is no reason not to be ready")
	}
}

func TestMessagesWhoseRuleIsGoneAreNamed(t *testing.T) {
	d := newBed(t, func(src *Sources) {
		cloud, _ := startBroker(t)
		old := bridge.Config{Name: "cloud", Servers: []string{"tcp://127.0.0.1:1"}, Out: []bridge.Rule{{Topics: []string{"meter/#", "sensor/#"}}}}
		before, err := bridge.New(old, "pump-house", src.Broker, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if err := before.Declare(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, topic := range []string{"meter/a", "sensor/a", "meter/b"} {
			if err := src.Broker.Publish(t.Context(), mqtt.Message{Topic: topic, QoS: mqtt.AtLeastOnce}); err != nil {
				t.Fatal(err)
			}
		}
		src.Bridges = []*bridge.Bridge{startBridge(t, src.Broker, cloud.Addrs()[0].String())}
	})
	st := d.eventually("drained", func(st Status) bool {
		return st.Bridges[0].State == "up" && st.Bridges[0].Backlog == 0
	})
	if b := st.Bridges[0]; b.Acknowledged < 1 || b.Unmatched != 2 {
		t.Errorf("bridge: %+v", b)
	}
	if len(st.Losses) != 1 || st.Losses[0].Session != "bridge/cloud" || st.Losses[0].Reason != "unmatched" || st.Losses[0].Count != 2 {
		t.Errorf("losses: %+v", st.Losses)
	}
	if len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "bridge cloud: messages dropped since the start because the rule of out that had queued them is gone: 2, the last on meter/b;") {
		t.Errorf("problems: %q", st.Problems)
	}
}

func TestDocumentIsBounded(t *testing.T) {
	list := make([]broker.SessionStatus, 3*maxSessions)
	for i := range list {
		list[i] = broker.SessionStatus{ID: fmt.Sprintf("client-%04d", i), Queued: int64(i % 2)}
	}
	got := longest(list)
	if len(got) != maxSessions || got[0].ID != "client-0001" || got[1].ID != "client-0003" || got[maxSessions-1].Queued != 1 {
		t.Errorf("%d sessions, from %+v to %+v", len(got), got[0], got[len(got)-1])
	}
}

func TestProblems(t *testing.T) {
	healthy := func() Status {
		return Status{
			Bridges:  []Bridge{{Name: "cloud", State: "up", Error: "old"}},
			Adapters: []Adapter{{Status: adapters.Status{Name: "weather", State: adapters.Online, LastError: "old"}}},
			Store:    Store{Writable: true},
		}
	}
	cases := []struct {
		name    string
		change  func(*Status)
		unready error
		want    []string
	}{
		{"what has healed is none", func(*Status) {}, nil, []string{}},
		{"a bridge that stops with the gateway is none", func(s *Status) { s.Bridges[0].State = "draining" }, nil, []string{}},
		{"a bridge that dials for the first time", func(s *Status) {
			s.Bridges[0] = Bridge{Name: "cloud", State: "dialing", StateAgeSeconds: 0.5}
		}, nil, []string{"bridge cloud: not connected for 500ms, messages waiting: 0"}},
		{"what concerns everything comes first", func(s *Status) {
			s.Adapters[0].State = adapters.Offline
			s.Bridges[0].State = "down"
		}, errors.New("port 1883 is taken"), []string{
			"not ready: port 1883 is taken",
			"bridge cloud: not connected for 0ms, messages waiting: 0; old",
			"adapter weather: offline for 0ms; old",
		}},
		{"messages that no rule can carry", func(s *Status) { s.Bridges[0].Refused = 3 }, nil, []string{
			"bridge cloud: messages dropped since the start because they cannot be carried: 3; check strip and prefix of its rules",
		}},
		{"messages whose rule is gone", func(s *Status) { s.Bridges[0].Unmatched, s.Bridges[0].LastUnmatched = 5, "meter/a" }, nil, []string{
			"bridge cloud: messages dropped since the start because the rule of out that had queued them is gone: 5, the last on meter/a; to keep those that still wait, write its topics under out again and restart",
		}},
		{"messages that wait for topics that are gone", func(s *Status) { s.Bridges[0].Gone, s.Bridges[0].Backlog = []string{"meter/#", "old"}, 5 }, nil, []string{
			`bridge cloud: messages wait for topics that no rule of out names any more, 5 at most: "meter/#", "old"; those that no other rule matches are dropped when their turn comes; ` +
				"to keep them, write the topics under out again and restart; queue export copies what waits",
		}},
		{"many topics that are gone", func(s *Status) { s.Bridges[0].Gone, s.Bridges[0].Backlog = slices.Repeat([]string{"a"}, maxGone), 5 }, nil, []string{
			"bridge cloud: messages wait for topics that no rule of out names any more, 5 at most: " + strings.Repeat(`"a", `, maxGone) + "and what else the log names; those that no other rule matches are dropped when their turn comes; " +
				"to keep them, write the topics under out again and restart; queue export copies what waits",
		}},
		{"topics that are gone while nothing waits", func(s *Status) { s.Bridges[0].Gone = []string{"meter/#"} }, nil, []string{}},
		{"a queue that nobody takes", func(s *Status) {
			s.Sessions = []broker.SessionStatus{{ID: "bridge/cloud", Inbox: true, Queued: 9}, {ID: "bridge/old", Inbox: true, Unclaimed: true, Queued: 3}}
		}, nil, []string{
			"queue bridge/old: no bridge of this name is configured, messages kept: 3; give a bridge the name again, or keep a copy (queue export) and remove it (queue purge)",
		}},
		{"damage stays", func(s *Status) { s.Store.CorruptRows = 2 }, nil, []string{
			"store: damage found since the start (files set aside: 0, files missing: 0, messages lost: 0, rows lost: 2): see the log, replace the card",
		}},
	}
	for _, c := range cases {
		st := healthy()
		c.change(&st)
		if got := problems(&st, c.unready); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestStoreThatFailed(t *testing.T) {
	for _, c := range []struct {
		stats  store.Stats
		broker string
		want   string
	}{
		{store.Stats{}, "", ""},
		{store.Stats{LastCommitFailure: errors.New("disk full")}, "", "disk full"},
		{store.Stats{LastCommitFailure: errors.New("disk full")}, "store is closed", "store is closed"},
	} {
		if got := newStore(c.stats, c.broker); got.Error != c.want || got.Writable != (c.want == "") {
			t.Errorf("%v and %q: %+v", c.stats.LastCommitFailure, c.broker, got)
		}
	}
}

func TestSecondsForPeople(t *testing.T) {
	for s, want := range map[Seconds]string{
		0: "0ms", 0.0042: "4ms", 0.9996: "1s", 1: "1s", 59.9: "59s", 60: "1m0s", 754: "12m34s",
		3599: "59m59s", 3600: "1h0m", 86399: "23h59m", 86400: "1d0h", 190000: "2d4h",
	} {
		if got := s.String(); got != want {
			t.Errorf("%v is %q, want %q", float64(s), got, want)
		}
	}
	if sinceEver(time.Time{}) != nil {
		t.Error("never has an age")
	}
	if got := float64(*sinceEver(time.Now().Add(-time.Minute))); math.Abs(got-60) > 10 {
		t.Errorf("a minute ago is %v seconds", got)
	}
}
