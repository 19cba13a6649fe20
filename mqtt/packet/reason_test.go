package packet

import (
	"bytes"
	"strings"
	"testing"
)

// The reason codes that each packet may have, by table 2-6 of MQTT 5.0 and, for
// DISCONNECT, table 3-10. The byte of the reason stands behind before.
var reasonsOf = []struct {
	name   string
	from   link
	before string // the packet up to its reason
	after  string
	lawful string
}{
	{"CONNACK", server, "20 03 00", "00", "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f"},
	{"PUBACK", client, "40 03 0001", "", "00 10 80 83 87 90 91 97 99"},
	{"PUBREC", client, "50 03 0001", "", "00 10 80 83 87 90 91 97 99"},
	{"PUBREL", client, "62 03 0001", "", "00 92"},
	{"PUBCOMP", client, "70 03 0001", "", "00 92"},
	{"SUBACK", server, "90 04 0001 00", "", "00 01 02 80 83 87 8f 91 97 9e a1 a2"},
	{"UNSUBACK", server, "b0 04 0001 00", "", "00 11 80 83 87 8f 91"},
	{"DISCONNECT of a client", client, "e0 01", "", "00 04 80 81 82 83 90 93 94 95 96 97 98 99"},
	{
		"DISCONNECT of a server", server, "e0 01", "",
		"00 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2",
	},
	{"AUTH of a client", client, "f0 06", "04 15 0001 'm'", "18 19"},
	{"AUTH of a server", server, "f0 06", "04 15 0001 'm'", "00 18"},
}

func TestReasonsOfEachPacket(t *testing.T) {
	for _, c := range reasonsOf {
		t.Run(c.name, func(t *testing.T) {
			before, after, lawful := unhex(t, c.before), unhex(t, c.after), unhex(t, c.lawful)
			for code := range 256 {
				raw := append(append(bytes.Clone(before), byte(code)), after...)
				_, err := decodeAs(c.from, raw)
				if want := bytes.IndexByte(lawful, byte(code)) >= 0; (err == nil) != want {
					t.Errorf("0x%02x: %v, want lawful %v", code, err, want)
				}
			}
		})
	}
}

// Every reason that some packet may have has words, and no other.
func TestReasonWords(t *testing.T) {
	named := make(map[byte]bool)
	for _, c := range reasonsOf {
		for _, code := range unhex(t, c.lawful) {
			named[code] = true
		}
	}
	words := make(map[string]Reason)
	for code := range 256 {
		r := Reason(code)
		if reserved := strings.HasPrefix(r.String(), "reserved reason code 0x"); reserved == named[byte(r)] {
			t.Errorf("0x%02x is called %q", code, r)
		}
		if other, ok := words[r.String()]; ok {
			t.Errorf("0x%02x and 0x%02x are both called %q", code, byte(other), r)
		}
		words[r.String()] = r
		if r.Failed() != (code >= 0x80) {
			t.Errorf("0x%02x: failed %v", code, r.Failed())
		}
	}
}

func TestPropertyNames(t *testing.T) {
	for got, want := range map[string]string{
		PropSessionExpiry.String():   "session expiry interval",
		PropSharedAvailable.String(): "shared subscription available",
		Property(0).String():         "unknown property 0x00",
		Property(0x04).String():      "unknown property 0x04",
		Property(0xff).String():      "unknown property 0xff",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
