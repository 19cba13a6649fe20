package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	maxReaders = 8                // of events, at once
	heartbeat  = 15 * time.Second // how often a quiet stream shows that it is alive
)

// serveEvents sends events as they happen, as server-sent events (HTML, section
// 9.2), until the reader goes. Whoever says with Last-Event-ID, or last_event_id in
// the query, what it has seen gets what it missed.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	after, err := s.firstEvent(r)
	if err != nil {
		fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	default:
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, "%d others read events: close one of them", maxReaders)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // that of the request is over
	text := []byte(": events of " + s.src.Name + "\n\n")
	for sendEvents(w, out, text) {
		var ok bool
		if text, after, ok = s.moreEvents(r.Context(), after); !ok {
			return
		}
	}
}

// sendEvents reports whether the reader is still there and has taken all.
func sendEvents(w http.ResponseWriter, out *http.ResponseController, text []byte) bool {
	_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := w.Write(text); err != nil {
		return false
	}
	return out.Flush() == nil
}

// moreEvents returns what is to be sent next and the event that it ends with. It
// fails when ctx is done, or the reader is too slow.
func (s *Server) moreEvents(ctx context.Context, after uint64) (text []byte, last uint64, ok bool) {
	quiet, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	list, missed := s.src.Events.next(quiet, after)
	switch {
	case ctx.Err() != nil || missed:
		return nil, 0, false
	case len(list) == 0:
		return []byte(":\n\n"), after, true
	}
	for _, e := range list {
		data, err := json.Marshal(e)
		if err != nil {
			return nil, 0, false
		}
		text = fmt.Appendf(text, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Kind, data)
	}
	return text, list[len(list)-1].ID, true
}

// firstEvent returns the event behind which r wants to read on. Without a wish that
// is the last one; what is not there any more, or of an earlier start of the gateway,
// is passed over.
func (s *Server) firstEvent(r *http.Request) (after uint64, err error) {
	newest := s.src.Events.newest()
	wish := r.Header.Get("Last-Event-ID")
	if wish == "" {
		wish = r.URL.Query().Get("last_event_id")
	}
	if wish == "" {
		return newest, nil
	}
	after, err = strconv.ParseUint(wish, 10, 64)
	switch oldest := newest - min(newest, maxEvents); {
	case err != nil:
		return 0, fmt.Errorf("the event %q is no number", wish)
	case after > newest:
		return oldest, nil
	default:
		return max(after, oldest), nil
	}
}
