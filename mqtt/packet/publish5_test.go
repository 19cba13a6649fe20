package packet

import (
	"bytes"
	"testing"

	"tidegate/mqtt"
)

func TestAppendPublish5(t *testing.T) {
	expiry := props("02 0000000a 03 0001 't'")
	cases := []struct {
		name  string
		props Properties
		qos   mqtt.QoS
		dup   bool
		extra Extra
		want  string
	}{
		{"no properties", nil, 0, false, Extra{}, "30 07 0003 'a/b' 00 '1'"},
		{"QoS 1 has an id before the properties", nil, 1, true, Extra{}, "3a 09 0003 'a/b' 0007 00 '1'"},
		{"properties as they are", expiry, 0, false, Extra{}, "30 10 0003 'a/b' 09 02 0000000a 03 0001 't' '1'"},
		{
			"the time in the server is taken off the expiry [MQTT-3.3.2-6]",
			expiry, 0, false,
			Extra{Waited: 4},
			"30 10 0003 'a/b' 09 02 00000006 03 0001 't' '1'",
		},
		{"an expiry does not fall below 0", expiry, 0, false, Extra{Waited: 11}, "30 10 0003 'a/b' 09 02 00000000 03 0001 't' '1'"},
		{"what never expires does not age", props("03 0001 't'"), 0, false, Extra{Waited: 4}, "30 0b 0003 'a/b' 04 03 0001 't' '1'"},
		{"a new alias comes with the topic", nil, 2, false, Extra{Alias: 5}, "34 0c 0003 'a/b' 0007 03 23 0005 '1'"},
		{"a known alias comes without", nil, 0, false, Extra{Alias: 5, OmitTopic: true}, "30 07 0000 03 23 0005 '1'"},
		{
			"subscription identifiers [MQTT-3.3.4-3]", expiry, 0, false,
			Extra{SubscriptionIDs: []uint32{1, 128, 1<<28 - 1}},
			"30 1a 0003 'a/b' 13 02 0000000a 03 0001 't' 0b 01 0b 8001 0b ffffff7f '1'",
		},
	}
	body, topicEnd := (&Publish{Topic: []byte("a/b"), Payload: []byte("1")}).AppendBody(nil)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := bytes.Clone(c.props)
			got := AppendPublish5([]byte("before"), body, topicEnd, c.props, c.qos, false, c.dup, 7, c.extra)
			if want := append([]byte("before"), unhex(t, c.want)...); !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
			if !bytes.Equal(c.props, before) {
				t.Errorf("the properties of the message became %x", c.props)
			}
			if _, err := decodeAs(server, got[len("before"):]); err != nil {
				t.Error(err)
			}
		})
	}
}

// A property list of 128 bytes has a length of two.
func TestAppendPublish5LongProperties(t *testing.T) {
	var p Properties
	for len(p) < 128 {
		p = p.AppendUser("k", "val")
	}
	raw := AppendPublish5(nil, []byte("\x00\x01a1"), 3, p, 1, false, false, 1, Extra{})
	got, err := decodeAs(client, raw)
	if err != nil || !bytes.Equal(got.(*Publish).Properties, p) || string(got.(*Publish).Payload) != "1" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// The hot path of MQTT 5 allocates nothing either.
func TestNoAllocation5(t *testing.T) {
	const list = "01 01 02 0000003c 23 0005 26 0001 'k' 0001 'v'"
	plain, full := unhex(t, "32 0e 0008 'sensor/a' 000a 00 '1'"), (&Publish{
		Version: V5, Topic: []byte("sensor/a"), Payload: []byte("123456"), QoS: 1, ID: 10, Properties: props(list),
	}).Append(nil)
	var (
		p      Publish
		a      Ack
		out    = make([]byte, 0, 256)
		kept   = make(Properties, 0, 256)
		body   = []byte("\x00\x08sensor/a123456")
		ids    = []uint32{1, 300}
		reason = (&Ack{Type: TypePuback, ID: 10, Reason: ReasonNoMatchingSubscribers}).Append(nil)
	)
	decode := func(p interface{ Decode(Frame) error }, raw []byte) {
		f, _, _, err := V5.Split(raw, noLimit)
		if err != nil {
			t.Error(err)
		}
		if err := p.Decode(f); err != nil {
			t.Error(err)
		}
	}
	for name, f := range map[string]func(){
		"decode PUBLISH":                 func() { decode(&p, plain) },
		"decode PUBLISH with properties": func() { decode(&p, full) },
		"decode PUBACK":                  func() { decode(&a, reason) },
		"look up":                        func() { p.Properties.Uint(PropMessageExpiry) },
		"select":                         func() { kept = p.Properties.AppendForwarded(kept[:0]) },
		"append PUBLISH":                 func() { out = p.Append(out[:0]) },
		"append PUBACK":                  func() { out = a.Append(out[:0]) },
		"append to many": func() {
			out = AppendPublish5(out[:0], body, 10, kept, 1, true, false, 9, Extra{Waited: 1, Alias: 3, SubscriptionIDs: ids})
		},
		"append DISCONNECT": func() { out = (&Disconnect5{Reason: ReasonServerBusy}).Append(out[:0]) },
		"walk identifiers": func() {
			for range p.Properties.SubscriptionIDs() {
				t.Error("there is none")
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDecodePublish5(b *testing.B) {
	for name, p := range map[string]Properties{"plain": nil, "properties": props("02 0000003c 03 0010 'application/json' 26 0004 'unit' 0002 '°'")} {
		b.Run(name, func(b *testing.B) {
			raw := (&Publish{
				Version: V5, Topic: []byte("sensor/weather/temperature"), Payload: make([]byte, 200), QoS: 1, ID: 1, Properties: p,
			}).Append(nil)
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			var p Publish
			for b.Loop() {
				f, _, _, err := V5.Split(raw, noLimit)
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Decode(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendPublish5(b *testing.B) {
	b.ReportAllocs()
	body, p := benchmarkPublish[3:], props("02 0000003c 03 0010 'application/json'")
	dst := make([]byte, 0, 512)
	for b.Loop() {
		dst = AppendPublish5(dst[:0], body, 28, p, 1, false, false, 7, Extra{Waited: 3, SubscriptionIDs: []uint32{9}})
	}
}
