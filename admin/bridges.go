package admin

import (
	"net/http"
	"strings"

	"tidegate/bridge"
)

// serveBridges lists what each bridge says of itself on its topic
// $SYS/broker/connection/NAME/status.
func (src *Sources) serveBridges(w http.ResponseWriter, _ *http.Request) {
	rows := make([]bridge.Report, 0, len(src.Bridges))
	for _, b := range src.Bridges {
		rows = append(rows, b.Report())
	}
	answerJSON(w, http.StatusOK, rows)
}

// bridge returns the bridge called name, nil if none that runs is.
func (src *Sources) bridge(name string) *bridge.Bridge {
	for _, b := range src.Bridges {
		if b.Status().Name == name {
			return b
		}
	}
	return nil
}

// reconnects returns the name of the bridge if path is /api/v1/bridges/NAME/reconnect.
func reconnects(path string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(path, "/api/v1/bridges/"); !ok {
		return "", false
	}
	return strings.CutSuffix(name, "/reconnect")
}

// Reconnecting is the answer of /api/v1/bridges/NAME/reconnect: it was begun.
type Reconnecting struct {
	Bridge string `json:"bridge"`
}

func (c *Control) serveReconnect(w http.ResponseWriter, r *http.Request) {
	name, _ := reconnects(r.URL.Path)
	b := c.src.bridge(name)
	if b == nil {
		failNoBridge(w, name)
		return
	}
	b.Reconnect()
	answerJSON(w, http.StatusAccepted, Reconnecting{name})
}

// Requeued is the answer of /api/v1/bridges/requeue.
type Requeued struct {
	Messages int `json:"messages"`
}

func (c *Control) serveRequeue(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("bridge")
	b := c.src.bridge(name)
	if b == nil {
		failNoBridge(w, name)
		return
	}
	c.requeuing.Lock()
	defer c.requeuing.Unlock()
	n, err := b.Requeue(r.Context())
	if err != nil {
		fail(w, http.StatusInternalServerError, "%d messages are back in the queue; then: %v", n, err)
		return
	}
	answerJSON(w, http.StatusOK, Requeued{n})
}

func failNoBridge(w http.ResponseWriter, name string) {
	fail(w, http.StatusNotFound, "there is no bridge %q that runs", name)
}
