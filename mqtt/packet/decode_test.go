package packet

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"tidegate/mqtt"
)

const noLimit = MaxSize

// body is what all packet structs have in common.
type body interface {
	Decode(Frame) error
	Append([]byte) []byte
}

// structFor is an empty struct for the packet in a frame.
func structFor(f Frame) body {
	switch t := f.Type(); {
	case f.Version == V5 && t == TypeUnsuback:
		return new(Unsuback)
	case f.Version == V5 && t == TypeDisconnect:
		return new(Disconnect5)
	}
	switch f.Type() {
	case TypeConnect:
		return new(Connect)
	case TypeConnack:
		return new(Connack)
	case TypePublish:
		return new(Publish)
	case TypeSubscribe:
		return new(Subscribe)
	case TypeSuback:
		return new(Suback)
	case TypeUnsubscribe:
		return new(Unsubscribe)
	case TypePingreq:
		return new(Pingreq)
	case TypePingresp:
		return new(Pingresp)
	case TypeDisconnect:
		return new(Disconnect)
	case TypeAuth:
		return new(Auth)
	}
	return new(Ack)
}

// unhex reads bytes in hexadecimal; 'text' in quotes stands for its characters.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := readHex(s)
	if err != nil {
		t.Fatalf("test data %q: %v", s, err)
	}
	return b
}

func readHex(s string) ([]byte, error) {
	var b []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			b = append(b, part...)
			continue
		}
		raw, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			return nil, err
		}
		b = append(b, raw...)
	}
	return b, nil
}

// decode splits and decodes the one packet in b.
func decode(b []byte) (body, error) { return decodeAs(link{}, b) }

// decodeAs decodes the one packet in b that came over l.
func decodeAs(l link, b []byte) (body, error) {
	f, n, _, err := l.split(b, noLimit)
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, fmt.Errorf("split %d bytes of %d", n, len(b))
	}
	p := structFor(f)
	return p, p.Decode(f)
}

