package packet

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"tidegate/mqtt"
)

// Who sends a packet of MQTT 5. A CONNECT says its version itself.
var (
	client  = link{version: V5}
	server  = link{version: V5, fromServer: true}
	unknown = link{}
)

// props reads properties in hexadecimal.
func props(s string) Properties {
	b, err := readHex(s)
	if err != nil {
		panic(err)
	}
	return b
}

// lawful5 are lawful packets of MQTT 5; each is encoded to the same bytes again.
var lawful5 = []struct {
	name string
	from link
	hex  string
	want body
}{
	{
		"a CONNECT without properties says so with a length of 0 [MQTT-2.2.2-1]", unknown,
		"10 0f 0004 'MQTT' 05 02 003c 00 0002 'c1'",
		&Connect{Version: V5, CleanSession: true, KeepAlive: 60, ClientID: "c1"},
	},
	{
		"a CONNECT may leave the client id to the server, also for a session to keep [MQTT-3.1.3-6]", unknown,
		"10 0d 0004 'MQTT' 05 00 0000 00 0000",
		&Connect{Version: V5},
	},
	{
		"a CONNECT may have a password without a user name", unknown,
		"10 11 0004 'MQTT' 05 40 0000 00 0001 'c' 0001 'p'",
		&Connect{Version: V5, ClientID: "c", Password: []byte("p")},
	},
	{
		"a CONNECT with all its properties", unknown,
		"10 32 0004 'MQTT' 05 02 0000 24 11 00000e10 21 0014 27 00001000 22 000a 19 01 17 00 26 0001 'k' 0001 'v' 15 0001 'm' 16 0002 ff00 0001 'c'",
		&Connect{
			Version: V5, CleanSession: true, ClientID: "c",
			Properties: props("11 00000e10 21 0014 27 00001000 22 000a 19 01 17 00 26 0001 'k' 0001 'v' 15 0001 'm' 16 0002 ff00"),
		},
	},
	{
		"a will with all its properties [MQTT-3.1.2-9]", unknown,
		"10 40 0004 'MQTT' 05 2e 0000 00 0001 'c' 28 18 00000005 01 01 02 0000003c 03 0002 'tp' 08 0003 'r/t' 09 0001 ff 26 0001 'k' 0001 'v' 26 0001 'k' 0000 0001 'w' 0004 'gone'",
		&Connect{
			Version: V5, CleanSession: true, ClientID: "c",
			Will: &Will{
				Topic: "w", Payload: []byte("gone"), QoS: 1, Retain: true,
				Properties: props("18 00000005 01 01 02 0000003c 03 0002 'tp' 08 0003 'r/t' 09 0001 ff 26 0001 'k' 0001 'v' 26 0001 'k' 0000"),
			},
		},
	},
	{
		"a CONNACK accepts", server, "20 03 00 00 00",
		&Connack{Version: V5},
	},
	{
		"a CONNACK refuses and says why [MQTT-3.2.2-8]", server, "20 0a 00 87 07 1f 0004 'nope'",
		&Connack{Version: V5, Reason: ReasonNotAuthorized, Properties: props("1f 0004 'nope'")},
	},
	{
		"a CONNACK with all its properties", server,
		"20 49 01 00 46 11 00000000 21 0001 24 01 25 00 27 00000001 12 0002 'id' 22 ffff 1f 0001 'r' 26 0000 0000 28 00 29 00 2a 00 13 003c 1a 0002 'ri' 1c 0002 'sr' 15 0001 'm' 16 0001 'd' 26 0002 'k2' 0002 'v2'",
		&Connack{
			Version: V5, SessionPresent: true,
			Properties: props("11 00000000 21 0001 24 01 25 00 27 00000001 12 0002 'id' 22 ffff 1f 0001 'r' 26 0000 0000 28 00 29 00 2a 00 13 003c 1a 0002 'ri' 1c 0002 'sr' 15 0001 'm' 16 0001 'd' 26 0002 'k2' 0002 'v2'"),
		},
	},
	{
		"a PUBLISH without properties", client, "30 07 0003 'a/b' 00 '1'",
		&Publish{Version: V5, Topic: []byte("a/b"), Payload: []byte("1")},
	},
	{
		"a PUBLISH of QoS 1 has its properties behind the packet identifier", client,
		"32 0e 0003 'a/b' 000a 05 02 0000000a '1'",
		&Publish{Version: V5, Topic: []byte("a/b"), Payload: []byte("1"), QoS: 1, ID: 10, Properties: props("02 0000000a")},
	},
	{
		"a PUBLISH with a topic alias may have no topic", client,
		"30 07 0000 03 23 0005 '1'",
		&Publish{Version: V5, Topic: []byte{}, Payload: []byte("1"), Properties: props("23 0005")},
	},
	{
		"a PUBLISH of a client with all properties", client,
		"30 28 0001 'a' 22 01 01 02 00000000 03 0000 08 0001 'r' 09 0000 23 ffff 26 0001 'b' 0001 '2' 26 0001 'a' 0001 '1' 'ü'",
		&Publish{
			Version: V5, Topic: []byte("a"), Payload: []byte("ü"),
			Properties: props("01 01 02 00000000 03 0000 08 0001 'r' 09 0000 23 ffff 26 0001 'b' 0001 '2' 26 0001 'a' 0001 '1'"),
		},
	},
	{
		"a PUBLISH of a server has an identifier for each subscription [MQTT-3.3.4-3]", server,
		"30 0b 0001 'a' 07 0b 01 0b ffffff7f",
		&Publish{Version: V5, Topic: []byte("a"), Payload: []byte{}, Properties: props("0b 01 0b ffffff7f")},
	},
	{
		"a payload that is not said to be UTF-8 may be anything", client, "30 07 0001 'a' 02 01 00 ff",
		&Publish{Version: V5, Topic: []byte("a"), Payload: []byte{0xff}, Properties: props("01 00")},
	},
	{"a PUBACK of two bytes means success", client, "40 02 1234", &Ack{Type: TypePuback, ID: 0x1234}},
	{"a PUBACK of three bytes has a reason", client, "40 03 0001 10", &Ack{Type: TypePuback, ID: 1, Reason: ReasonNoMatchingSubscribers}},
	{
		"a PUBACK with properties has a reason too", server, "40 09 0001 00 05 1f 0002 'ok'",
		&Ack{Type: TypePuback, ID: 1, Properties: props("1f 0002 'ok'")},
	},
	{"a PUBREC refuses", server, "50 03 0001 97", &Ack{Type: TypePubrec, ID: 1, Reason: ReasonQuotaExceeded}},
	{"a PUBREL has the flags 0010 [MQTT-3.6.1-1]", client, "62 03 0001 92", &Ack{Type: TypePubrel, ID: 1, Reason: ReasonPacketIDNotFound}},
	{
		"a PUBCOMP with user properties", client, "70 0b 0001 92 07 26 0001 'k' 0001 'v'",
		&Ack{Type: TypePubcomp, ID: 1, Reason: ReasonPacketIDNotFound, Properties: props("26 0001 'k' 0001 'v'")},
	},
	{
		"a SUBSCRIBE gives its identifier and its options to each filter", client,
		"82 1f 000a 09 0b 07 26 0001 'k' 0001 'v' 0003 'a/b' 2d 0001 '#' 12 0006 '$shar/' 00",
		&Subscribe{
			Version: V5, ID: 10, Properties: props("0b 07 26 0001 'k' 0001 'v'"),
			Subscriptions: []mqtt.Subscription{
				{Filter: "a/b", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, ID: 7},
				{Filter: "#", QoS: 2, RetainHandling: 1, ID: 7},
				{Filter: "$shar/", ID: 7},
			},
		},
	},
	{
		"a SUBSCRIBE may ask for a shared subscription [MQTT-4.8.2-2]", client, "82 12 0001 00 000c '$share/g/+/#' 00",
		&Subscribe{Version: V5, ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "$share/g/+/#"}}},
	},
	{
		"a SUBACK has a reason for each filter [MQTT-3.9.3-1]", server, "90 0f 000a 06 1f 0003 'why' 00 01 02 80 8f a2",
		&Suback{
			Version: V5, ID: 10, Properties: props("1f 0003 'why'"),
			Reasons: []Reason{0, 1, 2, ReasonUnspecifiedError, ReasonTopicFilterInvalid, ReasonWildcardsNotSupported},
		},
	},
	{
		"an UNSUBSCRIBE", client, "a2 0d 000a 00 0003 'a/b' 0003 '+/#'",
		&Unsubscribe{Version: V5, ID: 10, Filters: []string{"a/b", "+/#"}},
	},
	{
		"an UNSUBACK has a reason for each filter [MQTT-3.11.3-1]", server, "b0 06 000a 00 00 11 87",
		&Unsuback{ID: 10, Reasons: []Reason{ReasonSuccess, ReasonNoSubscriptionExisted, ReasonNotAuthorized}},
	},
	{"a PINGREQ", client, "c0 00", &Pingreq{}},
	{"a PINGRESP", server, "d0 00", &Pingresp{}},
	{"a DISCONNECT without a body", client, "e0 00", &Disconnect5{}},
	{"a DISCONNECT with a reason", client, "e0 01 04", &Disconnect5{Reason: ReasonDisconnectWithWill}},
	{
		"a DISCONNECT of a client may change the session expiry", client, "e0 07 00 05 11 0000000a",
		&Disconnect5{Properties: props("11 0000000a")},
	},
	{
		"a DISCONNECT of a server may name another", server, "e0 0a 9d 08 1c 0005 'other'",
		&Disconnect5{Reason: ReasonServerMoved, Properties: props("1c 0005 'other'")},
	},
	{"an AUTH of a server without a body means success", server, "f0 00", &Auth{}},
	{
		"an AUTH of a client", client, "f0 0a 18 08 15 0001 'm' 16 0001 'd'",
		&Auth{Reason: ReasonContinueAuthentication, Properties: props("15 0001 'm' 16 0001 'd'")},
	},
	{
		"an AUTH of a client that begins again", client, "f0 06 19 04 15 0001 'm'",
		&Auth{Reason: ReasonReauthenticate, Properties: props("15 0001 'm'")},
	},
}

