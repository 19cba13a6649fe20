package bridge

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	"tidegate/internal/clock"
	"tidegate/mqtt"
)

// What Config.Envelope may be.
const (
	envelopeNone = "none"
	envelopeJSON = "json"
)

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Envelope is the identity of a message around its payload, so that whoever gets
// it upstream can tell what came twice and what is missing.
type Envelope struct {
	Gateway string `json:"gateway"`
	Bridge  string `json:"bridge"`

	// Boot and Seq are the message: no other of the gateway has both, and it
	// keeps them when it is sent again. Boot counts the starts of the gateway;
	// it is that in which the message was published. Seq rises, but not by
	// one. 0: QoS 0.
	Boot uint32 `json:"boot"`
	Seq  uint64 `json:"seq"`

	// N counts, from 1 on, the messages that the bridge has sent since the
	// gateway's start. What is sent again has its old number. 0: QoS 0.
	N uint64 `json:"n"`

	Time        string          `json:"time"`         // when it was published, RFC 3339
	TimeQuality clock.Quality   `json:"time_quality"` // synced, corrected or unsynced
	Encoding    string          `json:"encoding"`     // of Payload: json, text or base64
	Payload     json.RawMessage `json:"payload"`
}

// sealer puts messages into envelopes. It lives as long as the bridge and is used
// by one uplink at a time.
type sealer struct {
	gateway, bridge string
	json            bool // else only times are corrected
	clock           *clock.Clock
	n               uint64   // of the newest
	recent          []sealed // by seq; what may be sent again is among them
	keep            int      // bound of recent
}

type sealed struct{ seq, n uint64 }

// seal returns the payload of d as it goes upstream.
func (s *sealer) seal(d mqtt.Delivery) []byte {
	payload := s.restamp(d.Payload)
	if !s.json || d.Relayed && bytes.HasPrefix(payload, []byte(`{"gateway":`)) { // it has the envelope of another gateway
		return payload
	}
	at := d.At
	if at.IsZero() {
		at = s.clock.Now()
	}
	e := Envelope{Gateway: s.gateway, Bridge: s.bridge, Seq: d.Seq, N: s.number(d.Seq)}
	real, quality, boot := s.clock.Real(at)
	e.Time, e.TimeQuality, e.Boot = real.UTC().Format(timeFormat), quality, boot
	e.Encoding, e.Payload = embed(payload)
	text, err := json.Marshal(e)
	if err != nil { // embed made sure that it is JSON
		return payload
	}
	return text
}

// number returns the N of a message.
func (s *sealer) number(seq uint64) uint64 {
	if seq == 0 {
		return 0
	}
	i, again := slices.BinarySearchFunc(s.recent, seq, func(r sealed, seq uint64) int {
		switch {
		case r.seq < seq:
			return -1
		case r.seq > seq:
			return 1
		}
		return 0
	})
	if again {
		return s.recent[i].n
	}
	s.n++
	s.recent = slices.Insert(s.recent, i, sealed{seq, s.n})
	if len(s.recent) > s.keep {
		s.recent = slices.Delete(s.recent, 0, len(s.recent)-s.keep/2)
	}
	return s.n
}

// embed makes JSON of a payload, byte for byte if it is JSON already.
func embed(payload []byte) (encoding string, text json.RawMessage) {
	switch {
	case json.Valid(payload):
		return "json", payload
	case utf8.Valid(payload):
		text, _ = json.Marshal(string(payload))
		return "text", text
	}
	text, _ = json.Marshal(base64.StdEncoding.EncodeToString(payload))
	return "base64", text
}

// restamp corrects the time of a reading that was stamped before the clock was
// known to be right, if it is by now.
func (s *sealer) restamp(payload []byte) []byte {
	const (
		before = `"time":"`
		behind = `","time_quality":"unsynced"`
	)
	end := bytes.Index(payload, []byte(behind))
	if end < 0 {
		return payload
	}
	start := bytes.LastIndex(payload[:end], []byte(before)) + len(before)
	if start < len(before) {
		return payload
	}
	line, err := time.Parse(timeFormat, string(payload[start:end]))
	if err != nil {
		return payload
	}
	real, quality, _ := s.clock.Real(line)
	if quality == clock.Unsynced {
		return payload
	}
	out := append([]byte(nil), payload[:start]...)
	out = append(out, real.UTC().Format(timeFormat)+`","time_quality":"corrected"`...)
	return append(out, payload[end+len(behind):]...)
}

// UseClock gives the bridge the gateway's clock. It is called before Run.
func (b *Bridge) UseClock(c *clock.Clock) { b.sealer.clock = c }