// lawful packets; each is encoded to the same bytes again.
var lawful = []struct {
	name string
	hex  string
	want body
}{
	{
		"a CONNECT of 3.1.1 with a client id only",
		"10 0e 0004 'MQTT' 04 02 003c 0002 'c1'",
		&Connect{Version: V311, CleanSession: true, KeepAlive: 60, ClientID: "c1"},
	},
	{
		"a CONNECT of 3.1 with its own protocol name",
		"10 10 0006 'MQIsdp' 03 00 0000 0002 'c1'",
		&Connect{Version: V31, ClientID: "c1"},
	},
	{
		"a CONNECT may leave out the client id with a clean session [MQTT-3.1.3-6]",
		"10 0c 0004 'MQTT' 04 02 0000 0000",
		&Connect{Version: V311, CleanSession: true},
	},
	{
		"a CONNECT with everything has its fields in order [MQTT-3.1.3-1]",
		"10 25 0004 'MQTT' 04 ee 000a 0002 'c1' 0003 'w/t' 0004 'gone' 0004 'user' 0004 'pass'",
		&Connect{
			Version: V311, CleanSession: true, KeepAlive: 10, ClientID: "c1",
			Will:        &Will{Topic: "w/t", Payload: []byte("gone"), QoS: 1, Retain: true},
			HasUsername: true, Username: "user", Password: []byte("pass"),
		},
	},
	{
		"a will may have QoS 2 and no payload [MQTT-3.1.2-14]",
		"10 12 0004 'MQTT' 04 16 0000 0001 'c' 0001 'w' 0000",
		&Connect{Version: V311, CleanSession: true, ClientID: "c", Will: &Will{Topic: "w", QoS: 2}},
	},
	{
		"a user name and a password may be empty",
		"10 11 0004 'MQTT' 04 c2 0000 0001 'c' 0000 0000",
		&Connect{Version: V311, CleanSession: true, ClientID: "c", HasUsername: true, Password: []byte{}},
	},
	{
		"a user name needs no password",
		"10 10 0004 'MQTT' 04 82 0000 0001 'c' 0001 'u'",
		&Connect{Version: V311, CleanSession: true, ClientID: "c", HasUsername: true, Username: "u"},
	},
	{
		"a password is bytes, not text",
		"10 14 0004 'MQTT' 04 c2 0000 0001 'c' 0001 'u' 0002 ff00",
		&Connect{Version: V311, CleanSession: true, ClientID: "c", HasUsername: true, Username: "u", Password: []byte{0xff, 0}},
	},
	{"a CONNACK accepts", "20 02 00 00", &Connack{}},
	{"a CONNACK reports a session [MQTT-3.2.2-2]", "20 02 01 00", &Connack{SessionPresent: true}},
	{"a CONNACK refuses", "20 02 00 05", &Connack{Code: RefusedNotAuthorized}},
	{"a reserved return code is a refusal", "20 02 00 85", &Connack{Code: 0x85}},
	{"a PUBLISH of QoS 0 has no packet identifier [MQTT-2.3.1-5]", "30 06 0003 'a/b' '1'", &Publish{Topic: []byte("a/b"), Payload: []byte("1")}},
	{"a PUBLISH of QoS 1 has one", "32 08 0003 'a/b' 000a '1'", &Publish{Topic: []byte("a/b"), Payload: []byte("1"), QoS: 1, ID: 10}},
	{
		"a PUBLISH of QoS 2, retained, once more",
		"3d 07 0003 'a/b' ffff",
		&Publish{Topic: []byte("a/b"), Payload: []byte{}, QoS: 2, ID: 65535, Retain: true, Dup: true},
	},
	{
		"a byte order mark belongs to the topic [MQTT-1.5.3-3]",
		"30 07 0005 efbbbf 'ü'",
		&Publish{Topic: []byte("\ufeffü"), Payload: []byte{}},
	},
	{"a topic may have a space and begin with /", "30 05 0003 '/ $'", &Publish{Topic: []byte("/ $"), Payload: []byte{}}},
	{"a PUBACK", "40 02 1234", &Ack{Type: TypePuback, ID: 0x1234}},
	{"a PUBREC", "50 02 0001", &Ack{Type: TypePubrec, ID: 1}},
	{"a PUBREL has the flags 0010 [MQTT-3.6.1-1]", "62 02 0001", &Ack{Type: TypePubrel, ID: 1}},
	{"a PUBCOMP", "70 02 ffff", &Ack{Type: TypePubcomp, ID: 65535}},
	{
		"a SUBSCRIBE has the flags 0010 [MQTT-3.8.1-1]",
		"82 0e 000a 0003 'a/b' 01 0003 '+/#' 02",
		&Subscribe{ID: 10, Subscriptions: []mqtt.Subscription{{Filter: "a/b", QoS: 1}, {Filter: "+/#", QoS: 2}}},
	},
	{"a SUBACK has a code for each filter [MQTT-3.8.4-5]", "90 06 000a 00 01 02 80", &Suback{ID: 10, Codes: []mqtt.QoS{0, 1, 2, mqtt.QoSFailure}}},
	{"an UNSUBSCRIBE has the flags 0010 [MQTT-3.10.1-1]", "a2 0a 000a 0003 'a/b' 0001 '#'", &Unsubscribe{ID: 10, Filters: []string{"a/b", "#"}}},
	{"an UNSUBACK", "b0 02 000a", &Ack{Type: TypeUnsuback, ID: 10}},
	{"a PINGREQ", "c0 00", &Pingreq{}},
	{"a PINGRESP", "d0 00", &Pingresp{}},
	{"a DISCONNECT", "e0 00", &Disconnect{}},
}

func TestLawfulPackets(t *testing.T) {
	for _, c := range lawful {
		t.Run(c.name, func(t *testing.T) {
			raw := unhex(t, c.hex)
			got, err := decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("decoded %+v, want %+v", got, c.want)
			}
			if again := c.want.Append([]byte("before")); string(again) != "before"+string(raw) {
				t.Errorf("encoded %x, want %x behind the prefix", again, raw)
			}
		})
	}
}

