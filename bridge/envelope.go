package bridge

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"tidegate/internal/clock"
	"tidegate/mqtt"
)

// What Config.Envelope may be.
const (
	envelopeNone       = "none"
	envelopeJSON       = "json"
	envelopeProperties = "properties" // user properties of MQTT 5
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
	kind            string // of the envelope; none: only times are corrected
	clock           *clock.Clock
	n               uint64   // of the newest
	recent          []sealed // by seq; what may be sent again is among them
	keep            int      // bound of recent
}

type sealed struct{ seq, n uint64 }

// seal returns d as it goes upstream, but for its topic.
func (s *sealer) seal(d mqtt.Delivery) mqtt.Delivery {
	d.Payload = s.restamp(d.Payload)
	switch {
	case s.kind == envelopeJSON && !(d.Relayed && bytes.HasPrefix(d.Payload, []byte(`{"gateway":`))): // of another gateway
		e := s.envelope(&d)
		e.Encoding, e.Payload = embed(d.Payload)
		if text, err := json.Marshal(e); err == nil { // embed made sure that it is JSON
			d.Payload = text
		}
	case s.kind == envelopeProperties && !(d.Relayed && identified(d.Properties)):
		e := s.envelope(&d)
		d.Properties = e.appendTo(d.Properties)
	}
	return d
}

// ripe returns a function that waits, over the first connections after a start, until
// the clock is known to be right, so that d goes with a time that was corrected; not
// longer than clock_wait in all. It calls idle before, and returns false if ctx is done
// first.
func (b *Bridge) ripe(idle func()) func(context.Context, mqtt.Delivery) bool {
	return func(ctx context.Context, d mqtt.Delivery) bool {
		if b.cfg.ClockWait == 0 || !b.sealer.dates(d) || b.sealer.clock.Trusted() {
			return true
		}
		idle()
		waiting, cancel := context.WithDeadline(ctx, b.clockBy)
		defer cancel()
		b.sealer.clock.Await(waiting)
		return ctx.Err() == nil
	}
}

// beginClockWait is called with each link. The first begins the wait.
func (b *Bridge) beginClockWait() {
	wait := time.Duration(b.cfg.ClockWait)
	if wait == 0 || !b.clockBy.IsZero() {
		return
	}
	b.clockBy = time.Now().Add(wait)
	if !b.sealer.clock.Trusted() {
		b.log.Info("bridge waits for the system's clock to be set before it sends what has a time in it", "at_most", wait)
	}
}

// dates reports whether d goes upstream with a time that may be corrected.
func (s *sealer) dates(d mqtt.Delivery) bool {
	return s.kind != envelopeNone || bytes.Contains(d.Payload, []byte(behind))
}

// envelope returns that of d, without the payload.
func (s *sealer) envelope(d *mqtt.Delivery) Envelope {
	at := d.At
	if at.IsZero() {
		at = s.clock.Now()
	}
	e := Envelope{Gateway: s.gateway, Bridge: s.bridge, Seq: d.Seq, N: s.number(d.Seq)}
	real, quality, boot := s.clock.Real(at)
	e.Time, e.TimeQuality, e.Boot = real.UTC().Format(timeFormat), quality, boot
	return e
}

// appendTo returns a copy of p with the envelope as user properties, whose names
// are those of the JSON.
func (e *Envelope) appendTo(p *mqtt.Properties) *mqtt.Properties {
	var all mqtt.Properties
	if p != nil {
		all = *p
	}
	all.User = append(slices.Clone(all.User),
		mqtt.UserProperty{Name: "gateway", Value: e.Gateway},
		mqtt.UserProperty{Name: "bridge", Value: e.Bridge},
		mqtt.UserProperty{Name: "boot", Value: strconv.FormatUint(uint64(e.Boot), 10)},
		mqtt.UserProperty{Name: "seq", Value: strconv.FormatUint(e.Seq, 10)},
		mqtt.UserProperty{Name: "n", Value: strconv.FormatUint(e.N, 10)},
		mqtt.UserProperty{Name: "time", Value: e.Time},
		mqtt.UserProperty{Name: "time_quality", Value: string(e.TimeQuality)},
	)
	return &all
}

// identified reports whether p has an envelope.
func identified(p *mqtt.Properties) bool {
	return p != nil && slices.ContainsFunc(p.User, func(u mqtt.UserProperty) bool { return u.Name == "gateway" })
}

// EnvelopeOf reads the envelope of a message: its user properties, or its payload.
// It reports whether there is one.
func EnvelopeOf(m mqtt.Message) (e Envelope, ok bool) {
	if !identified(m.Properties) {
		err := json.Unmarshal(m.Payload, &e)
		return e, err == nil && e.Gateway != "" && e.Bridge != ""
	}
	for _, u := range m.Properties.User {
		n, _ := strconv.ParseUint(u.Value, 10, 64) // 0 is that of a message without promises
		switch u.Name {
		case "gateway":
			e.Gateway = u.Value
		case "bridge":
			e.Bridge = u.Value
		case "boot":
			e.Boot = uint32(n)
		case "seq":
			e.Seq = n
		case "n":
			e.N = n
		case "time":
			e.Time = u.Value
		case "time_quality":
			e.TimeQuality = clock.Quality(u.Value)
		}
	}
	return e, e.Bridge != ""
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

// What stands around the time of a reading that may be corrected.
const (
	before = `"time":"`
	behind = `","time_quality":"unsynced"`
)

// restamp corrects the time of a reading that was stamped before the clock was
// known to be right, if it is by now.
func (s *sealer) restamp(payload []byte) []byte {
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
func (b *Bridge) UseClock(c *clock.Clock) {
	b.sealer.clock = c
	b.streams.now = c.Floor
}
