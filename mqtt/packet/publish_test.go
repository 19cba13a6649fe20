package packet

import (
	"bytes"
	"testing"

	"tidegate/mqtt"
)

func TestAppendPublish(t *testing.T) {
	cases := []struct {
		name        string
		qos         mqtt.QoS
		retain, dup bool
		id          uint16
		want        string
	}{
		{"QoS 0 leaves the id out [MQTT-2.3.1-5]", 0, false, false, 7, "30 06 0003 'a/b' '1'"},
		{"QoS 0 retained", 0, true, false, 0, "31 06 0003 'a/b' '1'"},
		{"QoS 1 puts the id between topic and payload", 1, false, false, 7, "32 08 0003 'a/b' 0007 '1'"},
		{"QoS 2 again", 2, false, true, 0x1234, "3c 08 0003 'a/b' 1234 '1'"},
	}
	body, topicEnd := (&Publish{Topic: []byte("a/b"), Payload: []byte("1")}).AppendBody(nil)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := AppendPublish(nil, body, topicEnd, c.qos, c.retain, c.dup, c.id)
			if want := unhex(t, c.want); !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
		})
	}
}

func TestAppendBodyCountsFromWhatItAppends(t *testing.T) {
	p := Publish{Topic: []byte("a/b"), Payload: []byte("xy")}
	got, topicEnd := p.AppendBody([]byte("before"))
	if want := "before\x00\x03a/bxy"; string(got) != want || topicEnd != 5 {
		t.Errorf("got %q and %d, want %q and 5", got, topicEnd, want)
	}
}

// The hot path allocates nothing (law 2 and the budget of the hot path).
func TestNoAllocation(t *testing.T) {
	publish, _, _, err := Split(unhex(t, "32 12 0008 'sensor/a' 000a '123456'"), noLimit)
	if err != nil {
		t.Fatal(err)
	}
	var (
		p    Publish
		a    Ack
		raw  = (&Publish{Topic: []byte("sensor/a"), Payload: []byte("123456"), QoS: 1, ID: 10}).Append(nil)
		ack  = (&Ack{Type: TypePuback, ID: 10}).Append(nil)
		out  = make([]byte, 0, 256)
		body = []byte("\x00\x08sensor/a123456")
	)
	for name, f := range map[string]func(){
		"split": func() { publish, _, _, err = Split(raw, noLimit) },
		"decode PUBLISH": func() {
			if err := p.Decode(publish); err != nil {
				t.Error(err)
			}
		},
		"decode PUBACK": func() {
			f, _, _, _ := Split(ack, noLimit)
			if err := a.Decode(f); err != nil {
				t.Error(err)
			}
		},
		"append PUBLISH": func() { out = p.Append(out[:0]) },
		"append body":    func() { out, _ = p.AppendBody(out[:0]) },
		"append to many": func() { out = AppendPublish(out[:0], body, 10, 1, true, false, 9) },
		"append PUBACK":  func() { out = a.Append(out[:0]) },
		"append PINGREQ": func() { out = Pingreq{}.Append(out[:0]) },
		"append CONNACK": func() { out = (&Connack{}).Append(out[:0]) },
		"append SUBACK":  func() { out = (&Suback{ID: 1, Codes: []mqtt.QoS{1}}).Append(out[:0]) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

var benchmarkPublish = (&Publish{
	Topic: []byte("sensor/weather/temperature"), Payload: make([]byte, 200), QoS: 1, ID: 1,
}).Append(nil)

func BenchmarkDecodePublish(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(benchmarkPublish)))
	var p Publish
	for b.Loop() {
		f, _, _, err := Split(benchmarkPublish, noLimit)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Decode(f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	b.ReportAllocs()
	body := benchmarkPublish[3:]
	dst := make([]byte, 0, 512)
	for b.Loop() {
		dst = AppendPublish(dst[:0], body, 28, 1, false, false, 7)
	}
}
