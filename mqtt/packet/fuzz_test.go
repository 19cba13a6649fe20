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
		f.Add(unhex(f, c.hex), false, false)
	}
	for _, c := range unlawful {
		f.Add(unhex(f, c.hex), false, false)
	}
	for _, c := range lawful5 {
		f.Add(unhex(f, c.hex), c.from.version == V5, c.from.fromServer)
	}
	for _, c := range unlawful5 {
		f.Add(unhex(f, c.hex), c.from.version == V5, c.from.fromServer)
	}
	f.Fuzz(func(t *testing.T, b []byte, five, fromServer bool) {
		const maxSize = 1 << 16
		from := link{fromServer: fromServer}
		if five {
			from.version = V5
		}
		for {
			frame, n, need, err := from.split(b, maxSize)
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
	p := structFor(f)
	if err := p.Decode(f); err != nil {
		checkError(t, err, p, f, raw)
		return
	}
	encoded := p.Append(nil)
	if isCanonical(f, raw) && !bytes.Equal(encoded, raw) {
		t.Fatalf("%x was encoded to %x", raw, encoded)
	}
	again, err := decodeAs(link{f.Version, f.FromServer}, encoded)
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Fatalf("%+v became %+v, %v", p, again, err)
	}
}

// checkError checks that an error tells the text, the statement, and on a
// connection of MQTT 5 the reason.
func checkError(t *testing.T, err error, p body, f Frame, raw []byte) {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Text == "" || !strings.HasPrefix(e.ID, "MQTT-") {
		t.Fatalf("%x: %v is no complete *Error", raw, err)
	}
	c, isConnect := p.(*Connect)
	if (isConnect && c.Version == V5 || !isConnect && f.Version == V5) && !e.Reason.Failed() {
		t.Fatalf("%x: %v has no reason", raw, err)
	}
}

// isCanonical reports whether there is one way to write the packet: its length is
// as short as can be, and it is no CONNECT of the lenient MQTT 3.1, nor a packet
// of MQTT 5 that says what it may leave out.
func isCanonical(f Frame, raw []byte) bool {
	shortest := len(appendHeader(nil, f.First, len(f.Body)))
	switch f.Type() {
	case TypeConnect:
		if bytes.Contains(f.Body, []byte(protocolNameV31)) {
			return false
		}
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		if len(f.Body) == 3 && f.Body[2] == 0 || len(f.Body) == 4 {
			return false
		}
	case TypeDisconnect:
		if len(f.Body) == 1 && f.Body[0] == 0 || len(f.Body) == 2 {
			return false
		}
	case TypeAuth:
		if len(f.Body) == 2 {
			return false
		}
	}
	return shortest == len(raw)-len(f.Body)
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

// AppendPublish5, Publish.Append and Decode agree about every message.
func FuzzAppendPublish5(f *testing.F) {
	f.Add("a/b", []byte("1"), []byte(props("02 0000000a 26 0001 'k' 0001 'v'")), uint16(7), uint32(3), uint16(5), false, uint32(300))
	f.Add("a", []byte{}, []byte{}, uint16(0), uint32(0), uint16(0), false, uint32(0))
	f.Add("sensor/a", []byte("21.4"), []byte(props("01 01 03 0001 't' 23 0009 0b 01")), uint16(1), uint32(1<<31), uint16(65535), true, uint32(1<<28-1))
	f.Fuzz(func(t *testing.T, topic string, payload, list []byte, id uint16, waited uint32, alias uint16, omit bool, sub uint32) {
		sent := Publish{Version: V5, Topic: []byte(topic), Payload: payload, Properties: list}
		got, err := decodeAs(server, sent.Append(nil))
		if err != nil {
			return
		}
		body, topicEnd := sent.AppendBody(nil)
		kept := got.(*Publish).Properties.AppendForwarded(nil)
		x, q := extra(waited, alias, omit, sub), mqtt.AtMostOnce
		if id != 0 {
			q = mqtt.AtLeastOnce
		}
		before := bytes.Clone(kept)
		raw := AppendPublish5(nil, body, topicEnd, kept, q, true, false, id, x)
		if !bytes.Equal(kept, before) {
			t.Fatalf("properties %x became %x", before, kept)
		}
		if x.OmitTopic {
			topic = ""
		}
		if topic == "" && x.Alias == 0 {
			return // came with an alias that is not forwarded
		}
		checkSent(t, raw, Publish{
			Version: V5, Topic: []byte(topic), Payload: payload, QoS: q, ID: id, Retain: true, Properties: x.addTo(kept),
		})
	})
}

func extra(waited uint32, alias uint16, omit bool, sub uint32) Extra {
	x := Extra{Waited: waited, Alias: alias, OmitTopic: omit && alias != 0}
	if sub &= maxLength; sub != 0 {
		x.SubscriptionIDs = []uint32{sub, 1}
	}
	return x
}

// addTo is the slow way of what AppendPublish5 does.
func (x Extra) addTo(kept Properties) Properties {
	var list Properties
	for rest := kept; len(rest) > 0; {
		var id Property
		var value []byte
		id, value, rest = rest.next()
		if id == PropMessageExpiry {
			expiry, _ := kept.Uint(id)
			list = list.AppendUint(id, uint32(max(int64(expiry)-int64(x.Waited), 0)))
			continue
		}
		list = append(append(list, byte(id)), value...)
	}
	if x.Alias != 0 {
		list = list.AppendUint(PropTopicAlias, uint32(x.Alias))
	}
	for _, id := range x.SubscriptionIDs {
		list = list.AppendUint(PropSubscriptionID, id)
	}
	return list
}

// checkSent checks that raw is the message want.
func checkSent(t *testing.T, raw []byte, want Publish) {
	if plain := want.Append(nil); !bytes.Equal(raw, plain) {
		t.Fatalf("AppendPublish5 %x, Append %x", raw, plain)
	}
	got, err := decodeAs(server, raw)
	if err != nil {
		t.Fatal(err)
	}
	p := got.(*Publish)
	if !bytes.Equal(p.Topic, want.Topic) || !bytes.Equal(p.Payload, want.Payload) || !bytes.Equal(p.Properties, want.Properties) || p.ID != want.ID {
		t.Fatalf("%x was decoded to %+v, want %+v", raw, p, want)
	}
}
