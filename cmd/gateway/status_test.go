package main

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"tidegate/admin"
	"tidegate/bridge"
	"tidegate/broker"
	"tidegate/internal/testbed"
)

// exampleStatus is a document with every field set.
func exampleStatus(t *testing.T) (text string, st admin.Status) {
	t.Helper()
	raw, err := os.ReadFile("../../admin/testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		t.Fatal(err)
	}
	return string(raw), st
}

// serving answers requests for the status with code and text.
func serving(t *testing.T, code int, text string) (url string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/status" || r.Method != http.MethodGet {
			t.Errorf("status asks for %s %s", r.Method, r.URL)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestStatusForPeople(t *testing.T) {
	text, _ := exampleStatus(t)
	code, out, errOut := call(t, "status", "--url", serving(t, http.StatusOK, text)+"/")
	if code != exitDone || errOut != "" {
		t.Errorf("status ends with %d and says %q", code, errOut)
	}
	golden(t, "status", out)
}

func TestStatusForPrograms(t *testing.T) {
	text, _ := exampleStatus(t)
	code, out, errOut := call(t, "status", "-o", "json", "--url", serving(t, http.StatusOK, text))
	if code != exitDone || errOut != "" || out != text {
		t.Errorf("status -o json ends with %d, says %q and prints\n%s", code, errOut, out)
	}
}

func TestStatusWhenAllIsWell(t *testing.T) {
	_, st := exampleStatus(t)
	st.Problems, st.Bridges, st.Adapters, st.Sessions, st.Losses = nil, nil, nil, nil, nil
	st.Broker.Sessions, st.Store.Writable = 0, true
	golden(t, "status-all-well", statusText(&st))
}

func TestStatusWithoutAnAnswer(t *testing.T) {
	free := testbed.ReserveAddr(t)
	for _, c := range []struct {
		url, errOut string
		code        int
	}{
		{"http://" + free, "tidegate: no gateway answers at " + free + ": is it running (systemctl status tidegate), " +
			"and is this the address at admin.listen of its configuration? (dial tcp " + free + ": connect: connection refused)\n", exitFailed},
		{serving(t, 404, "404 page not found"), "answers 404 Not Found: is it a tidegate? \n", exitFailed},
		{serving(t, 403, `{"error": "the host is \u001b[2Jnot mine"}`), "answers 403 Forbidden: is it a tidegate? the host is ?[2Jnot mine\n", exitFailed},
		{serving(t, 200, "<html>"), "answers with something that is no status of a tidegate: check --url (", exitFailed},
		{"127.0.0.1:8080", `tidegate: --url "127.0.0.1:8080" is no address of a page: write it as http://127.0.0.1:8080 (see: tidegate status --help)` + "\n", exitUsage},
		{"https://127.0.0.1", "is no address of a page", exitUsage},
	} {
		for _, format := range []string{"text", "json"} {
			code, out, errOut := call(t, "status", "--url", c.url, "-o", format)
			if code != c.code || !strings.Contains(errOut, c.errOut) || out != "" {
				t.Errorf("status --url %s -o %s ends with %d, prints %q and says\n%swant %d and\n%s", c.url, format, code, out, errOut, c.code, c.errOut)
			}
		}
	}
}

// TestStatusFitsTheTerminal fills every field with the most that it can have.
func TestStatusFitsTheTerminal(t *testing.T) {
	long := strings.Repeat("lang-ß-", 30) + "\x1b[31m\n\r"
	many, old := uint64(math.MaxUint64), admin.Seconds(9999*86400+23*3600)
	st := admin.Status{Name: long, Version: long, UptimeSeconds: old, TimeQuality: "unsynced", Problems: []string{long + " " + strings.Repeat("word ", 50) + long}}
	st.Broker = broker.Status{
		Connections: math.MaxInt, Retained: math.MaxInt, MessagesReceived: many, MessagesSent: many, MessagesDropped: many, ConnectionsRefused: many,
	}
	st.Bridges = []admin.Bridge{{
		Name: long, Server: long, State: long, StateAgeSeconds: old, Backlog: math.MaxInt64, BacklogBytes: 1 << 45, Acknowledged: many, LastAckAgeSeconds: &old,
		OldestAgeSeconds: &old, Rate: 99999, SecondsToEmpty: &old, DeadLetters: math.MaxInt64, Failures: map[string]uint64{"websocket": many, "stalled": many},
		In: bridge.Downward{Received: many, Expired: many},
	}}
	a := admin.Adapter{StateAgeSeconds: old, LastReadingAgeSeconds: &old}
	a.Name, a.Device, a.State, a.Readings, a.Rejected = long, long, "offline", many, map[string]uint64{"cut": many}
	st.Adapters = []admin.Adapter{a}
	for range 3 * maxClients {
		st.Sessions = append(st.Sessions, broker.SessionStatus{ID: long, Connected: true, Queued: math.MaxInt64, OnDisk: many, Dropped: many})
	}
	for range 2 * maxLosses {
		st.Losses = append(st.Losses, broker.Loss{Session: long, Filter: long, Reason: long, Count: many})
	}
	st.Store = admin.Store{JournalBytes: 1 << 45, Segments: 1 << 20, Commits: many, LastCommitSeconds: old}
	text := statusText(&st)
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > statusWidth {
			t.Errorf("%d characters: %s", utf8.RuneCountInString(line), line)
		}
	}
	if strings.ContainsAny(text, "\x1b\r") {
		t.Errorf("control characters reach the terminal: %q", text)
	}
	if !strings.Contains(text, "and 40 more clients ") {
		t.Errorf("too many clients are listed:\n%s", text)
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{
		"": "-", "12345678": "12345678", "123456789": "123…6789", "ßßßßßßßßß": "ßßß…ßßßß", "a\tb": "a?b",
	} {
		if got := shorten(in, 8); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 9_999_999: "9999999", 10_000_000: "10.0M", 1_234_000_000: "1.2G", math.MaxUint64: "18.4E",
	} {
		if got := count(n); got != want {
			t.Errorf("%d becomes %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 KiB", 1: "1 KiB", 1 << 20: "1.0 MiB", 5 << 29: "2.5 GiB", 1 << 45: "32.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d bytes become %q, want %q", n, got, want)
		}
	}
}
