package admin

import (
	"context"
	"sync"
	"time"

	"tidegate/adapters"
	"tidegate/bridge"
	"tidegate/broker"
)

// maxEvents is how many events are kept for those who read them late. A reader who
// lags behind more loses the connection.
const maxEvents = 256

// maxEventText bounds each text of an event in bytes: strangers choose some.
const maxEventText = 400

// Event is a change of state, of a bridge, an adapter or a client.
type Event struct {
	ID    uint64    `json:"id"` // counts from 1 since the start of the gateway, without holes
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind"` // bridge, adapter or client
	Name  string    `json:"name"` // of a client: its identifier
	State string    `json:"state"`

	Place string `json:"place,omitempty"` // the server, the device, or where the client comes from
	Cause string `json:"cause,omitempty"` // why a bridge is down, as in the failures of its status
	Text  string `json:"text,omitempty"`  // likewise, in words to act on
}

// Events are the last events, and wake whoever reads them.
type Events struct {
	mu      sync.Mutex
	list    [maxEvents]Event // an event stands at its ID modulo maxEvents
	last    uint64
	changed chan struct{} // closed with the next event; nil while nobody waits
}

// The methods that take events may be called from any goroutine and do not block.

// OnBridge takes a change of a bridge.
func (e *Events) OnBridge(c bridge.Change) {
	e.add(Event{Kind: "bridge", Name: c.Bridge, State: c.State.String(), Place: c.Server, Cause: c.Cause, Text: c.Error})
}

// OnAdapter takes a change of an adapter.
func (e *Events) OnAdapter(s adapters.Status) {
	ev := Event{Kind: "adapter", Name: s.Name, State: string(s.State), Place: s.Device}
	if s.State != adapters.Online {
		ev.Text = s.LastError
	}
	e.add(ev)
}

// OnEvent takes what happened to a client, if it is about its connection: what is
// subscribed, denied or dropped may come with every message. It is a
// [broker.EventHook].
func (e *Events) OnEvent(b broker.Event) {
	switch b.Kind {
	case broker.Connected, broker.Refused, broker.Disconnected:
	default:
		return
	}
	ev := Event{Kind: "client", Name: b.Client.ID, State: b.Kind.String(), Place: b.Client.Remote}
	if b.Reason != nil {
		ev.Text = b.Reason.Error()
	}
	e.add(ev)
}

func (e *Events) add(ev Event) {
	ev.Name, ev.Text = oneText(ev.Name), oneText(ev.Text)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	ev.ID, ev.Time = e.last, time.Now().UTC()
	e.list[ev.ID%maxEvents] = ev
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// oneText cuts what is too long, and copies it: it may be part of something large.
func oneText(s string) string {
	if len(s) > maxEventText {
		s = s[:maxEventText] + "…"
	}
	return string([]byte(s))
}

// newest returns the number of the last event.
func (e *Events) newest() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// next returns the events behind after, in order, and waits until there is one. It
// returns none when ctx is done, and with missed when the first of them is gone.
func (e *Events) next(ctx context.Context, after uint64) (list []Event, missed bool) {
	for {
		list, missed, changed := e.behind(after)
		if changed == nil {
			return list, missed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// behind is next that does not wait, but says for what to.
func (e *Events) behind(after uint64) (list []Event, missed bool, changed <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if after >= e.last {
		if e.changed == nil {
			e.changed = make(chan struct{})
		}
		return nil, false, e.changed
	}
	if e.last-after > maxEvents {
		return nil, true, nil
	}
	for id := after + 1; id <= e.last; id++ {
		list = append(list, e.list[id%maxEvents])
	}
	return list, false, nil
}