func TestLawfulPackets5(t *testing.T) {
	for _, c := range lawful5 {
		t.Run(c.name, func(t *testing.T) {
			raw := unhex(t, c.hex)
			got, err := decodeAs(c.from, raw)
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

// What MQTT 5 allows and we would not write.
func TestLenientPackets5(t *testing.T) {
	cases := []struct {
		name string
		from link
		hex  string
		want body
	}{
		{"a PUBACK may say success", client, "40 03 0001 00", &Ack{Type: TypePuback, ID: 1}},
		{"a PUBACK may say that it has no properties", client, "40 04 0001 10 00", &Ack{Type: TypePuback, ID: 1, Reason: 0x10}},
		{"a DISCONNECT may say that it is normal", client, "e0 01 00", &Disconnect5{}},
		{"a DISCONNECT may say that it has no properties", client, "e0 02 04 00", &Disconnect5{Reason: 4}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeAs(c.from, unhex(t, c.hex))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("decoded %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

// unlawful5 are unlawful packets of MQTT 5.
var unlawful5 = []struct {
	name   string
	from   link
	hex    string
	reason Reason
	id     string
}{
	{"packet type 0 is forbidden", client, "00 00", 0x81, "MQTT-4.13.1-1"},
	{"AUTH has no flags", client, "f1 00", 0x81, "MQTT-3.15.1-1"},
	{"DISCONNECT has no flags", client, "e2 00", 0x81, "MQTT-3.14.1-1"},
	{"PUBACK has no flags", client, "42 02 0001", 0x81, "MQTT-2.1.3-1"},
	{"PUBREL must have the flags 0010", client, "60 02 0001", 0x81, "MQTT-3.6.1-1"},
	{"SUBSCRIBE must have the flags 0010", client, "80 07 0001 00 0001 'a' 00", 0x81, "MQTT-3.8.1-1"},
	{"UNSUBSCRIBE must have the flags 0010", client, "a0 06 0001 00 0001 'a'", 0x81, "MQTT-3.10.1-1"},
	{"a remaining length has at most four bytes", client, "30 80 80 80 80 01", 0x81, "MQTT-4.13.1-1"},
	{"a remaining length takes no more bytes than it needs", client, "40 82 00 0001", 0x81, "MQTT-1.5.5-1"},

	{"the reserved connect flag must be 0", unknown, "10 0e 0004 'MQTT' 05 03 0000 00 0001 'c'", 0x81, "MQTT-3.1.2-3"},
	{"a will QoS needs a will", unknown, "10 0e 0004 'MQTT' 05 0a 0000 00 0001 'c'", 0x82, "MQTT-3.1.2-11"},
	{"will retain needs a will", unknown, "10 0e 0004 'MQTT' 05 22 0000 00 0001 'c'", 0x82, "MQTT-3.1.2-13"},
	{"a will has no QoS 3", unknown, "10 15 0004 'MQTT' 05 1e 0000 00 0001 'c' 00 0001 'w' 0001 'x'", 0x81, "MQTT-3.1.2-12"},
	{"a protocol name other than MQTT", unknown, "10 0e 0004 'MQXX' 05 02 0000 00 0001 'c'", 0x84, "MQTT-3.1.2-1"},
	{"a CONNECT ends before its property length", unknown, "10 0a 0004 'MQTT' 05 02 0000", 0x81, "MQTT-4.13.1-1"},
	{"a client id that is not UTF-8 [MQTT-3.1.3-4]", unknown, "10 0e 0004 'MQTT' 05 02 0000 00 0001 ff", 0x81, "MQTT-1.5.4-1"},
	{"a client id with U+0000", unknown, "10 0e 0004 'MQTT' 05 02 0000 00 0001 00", 0x81, "MQTT-1.5.4-2"},
	{"a user name that was not announced [MQTT-3.1.2-16]", unknown, "10 11 0004 'MQTT' 05 02 0000 00 0001 'c' 0001 'u'", 0x81, "MQTT-4.13.1-1"},
	{"a will topic is a name, not a filter", unknown, "10 14 0004 'MQTT' 05 06 0000 00 0001 'c' 00 0001 '#' 0000", 0x81, "MQTT-4.7.0-1"},
	{"a will topic is not empty", unknown, "10 13 0004 'MQTT' 05 06 0000 00 0001 'c' 00 0000 0000", 0x81, "MQTT-4.7.3-1"},
	{"a will without its property length", unknown, "10 0e 0004 'MQTT' 05 06 0000 00 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"a will that is not the UTF-8 it claims to be", unknown, "10 17 0004 'MQTT' 05 06 0000 00 0001 'c' 02 01 01 0001 'w' 0001 ff", 0x99, "MQTT-4.13.1-1"},
	{"a receive maximum of 0", unknown, "10 11 0004 'MQTT' 05 02 0000 03 21 0000 0001 'c'", 0x82, "MQTT-4.13.1-1"},
	{"a maximum packet size of 0", unknown, "10 13 0004 'MQTT' 05 02 0000 05 27 00000000 0001 'c'", 0x82, "MQTT-4.13.1-1"},
	{"a request for problem information is 0 or 1", unknown, "10 10 0004 'MQTT' 05 02 0000 02 17 02 0001 'c'", 0x82, "MQTT-4.13.1-1"},
	{"a request for response information is 0 or 1", unknown, "10 10 0004 'MQTT' 05 02 0000 02 19 ff 0001 'c'", 0x82, "MQTT-4.13.1-1"},
	{"a session expiry twice", unknown, "10 18 0004 'MQTT' 05 02 0000 0a 11 00000001 11 00000001 0001 'c'", 0x82, "MQTT-4.13.1-1"},
	{"a will delay is no property of the CONNECT itself", unknown, "10 13 0004 'MQTT' 05 02 0000 05 18 00000001 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"a session expiry is no property of a will", unknown, "10 19 0004 'MQTT' 05 06 0000 00 0001 'c' 05 11 00000001 0001 'w' 0000", 0x81, "MQTT-4.13.1-1"},
	{"an unknown property", unknown, "10 10 0004 'MQTT' 05 02 0000 02 7f 00 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"property 0", unknown, "10 10 0004 'MQTT' 05 02 0000 02 00 00 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"a property identifier of two bytes", unknown, "10 10 0004 'MQTT' 05 02 0000 02 91 00 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"a property ends inside its value", unknown, "10 11 0004 'MQTT' 05 02 0000 03 11 0000 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"properties run over the end", unknown, "10 0e 0004 'MQTT' 05 02 0000 7f 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"a property length takes no more bytes than it needs", unknown, "10 0f 0004 'MQTT' 05 02 0000 8000 0001 'c'", 0x81, "MQTT-1.5.5-1"},
	{"a property length has at most four bytes", unknown, "10 12 0004 'MQTT' 05 02 0000 8080808001 0001 'c'", 0x81, "MQTT-4.13.1-1"},
	{"authentication data needs a method", unknown, "10 12 0004 'MQTT' 05 02 0000 04 16 0001 'd' 0001 'c'", 0x82, "MQTT-4.13.1-1"},
	{"the name of a user property that is not UTF-8", unknown, "10 15 0004 'MQTT' 05 02 0000 07 26 0001 ff 0001 'c' 0001 'c'", 0x81, "MQTT-1.5.4-1"},
	{"the value of a user property that is not UTF-8 [MQTT-1.5.7-1]", unknown, "10 15 0004 'MQTT' 05 02 0000 07 26 0001 'k' 0001 ff 0001 'c'", 0x81, "MQTT-1.5.4-1"},

	{"CONNACK has seven reserved flags", server, "20 03 02 00 00", 0x81, "MQTT-3.2.2-1"},
	{"a CONNACK that refuses has no session", server, "20 03 01 80 00", 0x82, "MQTT-3.2.2-6"},
	{"a CONNACK with a return code of 3.1.1", server, "20 03 00 05 00", 0x82, "MQTT-3.2.2-8"},
	{"a CONNACK without a property length", server, "20 02 00 00", 0x81, "MQTT-4.13.1-1"},
	{"a CONNACK with a topic alias", server, "20 06 00 00 03 23 0001", 0x81, "MQTT-4.13.1-1"},
	{"a maximum QoS of 2 is the absence of the property", server, "20 05 00 00 02 24 02", 0x82, "MQTT-4.13.1-1"},

	{"PUBLISH has no QoS 3", client, "36 06 0001 'a' 0001 00", 0x81, "MQTT-3.3.1-4"},
	{"a PUBLISH of QoS 0 is no duplicate", client, "38 04 0001 'a' 00", 0x81, "MQTT-3.3.1-2"},
	{"a PUBLISH of a client has a packet identifier over 0", client, "32 06 0001 'a' 0000 00", 0x82, "MQTT-2.2.1-3"},
	{"a PUBLISH of a server has a packet identifier over 0", server, "32 06 0001 'a' 0000 00", 0x82, "MQTT-2.2.1-4"},
	{"an empty PUBLISH", client, "30 00", 0x81, "MQTT-4.13.1-1"},
	{"a PUBLISH without a property length", client, "30 03 0001 'a'", 0x81, "MQTT-4.13.1-1"},
	{"an empty topic without an alias", client, "30 03 0000 00", 0x82, "MQTT-4.7.3-1"},
	{"a topic name with +", client, "30 06 0003 'a/+' 00", 0x81, "MQTT-3.3.2-2"},
	{"a topic alias of 0", client, "30 07 0001 'a' 03 23 0000", 0x82, "MQTT-3.3.2-8"},
	{"a topic alias twice", client, "30 0a 0001 'a' 06 23 0001 23 0001", 0x82, "MQTT-4.13.1-1"},
	{"a subscription identifier from a client", client, "30 06 0001 'a' 02 0b 01", 0x82, "MQTT-3.3.4-6"},
	{"a subscription identifier of 0", server, "30 06 0001 'a' 02 0b 00", 0x82, "MQTT-4.13.1-1"},
	{"a subscription identifier takes no more bytes than it needs", server, "30 07 0001 'a' 03 0b 8100", 0x81, "MQTT-1.5.5-1"},
	{"a subscription identifier ends inside", server, "30 06 0001 'a' 02 0b 81", 0x81, "MQTT-4.13.1-1"},
	{"a payload format of 2", client, "30 06 0001 'a' 02 01 02", 0x82, "MQTT-4.13.1-1"},
	{"a payload that is not the UTF-8 it claims to be", client, "30 07 0001 'a' 02 01 01 ff", 0x99, "MQTT-4.13.1-1"},
	{"a response topic with a wildcard", client, "30 08 0001 'a' 04 08 0001 '#'", 0x81, "MQTT-3.3.2-14"},
	{"a response topic that is not UTF-8 [MQTT-3.3.2-13]", client, "30 08 0001 'a' 04 08 0001 ff", 0x81, "MQTT-1.5.4-1"},
	{"an empty response topic", client, "30 07 0001 'a' 03 08 0000", 0x81, "MQTT-4.7.3-1"},
	{"a content type that is not UTF-8 [MQTT-3.3.2-19]", client, "30 08 0001 'a' 04 03 0001 ff", 0x81, "MQTT-1.5.4-1"},
	{"a correlation data twice", client, "30 0a 0001 'a' 06 09 0000 09 0000", 0x82, "MQTT-4.13.1-1"},

	{"a PUBACK with the packet identifier 0", client, "40 02 0000", 0x82, "MQTT-2.2.1-5"},
	{"a PUBACK with a reason of others", client, "40 03 0001 92", 0x82, "MQTT-3.4.2-1"},
	{"a PUBREC with a reserved reason", client, "50 03 0001 ff", 0x82, "MQTT-3.5.2-1"},
	{"a PUBREL with a reason of others", client, "62 03 0001 80", 0x82, "MQTT-3.6.2-1"},
	{"a PUBCOMP with a reason of others", client, "70 03 0001 10", 0x82, "MQTT-3.7.2-1"},
	{"a PUBACK with bytes left over", client, "40 05 0001 00 00 00", 0x81, "MQTT-4.13.1-1"},
	{"a PUBACK with a property of others", client, "40 06 0001 00 02 01 00", 0x81, "MQTT-4.13.1-1"},
	{"a reason string twice", client, "40 0a 0001 00 06 1f 0000 1f 0000", 0x82, "MQTT-4.13.1-1"},

	{"a SUBSCRIBE without a filter", client, "82 03 0001 00", 0x82, "MQTT-3.8.3-2"},
	{"a SUBSCRIBE with the packet identifier 0", client, "82 07 0000 00 0001 'a' 00", 0x82, "MQTT-2.2.1-3"},
	{"a SUBSCRIBE with two identifiers", client, "82 0b 0001 04 0b 01 0b 02 0001 'a' 00", 0x82, "MQTT-4.13.1-1"},
	{"a SUBSCRIBE with the identifier 0", client, "82 09 0001 02 0b 00 0001 'a' 00", 0x82, "MQTT-4.13.1-1"},
	{"a SUBSCRIBE with a reason string", client, "82 0a 0001 03 1f 0000 0001 'a' 00", 0x81, "MQTT-4.13.1-1"},
	{"a maximum QoS of 3", client, "82 07 0001 00 0001 'a' 03", 0x82, "MQTT-4.13.1-1"},
	{"a retain handling of 3", client, "82 07 0001 00 0001 'a' 30", 0x82, "MQTT-4.13.1-1"},
	{"bit 6 of the options is reserved", client, "82 07 0001 00 0001 'a' 40", 0x81, "MQTT-3.8.3-5"},
	{"bit 7 of the options is reserved", client, "82 07 0001 00 0001 'a' 83", 0x81, "MQTT-3.8.3-5"},
	{"no local for a shared subscription", client, "82 10 0001 00 000a '$share/g/a' 04", 0x82, "MQTT-3.8.3-4"},
	{"an empty filter", client, "82 06 0001 00 0000 00", 0x81, "MQTT-4.7.3-1"},
	{"# is the last character of a filter", client, "82 09 0001 00 0003 '#/a' 00", 0x81, "MQTT-4.7.1-1"},
	{"+ stands alone in its level", client, "82 08 0001 00 0002 'a+' 00", 0x81, "MQTT-4.7.1-2"},
	{"a filter that is not UTF-8 [MQTT-3.8.3-1]", client, "82 07 0001 00 0001 fe 00", 0x81, "MQTT-1.5.4-1"},

	{"a SUBACK with the packet identifier 0", server, "90 04 0000 00 00", 0x82, "MQTT-2.2.1-6"},
	{"a SUBACK with a reserved reason", server, "90 04 0001 00 03", 0x82, "MQTT-3.9.3-2"},
	{"a SUBACK without a reason", server, "90 03 0001 00", 0x82, "MQTT-3.9.3-1"},
	{"an UNSUBSCRIBE without a filter", client, "a2 03 0001 00", 0x82, "MQTT-3.10.3-2"},
	{"an UNSUBSCRIBE that is not UTF-8 [MQTT-3.10.3-1]", client, "a2 06 0001 00 0001 fe", 0x81, "MQTT-1.5.4-1"},
	{"an UNSUBACK of 3.1.1", server, "b0 02 0001", 0x81, "MQTT-4.13.1-1"},
	{"an UNSUBACK without a reason", server, "b0 03 0001 00", 0x82, "MQTT-3.11.3-1"},
	{"an UNSUBACK with a reason of others", server, "b0 04 0001 00 01", 0x82, "MQTT-3.11.3-2"},
	{"a PINGREQ with a body", client, "c0 01 00", 0x81, "MQTT-4.13.1-1"},

	{"a DISCONNECT of a client with a reason of servers", client, "e0 01 8b", 0x82, "MQTT-3.14.2-1"},
	{"a DISCONNECT of a server that asks for the will", server, "e0 01 04", 0x82, "MQTT-3.14.2-1"},
	{"a DISCONNECT with a reserved reason", client, "e0 01 01", 0x82, "MQTT-3.14.2-1"},
	{"a DISCONNECT of a server with a session expiry", server, "e0 07 00 05 11 00000001", 0x82, "MQTT-3.14.2-2"},
	{"a DISCONNECT of a client that names a server", client, "e0 05 00 03 1c 0000", 0x81, "MQTT-4.13.1-1"},
	{"a DISCONNECT with bytes left over", client, "e0 03 00 00 00", 0x81, "MQTT-4.13.1-1"},

	{"an AUTH of a client without a body", client, "f0 00", 0x82, "MQTT-3.15.2-1"},
	{"an AUTH of a client that says success", client, "f0 06 00 04 15 0001 'm'", 0x82, "MQTT-3.15.2-1"},
	{"an AUTH of a server that begins again", server, "f0 06 19 04 15 0001 'm'", 0x82, "MQTT-3.15.2-1"},
	{"an AUTH without a method", client, "f0 02 18 00", 0x82, "MQTT-4.13.1-1"},
	{"an AUTH without a property length", client, "f0 01 18", 0x81, "MQTT-4.13.1-1"},
}

func TestUnlawfulPackets5(t *testing.T) {
	for _, c := range unlawful5 {
		t.Run(c.name, func(t *testing.T) {
			_, err := decodeAs(c.from, unhex(t, c.hex))
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.ID != c.id || e.Reason != c.reason || e.Code != Accepted {
				t.Errorf("got %q with reason 0x%02x and code %d, want 0x%02x and %s", e, byte(e.Reason), e.Code, byte(c.reason), c.id)
			}
			if e.Text == "" || !strings.HasSuffix(err.Error(), "["+c.id+"]") {
				t.Errorf("%q does not tell text and statement", err)
			}
		})
	}
}

// A server answers in the version that the client spoke, even if it spoke badly.
func TestConnectKeepsItsVersionAfterAnError(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		want Version
		code ConnackCode
	}{
		"a broken CONNECT of MQTT 5": {"10 0e 0004 'MQTT' 05 03 0000 00 0001 'c'", V5, Accepted},
		"a version to come":          {"10 0e 0004 'MQTT' 06 02 0000 00 0001 'c'", 6, RefusedVersion},
	} {
		got, err := decode(unhex(t, c.hex))
		e, ok := errors.AsType[*Error](err)
		if !ok || got.(*Connect).Version != c.want || e.Code != c.code || !e.Reason.Failed() {
			t.Errorf("%s: version %s, error %#v", name, got.(*Connect).Version, err)
		}
	}
}

func TestTooLargePackets5(t *testing.T) {
	raw := unhex(t, "30 04 0001 'a' 00")
	_, _, need, asServer := V5.Split(raw[:2], 5)
	if need != len(raw) {
		t.Errorf("%d bytes are needed", need)
	}
	r := NewReader(bytes.NewReader(raw), 5)
	r.Version = V5
	_, asClient := r.Next()
	for err, id := range map[error]string{asServer: "MQTT-3.2.2-15", asClient: "MQTT-3.1.2-24"} {
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != ReasonPacketTooLarge || e.ID != id || !errors.Is(err, mqtt.ErrTooLarge) {
			t.Errorf("got %v, want %s", err, id)
		}
	}
}

func TestReaderVersion(t *testing.T) {
	r := NewReader(bytes.NewReader(unhex(t, "20 03 00 00 00 f0 00")), noLimit)
	r.Version = V5
	f, err := r.Next()
	if err != nil || f.Version != V5 || !f.FromServer {
		t.Fatalf("got %+v, %v", f, err)
	}
	r.Version = V311
	if _, err := r.Next(); err == nil {
		t.Error("an AUTH of 3.1.1 was let pass")
	}
}
