package packet

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"tidegate/mqtt"
)

// Whatever comes, Split and Decode return; what they accept is encoded to the
// same bytes if those were canonical, and means the same when decoded again.
func FuzzFrame(f *testing.F) {
	for _, c := range lawful {
		f.Add(unhex(f, c.hex))
	}
	for _, c := range unlawful {
		f.Add(unhex(f, c.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const maxSize = 1 << 16
		for {
			frame, n, need, err := Split(b, maxSize)
			if n == 0 && err == nil && need != 0 && need <= len(b) {
				t.Fatalf("split asks for %d bytes and has %d", need, len(b))
			}
			if n > maxSize {
				t.Fatalf("split %d bytes", n)
			}
			if n == 0 {
				return
			}
			checkRoundTrip(t, frame, b[:n])
			b = b[n:]
		}
	})
}

func checkRoundTrip(t *testing.T, f Frame, raw []byte) {
	p := structFor(f.Type())
	if err := p.Decode(f); err != nil {
		if e, ok := errors.AsType[*Error](err); !ok || e.Text == "" || !strings.HasPrefix(e.ID, "MQTT-") {
			t.Fatalf("%x: %v is no complete *Error", raw, err)
		}
		return
	}
	encoded := p.Append(nil)
	if isCanonical(f, raw) && !bytes.Equal(encoded, raw) {
		t.Fatalf("%x was encoded to %x", raw, encoded)
	}
	again, err := decode(encoded)
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Fatalf("%+v became %+v, %v", p, again, err)
	}
}

// isCanonical reports whether there is one way to write the packet: its length is
// as short as can be, and it is no CONNECT of the lenient MQTT 3.1.
func isCanonical(f Frame, raw []byte) bool {
	shortest := len(appendHeader(nil, f.First, len(f.Body)))
	lenient := f.Type() == TypeConnect && bytes.Contains(f.Body, []byte(protocolNameV31))
	return shortest == len(raw)-len(f.Body) && !lenient
}

// AppendPublish, Publish.Append and Decode agree about every message.
func FuzzAppendPublish(f *testing.F) {
	f.Add("a/b", []byte("1"), byte(0), false, false, uint16(0))
	f.Add("sensor/weather/temperature", []byte(`{"value":21.4}`), byte(1), true, false, uint16(1))
	f.Add("ü", []byte{}, byte(2), false, true, uint16(65535))
	f.Add("a", bytes.Repeat([]byte("x"), 128), byte(1), false, false, uint16(256))
	f.Fuzz(func(t *testing.T, topic string, payload []byte, qos byte, retain, dup bool, id uint16) {
		q := mqtt.QoS(qos % 3)
		if mqtt.ValidName(topic) != nil || q != 0 && id == 0 || q == 0 && dup {
			return
		}
		want := Publish{Topic: []byte(topic), Payload: payload, QoS: q, Retain: retain, Dup: dup, ID: id}
		if q == 0 {
			want.ID = 0
		}
		body, topicEnd := want.AppendBody(nil)
		raw := AppendPublish(nil, body, topicEnd, q, retain, dup, id)
		if plain := want.Append(nil); !bytes.Equal(raw, plain) {
			t.Fatalf("AppendPublish %x, Append %x", raw, plain)
		}
		got, err := decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		p := got.(*Publish)
		same := bytes.Equal(p.Topic, want.Topic) && bytes.Equal(p.Payload, want.Payload)
		p.Topic, p.Payload, want.Topic, want.Payload = nil, nil, nil, nil
		if !same || !reflect.DeepEqual(*p, want) {
			t.Fatalf("%x was decoded to %+v", raw, got)
		}
	})
}
