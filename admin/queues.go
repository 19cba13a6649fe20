package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"tidegate/broker"
	"tidegate/mqtt"
)

// Queue is a row of /api/v1/queues.
type Queue struct {
	broker.QueueStatus
	OldestAgeSeconds *Seconds `json:"oldest_age_seconds,omitempty"` // nil: not known, or the queue is empty
}

func (src *Sources) serveQueues(w http.ResponseWriter, _ *http.Request) {
	list := src.Broker.Queues()
	rows := make([]Queue, 0, len(list))
	for _, q := range list {
		row := Queue{QueueStatus: q}
		if row.Losses == nil {
			row.Losses = []broker.Loss{} // [] in JSON, not null
		}
		if q.Oldest >= 0 {
			age := Seconds(q.Oldest.Seconds())
			row.OldestAgeSeconds = &age
		}
		rows = append(rows, row)
	}
	answerJSON(w, http.StatusOK, rows)
}

// Message is a line of /api/v1/queues/messages: what a queue holds, with all that
// it takes to publish it again.
type Message struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time,omitzero"`          // when it was published, as far as known
	Quality string    `json:"time_quality,omitempty"` // synced, corrected or unsynced
	Topic   string    `json:"topic"`
	QoS     mqtt.QoS  `json:"qos"`
	Retain  bool      `json:"retain,omitempty"`
	Payload *string   `json:"payload,omitempty"`        // text
	Binary  []byte    `json:"payload_base64,omitempty"` // what is no text

	ExpirySeconds   uint32         `json:"expiry_seconds,omitempty"` // left
	UTF8            bool           `json:"utf8,omitempty"`           // the publisher says that the payload is text
	ContentType     string         `json:"content_type,omitempty"`
	ResponseTopic   string         `json:"response_topic,omitempty"`
	CorrelationData []byte         `json:"correlation_data_base64,omitempty"`
	User            []UserProperty `json:"user_properties,omitempty"`
}

// UserProperty is a pair of texts from the publisher.
type UserProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Bytes returns the payload.
func (m *Message) Bytes() []byte {
	if m.Payload != nil {
		return []byte(*m.Payload)
	}
	return m.Binary
}

func (src *Sources) message(d *mqtt.Delivery) Message {
	m := Message{Seq: d.Seq, Topic: d.Topic, QoS: d.QoS, Retain: d.Retain, ExpirySeconds: uint32(d.Expiry / time.Second)}
	if !d.At.IsZero() {
		at, quality, _ := src.Clock.Real(d.At)
		m.Time, m.Quality = at.UTC().Round(time.Millisecond), string(quality)
	}
	if text := string(d.Payload); utf8.ValidString(text) {
		m.Payload = &text
	} else {
		m.Binary = d.Payload
	}
	if p := d.Properties; p != nil {
		m.UTF8, m.ContentType, m.ResponseTopic, m.CorrelationData = p.UTF8, p.ContentType, p.ResponseTopic, p.CorrelationData
		for _, u := range p.User {
			m.User = append(m.User, UserProperty(u))
		}
	}
	return m
}

// serveMessages writes what a queue holds, a line for each message.
func (src *Sources) serveMessages(w http.ResponseWriter, r *http.Request) {
	after, err1 := number(r, "after")
	limit, err2 := number(r, "limit")
	if err := errors.Join(err1, err2); err != nil {
		fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	out := newStream(w, "application/x-ndjson")
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	n := uint64(0)
	err := src.Broker.QueueMessages(r.FormValue("queue"), after, func(d mqtt.Delivery) bool {
		m := src.message(&d)
		n++
		return enc.Encode(&m) == nil && n != limit
	})
	if errors.Is(err, broker.ErrNoQueue) {
		fail(w, http.StatusNotFound, "%v", err)
		return
	}
	out.end(err)
}

// number reads a whole number of the query; 0 if it is not there.
func number(r *http.Request, name string) (uint64, error) {
	text := r.FormValue(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is %q: give a whole number", name, text)
	}
	return n, nil
}