// What MQTT 3.1 allows and we would not write.
func TestLenientPackets(t *testing.T) {
	cases := []struct {
		name string
		hex  string
		want body
	}{
		{
			"3.1 may announce a user name and a password and leave both out",
			"10 0f 0006 'MQIsdp' 03 c2 0000 0001 'c'",
			&Connect{Version: V31, CleanSession: true, ClientID: "c"},
		},
		{
			"3.1 leaves the reserved connect flag to the client",
			"10 0f 0006 'MQIsdp' 03 03 0000 0001 'c'",
			&Connect{Version: V31, CleanSession: true, ClientID: "c"},
		},
		{
			"3.1 does not take client ids of more than 23 characters, we do",
			"10 26 0006 'MQIsdp' 03 02 0000 0018 'abcdefghijklmnopqrstuvwx'",
			&Connect{Version: V31, CleanSession: true, ClientID: "abcdefghijklmnopqrstuvwx"},
		},
		{"a remaining length may take more bytes than it needs", "40 82 80 80 00 0001", &Ack{Type: TypePuback, ID: 1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := decode(unhex(t, c.hex))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("decoded %+v, want %+v", got, c.want)
			}
		})
	}
}

// unlawful packets. Those with a Code are answered with a CONNACK.
var unlawful = []struct {
	name string
	hex  string
	code ConnackCode
	id   string
}{
	{"packet type 0 is forbidden", "00 00", 0, "MQTT-4.8.0-1"},
	{"packet type 15 is forbidden", "f0 00", 0, "MQTT-4.8.0-1"},
	{"a request of HTTP is not MQTT", "'GET / HTTP/1.1'", 0, "MQTT-2.2.2-2"},
	{"a remaining length has at most four bytes", "30 80 80 80 80 01", 0, "MQTT-4.8.0-1"},

	{"CONNECT has no flags", "11 0d 0004 'MQTT' 04 02 0000 0001 'c'", 0, "MQTT-2.2.2-2"},
	{"CONNACK has no flags", "21 02 00 00", 0, "MQTT-2.2.2-2"},
	{"PUBACK has no flags", "42 02 0001", 0, "MQTT-2.2.2-2"},
	{"PUBREC has no flags", "51 02 0001", 0, "MQTT-2.2.2-2"},
	{"PUBREL must have the flags 0010", "60 02 0001", 0, "MQTT-3.6.1-1"},
	{"PUBREL must have no other flag", "6a 02 0001", 0, "MQTT-3.6.1-1"},
	{"PUBCOMP has no flags", "78 02 0001", 0, "MQTT-2.2.2-2"},
	{"SUBSCRIBE must have the flags 0010", "80 06 0001 0001 'a' 00", 0, "MQTT-3.8.1-1"},
	{"SUBACK has no flags", "92 03 0001 00", 0, "MQTT-2.2.2-2"},
	{"UNSUBSCRIBE must have the flags 0010", "a0 05 0001 0001 'a'", 0, "MQTT-3.10.1-1"},
	{"UNSUBACK has no flags", "b2 02 0001", 0, "MQTT-2.2.2-2"},
	{"PINGREQ has no flags", "c1 00", 0, "MQTT-2.2.2-2"},
	{"PINGRESP has no flags", "d8 00", 0, "MQTT-2.2.2-2"},
	{"DISCONNECT has no flags", "e1 00", 0, "MQTT-3.14.1-1"},

	{"an empty CONNECT", "10 00", 0, "MQTT-4.8.0-1"},
	{"a protocol name other than MQTT and MQIsdp", "10 0d 0004 'MQXX' 04 02 0000 0001 'c'", 0, "MQTT-3.1.2-1"},
	{"a protocol name in small letters", "10 0d 0004 'mqtt' 04 02 0000 0001 'c'", 0, "MQTT-3.1.2-1"},
	{"a version after MQTT 5 is refused with code 1", "10 0e 0004 'MQTT' 06 02 0000 00 0001 'c'", RefusedVersion, "MQTT-3.1.2-2"},
	{"level 5 has another protocol name", "10 0f 0006 'MQIsdp' 05 02 0000 0001 'c'", RefusedVersion, "MQTT-3.1.2-2"},
	{"level 3 has another protocol name", "10 0d 0004 'MQTT' 03 02 0000 0001 'c'", RefusedVersion, "MQTT-3.1.2-2"},
	{"level 4 has another protocol name", "10 0f 0006 'MQIsdp' 04 02 0000 0001 'c'", RefusedVersion, "MQTT-3.1.2-2"},
	{"the private bridge bit of mosquitto is refused with code 1", "10 0d 0004 'MQTT' 84 02 0000 0001 'c'", RefusedVersion, "MQTT-3.1.2-2"},
	{"the reserved connect flag must be 0", "10 0d 0004 'MQTT' 04 03 0000 0001 'c'", 0, "MQTT-3.1.2-3"},
	{"a will QoS needs a will", "10 0d 0004 'MQTT' 04 0a 0000 0001 'c'", 0, "MQTT-3.1.2-13"},
	{"a will QoS of 3 without a will", "10 0d 0004 'MQTT' 04 1a 0000 0001 'c'", 0, "MQTT-3.1.2-13"},
	{"will retain needs a will", "10 0d 0004 'MQTT' 04 22 0000 0001 'c'", 0, "MQTT-3.1.2-15"},
	{"a will has no QoS 3", "10 13 0004 'MQTT' 04 1e 0000 0001 'c' 0001 'w' 0001 'x'", 0, "MQTT-3.1.2-14"},
	{"a password needs a user name", "10 10 0004 'MQTT' 04 42 0000 0001 'c' 0001 'p'", 0, "MQTT-3.1.2-22"},
	{"a CONNECT ends inside its keep alive", "10 09 0004 'MQTT' 04 02 00", 0, "MQTT-4.8.0-1"},
	{"a CONNECT without any client id field [MQTT-3.1.3-3]", "10 0a 0004 'MQTT' 04 02 0000", 0, "MQTT-4.8.0-1"},
	{"a client id runs over the end", "10 0d 0004 'MQTT' 04 02 0000 0002 'c'", 0, "MQTT-4.8.0-1"},
	{"an announced will is missing [MQTT-3.1.2-9]", "10 0d 0004 'MQTT' 04 06 0000 0001 'c'", 0, "MQTT-4.8.0-1"},
	{"an announced will message is missing [MQTT-3.1.2-9]", "10 10 0004 'MQTT' 04 06 0000 0001 'c' 0001 'w'", 0, "MQTT-4.8.0-1"},
	{"an announced user name is missing [MQTT-3.1.2-19]", "10 0d 0004 'MQTT' 04 82 0000 0001 'c'", 0, "MQTT-4.8.0-1"},
	{"an announced password is missing [MQTT-3.1.2-21]", "10 10 0004 'MQTT' 04 c2 0000 0001 'c' 0001 'u'", 0, "MQTT-4.8.0-1"},
	{"a password that was not announced [MQTT-3.1.2-20]", "10 13 0004 'MQTT' 04 82 0000 0001 'c' 0001 'u' 0001 'p'", 0, "MQTT-4.8.0-1"},
	{"a user name that was not announced [MQTT-3.1.2-18]", "10 10 0004 'MQTT' 04 02 0000 0001 'c' 0001 'u'", 0, "MQTT-4.8.0-1"},
	{"a client id that is not UTF-8 [MQTT-3.1.3-4]", "10 0d 0004 'MQTT' 04 02 0000 0001 ff", 0, "MQTT-1.5.3-1"},
	{"a user name that is not UTF-8 [MQTT-3.1.3-11]", "10 10 0004 'MQTT' 04 82 0000 0001 'c' 0001 80", 0, "MQTT-1.5.3-1"},
	{"a will topic that is not UTF-8 [MQTT-3.1.3-10]", "10 12 0004 'MQTT' 04 06 0000 0001 'c' 0001 c0 0000", 0, "MQTT-1.5.3-1"},
	{"a will topic is a name, not a filter", "10 12 0004 'MQTT' 04 06 0000 0001 'c' 0001 '#' 0000", 0, "MQTT-4.7.1-1"},
	{"a will topic is not empty", "10 11 0004 'MQTT' 04 06 0000 0001 'c' 0000 0000", 0, "MQTT-4.7.3-1"},
	{"no client id and a session to keep is refused with code 2", "10 0c 0004 'MQTT' 04 00 0000 0000", RefusedClientID, "MQTT-3.1.3-8"},
	{"no client id in 3.1 is refused with code 2", "10 0e 0006 'MQIsdp' 03 02 0000 0000", RefusedClientID, "MQTT-3.1.3-9"},
	{"no client id and bytes left over is not answered [MQTT-3.1.4-1]", "10 0d 0004 'MQTT' 04 00 0000 0000 00", 0, "MQTT-4.8.0-1"},

	{"CONNACK has seven reserved flags", "20 02 02 00", 0, "MQTT-4.8.0-1"},
	{"a CONNACK that refuses has no session", "20 02 01 02", 0, "MQTT-3.2.2-4"},
	{"a CONNACK of one byte", "20 01 00", 0, "MQTT-4.8.0-1"},
	{"a CONNACK with bytes left over", "20 03 00 00 00", 0, "MQTT-4.8.0-1"},

	{"PUBLISH has no QoS 3", "36 05 0001 'a' 0001", 0, "MQTT-3.3.1-4"},
	{"a PUBLISH of QoS 0 is no duplicate", "38 03 0001 'a'", 0, "MQTT-3.3.1-2"},
	{"a PUBLISH of QoS 1 has a packet identifier over 0", "32 05 0001 'a' 0000", 0, "MQTT-2.3.1-1"},
	{"a PUBLISH of QoS 2 has a packet identifier over 0", "34 05 0001 'a' 0000", 0, "MQTT-2.3.1-1"},
	{"a PUBLISH of QoS 1 ends inside its packet identifier", "32 04 0001 'a' 00", 0, "MQTT-4.8.0-1"},
	{"an empty PUBLISH", "30 00", 0, "MQTT-4.8.0-1"},
	{"a topic runs over the end", "30 03 0002 'a'", 0, "MQTT-4.8.0-1"},
	{"a topic of length 65535 in a short packet", "30 03 ffff 'a'", 0, "MQTT-4.8.0-1"},
	{"an empty topic", "30 03 0000 'x'", 0, "MQTT-4.7.3-1"},
	{"a topic name with +", "30 05 0003 'a/+'", 0, "MQTT-3.3.2-2"},
	{"a topic name with #", "30 05 0003 'a/#'", 0, "MQTT-3.3.2-2"},
	{"a topic name with U+0000", "30 05 0003 'a' 00 'b'", 0, "MQTT-1.5.3-2"},
	{"a topic name with a surrogate", "30 05 0003 eda080", 0, "MQTT-1.5.3-1"},
	{"a topic name with an overlong slash", "30 04 0002 c0af", 0, "MQTT-1.5.3-1"},
	{"a topic name that ends inside a character", "30 04 0002 'a' c3", 0, "MQTT-1.5.3-1"},

	{"a PUBACK with the packet identifier 0", "40 02 0000", 0, "MQTT-2.3.1-1"},
	{"a PUBACK of one byte", "40 01 01", 0, "MQTT-4.8.0-1"},
	{"a PUBREC with bytes left over", "50 03 0001 00", 0, "MQTT-4.8.0-1"},
	{"a PUBREL with the packet identifier 0", "62 02 0000", 0, "MQTT-2.3.1-1"},
	{"an empty PUBCOMP", "70 00", 0, "MQTT-4.8.0-1"},

	{"a SUBSCRIBE without a filter", "82 02 0001", 0, "MQTT-3.8.3-3"},
	{"a SUBSCRIBE with the packet identifier 0", "82 06 0000 0001 'a' 00", 0, "MQTT-2.3.1-1"},
	{"an empty SUBSCRIBE", "82 00", 0, "MQTT-4.8.0-1"},
	{"a requested QoS of 3", "82 06 0001 0001 'a' 03", 0, "MQTT-3.8.3-4"},
	{"a requested QoS with reserved bits", "82 06 0001 0001 'a' 81", 0, "MQTT-3.8.3-4"},
	{"a filter without its QoS", "82 05 0001 0001 'a'", 0, "MQTT-4.8.0-1"},
	{"the second filter runs over the end", "82 09 0001 0001 'a' 00 0002 'b'", 0, "MQTT-4.8.0-1"},
	{"an empty filter", "82 05 0001 0000 00", 0, "MQTT-4.7.3-1"},
	{"# is the last character of a filter", "82 08 0001 0003 '#/a' 00", 0, "MQTT-4.7.1-2"},
	{"# stands alone in its level", "82 07 0001 0002 'a#' 00", 0, "MQTT-4.7.1-2"},
	{"+ stands alone in its level", "82 07 0001 0002 'a+' 00", 0, "MQTT-4.7.1-3"},
	{"a filter with U+0000", "82 06 0001 0001 00 00", 0, "MQTT-1.5.3-2"},
	{"a filter that is not UTF-8 [MQTT-3.8.3-1]", "82 06 0001 0001 fe 00", 0, "MQTT-1.5.3-1"},

	{"a SUBACK with a reserved return code", "90 03 0001 03", 0, "MQTT-3.9.3-2"},
	{"a SUBACK without a return code", "90 02 0001", 0, "MQTT-3.9.3-1"},

	{"an UNSUBSCRIBE without a filter", "a2 02 0001", 0, "MQTT-3.10.3-2"},
	{"an UNSUBSCRIBE with the packet identifier 0", "a2 05 0000 0001 'a'", 0, "MQTT-2.3.1-1"},
	{"an UNSUBSCRIBE that ends inside a length", "a2 06 0001 0001 'a' 00", 0, "MQTT-4.8.0-1"},
	{"an UNSUBSCRIBE that is not UTF-8 [MQTT-3.10.3-1]", "a2 05 0001 0001 fe", 0, "MQTT-1.5.3-1"},
	{"an UNSUBACK of four bytes", "b0 04 0001 0002", 0, "MQTT-4.8.0-1"},

	{"a PINGREQ with a body", "c0 01 00", 0, "MQTT-4.8.0-1"},
	{"a PINGRESP with a body", "d0 01 00", 0, "MQTT-4.8.0-1"},
	{"a DISCONNECT with a body", "e0 02 00 00", 0, "MQTT-4.8.0-1"},
}

func TestUnlawfulPackets(t *testing.T) {
	for _, c := range unlawful {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(unhex(t, c.hex))
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.ID != c.id || e.Code != c.code {
				t.Errorf("got %q with code %d, want code %d and %s", e, e.Code, c.code, c.id)
			}
			if !strings.Contains(err.Error(), e.Text) || !strings.HasSuffix(err.Error(), "["+c.id+"]") {
				t.Errorf("%q does not tell text and statement", err)
			}
		})
	}
}

func TestDecodeUsesSlicesAgain(t *testing.T) {
	var s Subscribe
	for range 2 {
		f, _, _, err := Split(unhex(t, "82 0e 000a 0003 'a/b' 01 0003 '+/#' 02"), noLimit)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Decode(f); err != nil || len(s.Subscriptions) != 2 {
			t.Fatalf("got %v, %v", s, err)
		}
	}
}
