package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"tidegate/bridge"
	"tidegate/broker"
)

// stream is a reader of events.
type eventStream struct {
	t     *testing.T
	lines *bufio.Scanner
	close context.CancelFunc
}

// events begins to read behind the event last; "": the newest.
func (d *bed) events(last string) *eventStream {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	d.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.admin.Addr().String()+"/api/v1/events", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		d.t.Fatalf("events answer %d, %s", resp.StatusCode, resp.Header)
	}
	return &eventStream{d.t, bufio.NewScanner(resp.Body), cancel}
}

// next returns the next event.
func (s *eventStream) next() (e Event) {
	s.t.Helper()
	fields := map[string]string{}
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		if s.lines.Text() == "" && fields["data"] != "" {
			break
		}
		fields[name] = value
	}
	if err := json.Unmarshal([]byte(fields["data"]), &e); err != nil || fields["id"] != fmt.Sprint(e.ID) || fields["event"] != e.Kind {
		s.t.Fatalf("the event %q: %v, %v", fields, err, s.lines.Err())
	}
	return e
}

func TestEventsAreSentAsTheyHappen(t *testing.T) {
	d := newBed(t, nil)
	on := d.src.Events
	on.OnEvent(broker.Event{Kind: broker.Connected, Client: broker.Client{ID: "before", Remote: "192.0.2.7:1"}})
	s := d.events("")
	on.OnEvent(broker.Event{Kind: broker.Dropped, Client: broker.Client{ID: "often"}, Count: 7})
	on.OnBridge(bridge.Change{Bridge: "cloud", State: bridge.Down, Server: "tcp://a:1", Cause: "stalled", Error: "a acknowledges nothing"})
	e := s.next()
	if want := (Event{ID: 2, Time: e.Time, Kind: "bridge", Name: "cloud", State: "down", Place: "tcp://a:1", Cause: "stalled", Text: "a acknowledges nothing"}); e != want || e.Time.IsZero() {
		t.Errorf("got %+v, want %+v", e, want)
	}
	on.OnEvent(broker.Event{Kind: broker.Disconnected, Client: broker.Client{ID: "x"}, Reason: errors.New(strings.Repeat("y", 10_000))})
	if e := s.next(); e.ID != 3 || e.Kind != "client" || e.State != "disconnected" || len(e.Text) > maxEventText+3 {
		t.Errorf("got %+v", e)
	}
	if e := d.events("1").next(); e.ID != 2 {
		t.Errorf("a reader who has seen event 1 gets %+v", e)
	}
	if e := d.events("99").next(); e.ID != 1 {
		t.Errorf("a reader who has seen events of an earlier start gets %+v", e)
	}
}

func TestAdaptersTellWhenTheirDeviceComes(t *testing.T) {
	d := newBed(t, nil)
	s := d.events("")
	startAdapter(t, d.src.Broker, d.src.Events)
	if e := s.next(); e.Kind != "adapter" || e.Name != "weather" || e.State != "online" || e.Place != "/dev/ttyS9" {
		t.Errorf("got %+v", e)
	}
}

// Whoever reads too slowly loses the connection, and knows where to go on.
func TestASlowReaderOfEventsIsDropped(t *testing.T) {
	d := newBed(t, nil)
	conn, err := net.Dial("tcp", d.admin.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(conn, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil { // it is there
		t.Fatal(err)
	}
	sent := 0
	for ; len(d.admin.readers) > 0; sent++ {
		d.src.Events.OnBridge(bridge.Change{Bridge: "cloud", Error: strings.Repeat("x", maxEventText)})
	}
	if e := d.events(fmt.Sprint(sent - 1)).next(); e.ID != uint64(sent) {
		t.Errorf("the last event is %+v, want the %dth", e, sent)
	}
}

func TestEventsAreBounded(t *testing.T) {
	d := newBed(t, nil)
	for range maxReaders {
		d.events("")
	}
	if code, body := d.get("/api/v1/events"); code != http.StatusServiceUnavailable {
		t.Errorf("one reader too many gets %d: %s", code, body)
	}
	if code, _ := d.get("/api/v1/events?last_event_id=x"); code != http.StatusBadRequest {
		t.Errorf("no number gets %d", code)
	}
	for range 3 * maxEvents {
		d.src.Events.OnBridge(bridge.Change{Bridge: "cloud"})
	}
	if list, missed := d.src.Events.next(t.Context(), 2*maxEvents); len(list) != maxEvents || missed || list[0].ID != 2*maxEvents+1 {
		t.Errorf("%d events are there, %v", len(list), missed)
	}
	if _, missed := d.src.Events.next(t.Context(), 2*maxEvents-1); !missed {
		t.Error("an event that is gone is not missed")
	}
	d.stop() // ends the streams
}
