package bridge

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/internal/clock"
	"tidegate/mqtt"
)

func newSealer() *sealer {
	return &sealer{gateway: "pump-house", bridge: "cloud", kind: envelopeJSON, keep: 8, clock: clock.New()}
}

func open(t *testing.T, d mqtt.Delivery) (e Envelope) {
	t.Helper()
	if err := json.Unmarshal(d.Payload, &e); err != nil {
		t.Fatalf("%s: %v", d.Payload, err)
	}
	return e
}

func delivery(seq uint64, payload string) mqtt.Delivery {
	return mqtt.Delivery{Seq: seq, Message: mqtt.Message{Topic: "a", Payload: []byte(payload)}}
}

func TestEnvelopesKeepThePayload(t *testing.T) {
	s := newSealer()
	for payload, encoding := range map[string]string{
		`{"value":21.40}`: "json", "21.4": "json", `"text"`: "json",
		"text": "text", "": "text", "<&>\u2028": "text",
		"\xff\x00": "base64",
	} {
		e := open(t, s.seal(delivery(1, payload)))
		var got string
		switch e.Encoding {
		case "json":
			got = string(e.Payload)
		default:
			_ = json.Unmarshal(e.Payload, &got)
		}
		if e.Encoding == "base64" {
			b, _ := base64.StdEncoding.DecodeString(got)
			got = string(b)
		}
		if e.Encoding != encoding || got != payload || e.Gateway != "pump-house" || e.Bridge != "cloud" {
			t.Errorf("%q became %+v", payload, e)
		}
	}
}

// A message keeps its identity when it is sent again, and n has no holes.
func TestEnvelopesIdentifyMessages(t *testing.T) {
	s := newSealer()
	var got []string
	for _, seq := range []uint64{10, 12, 15, 0, 12, 15, 16} { // the link was lost behind 10
		e := open(t, s.seal(delivery(seq, "x")))
		got = append(got, fmt.Sprintf("%d:%d", e.Seq, e.N))
	}
	if want := []string{"10:1", "12:2", "15:3", "0:0", "12:2", "15:3", "16:4"}; !slices.Equal(got, want) {
		t.Errorf("numbered %v, want %v", got, want)
	}
	for seq := range uint64(1000) {
		s.number(17 + seq)
	}
	if len(s.recent) > s.keep || s.n != 1004 {
		t.Errorf("%d are kept, n is %d", len(s.recent), s.n)
	}
}

func TestEnvelopesOfOtherGatewaysStay(t *testing.T) {
	s := newSealer()
	inner := string(s.seal(delivery(1, "x")).Payload)
	relayed := delivery(2, inner)
	relayed.Relayed = true
	if got := s.seal(relayed).Payload; string(got) != inner {
		t.Errorf("it became %s", got)
	}
}

// A reading from before the first synchronisation is corrected on its way.
func TestReadingsAreCorrected(t *testing.T) {
	c, sync := clock.NewTest(t, -30*365*24*time.Hour)
	s := &sealer{clock: c}
	stamped := c.Now()
	reading := fmt.Sprintf(`{"value":{"time":"x"},"time":"%s","time_quality":"unsynced","quality":"good"}`, stamped.UTC().Format(timeFormat))
	if got := s.seal(delivery(1, reading)).Payload; string(got) != reading {
		t.Errorf("nobody knows better, but it became %s", got)
	}
	sync()
	got := s.seal(delivery(1, reading)).Payload
	var r struct {
		Time    time.Time `json:"time"`
		Quality string    `json:"time_quality"`
	}
	if err := json.Unmarshal(got, &r); err != nil || r.Quality != "corrected" || time.Since(r.Time) > time.Minute || time.Since(r.Time) < 0 {
		t.Errorf("it became %s", got)
	}
	if !bytes.HasPrefix(got, []byte(`{"value":{"time":"x"},"time":"2`)) || !bytes.HasSuffix(got, []byte(`,"quality":"good"}`)) {
		t.Errorf("the rest has changed: %s", got)
	}
	for _, other := range []string{
		`","time_quality":"unsynced"`, `"time":"yesterday","time_quality":"unsynced"`, "no reading",
	} {
		if got := s.seal(delivery(1, other)).Payload; string(got) != other {
			t.Errorf("%s became %s", other, got)
		}
	}
}

func TestAudit(t *testing.T) {
	a, s := NewAudit(), newSealer()
	var sent []mqtt.Delivery
	for seq := range uint64(10) {
		sent = append(sent, s.seal(delivery(10+2*seq, "x")))
	}
	restarted := newSealer()
	again := restarted.seal(delivery(28, "x")) // the last one, after a restart
	behind := restarted.seal(delivery(40, "x"))
	lost := restarted.seal(delivery(41, "x"))
	end := restarted.seal(delivery(42, "x"))
	var found []string
	for _, m := range []mqtt.Delivery{
		sent[0], sent[1], sent[1], sent[5], sent[4], sent[6], sent[7], sent[8], sent[9], again, behind, end,
	} {
		finding, err := a.Add(m.Message)
		if err != nil {
			t.Fatal(err)
		}
		if finding != "" {
			found = append(found, finding)
		}
	}
	_ = lost
	want := []string{
		"pump-house/cloud: message 1.12 came again",
		"pump-house/cloud: 3 missing between the messages 1.12 and 1.20",
		"pump-house/cloud: message 1.18 came late, behind 1.20",
		"pump-house/cloud: message 1.28 came again",
		"pump-house/cloud: 1 missing between the messages 1.40 and 1.42",
	}
	// The first message behind the restart has the number 2, since the one that
	// came again had 1.
	if !slices.Equal(found, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(found, "\n"), strings.Join(want, "\n"))
	}
	for _, status := range []string{online, offline} {
		if _, err := a.Add(mqtt.Message{Topic: "site/gateway/x/status", Payload: []byte(status)}); err != nil {
			t.Errorf("the gateway's own status: %v", err)
		}
	}
	tally := a.Tallies()[0]
	if tally.Messages != 10-3+1+2 || tally.Duplicates != 2 || tally.Missing != 3 || tally.Late != 1 || tally.Starts != 1 {
		t.Errorf("the tally is %+v", tally)
	}
	if _, err := a.Add(delivery(1, `{"value":1}`).Message); err == nil {
		t.Error("a payload without an envelope is passed over")
	}
}

// With MQTT 5 the payload stays as it is.
func TestEnvelopeInProperties(t *testing.T) {
	s := newSealer()
	s.kind = envelopeProperties
	d := delivery(7, "x")
	d.Properties = &mqtt.Properties{ContentType: "text", User: make([]mqtt.UserProperty, 1, 9)}
	got := s.seal(d)
	if string(got.Payload) != "x" || got.Properties.ContentType != "text" || len(d.Properties.User) != 1 {
		t.Errorf("it became %+v, of %+v", got.Properties, d.Properties)
	}
	e, ok := EnvelopeOf(got.Message)
	if !ok || e.Gateway != "pump-house" || e.Bridge != "cloud" || e.Seq != 7 || e.N != 1 || e.Boot != 1 || e.Time == "" || e.TimeQuality == "" {
		t.Errorf("the envelope is %+v", e)
	}
	got.Relayed = true
	if again := s.seal(got); len(again.Properties.User) != len(got.Properties.User) {
		t.Errorf("another gateway's envelope is replaced: %+v", again.Properties.User)
	}
}
