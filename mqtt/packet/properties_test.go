package packet

import (
	"bytes"
	"maps"
	"slices"
	"testing"
)

func TestPropertiesAreFound(t *testing.T) {
	p := props("11 00000e10 21 0014 0b 8001 17 00 15 0001 'm' 16 0002 ff00 26 0001 'k' 0001 'v' 0b 01")
	for id, want := range map[Property]uint32{PropSessionExpiry: 3600, PropReceiveMaximum: 20, PropSubscriptionID: 128, PropRequestProblemInfo: 0} {
		if n, ok := p.Uint(id); !ok || n != want || p.UintOr(id, 77) != want {
			t.Errorf("%s is %d, %v; want %d", id, n, ok, want)
		}
	}
	if n, ok := p.Uint(PropTopicAliasMaximum); n != 0 || ok || p.UintOr(PropTopicAliasMaximum, 77) != 77 {
		t.Errorf("a property that is not there is %d, %v", n, ok)
	}
	if b, ok := p.Bytes(PropAuthData); !ok || !bytes.Equal(b, []byte{0xff, 0}) {
		t.Errorf("authentication data %x, %v", b, ok)
	}
	if _, ok := p.Bytes(PropReasonString); ok || p.Text(PropReasonString) != "" || p.Text(PropAuthMethod) != "m" {
		t.Error("wrong texts")
	}
	if got := slices.Collect(p.SubscriptionIDs()); !slices.Equal(got, []uint32{128, 1}) {
		t.Errorf("subscription identifiers %v", got)
	}
}

func TestPropertiesEndEarly(t *testing.T) {
	p := props("0b 01 0b 02 26 0001 'a' 0001 '1' 26 0001 'a' 0001 '2'")
	for id := range p.SubscriptionIDs() {
		if id != 1 {
			t.Errorf("went on to %d", id)
		}
		break
	}
	for name, value := range p.User() {
		if name != "a" || value != "1" {
			t.Errorf("went on to %s %s", name, value)
		}
		break
	}
	if got := maps.Collect(p.User()); len(got) != 1 || got["a"] != "2" {
		t.Errorf("got %v", got)
	}
}

func TestPropertiesAreBuilt(t *testing.T) {
	p := Properties(nil).
		AppendUint(PropSessionExpiry, 3600).
		AppendUint(PropReceiveMaximum, 20).
		AppendUint(PropMaximumQoS, 1).
		AppendUint(PropSubscriptionID, 1<<28-1).
		AppendText(PropAuthMethod, "m").
		AppendUser("k", "v").
		AppendUser("", "ü")
	if want := props("11 00000e10 21 0014 24 01 0b ffffff7f 15 0001 'm' 26 0001 'k' 0001 'v' 26 0000 0002 'ü'"); !bytes.Equal(p, want) {
		t.Errorf("got %x, want %x", p, want)
	}
}

// What belongs to a message goes on in its order [MQTT-3.3.2-18], whatever stood
// between.
func TestAppendForwarded(t *testing.T) {
	for name, c := range map[string]struct{ from, want string }{
		"nothing":            {"", ""},
		"only an alias":      {"23 0001", ""},
		"an alias in front":  {"23 0001 02 00000001", "02 00000001"},
		"an alias behind":    {"02 00000001 23 0001", "02 00000001"},
		"one in the middle":  {"26 0001 'b' 0001 '2' 23 0001 26 0001 'a' 0001 '1'", "26 0001 'b' 0001 '2' 26 0001 'a' 0001 '1'"},
		"identifiers":        {"0b 01 01 01 0b 8001 03 0001 't'", "01 01 03 0001 't'"},
		"a will without":     {"18 00000005 08 0001 'r' 09 0001 ff", "08 0001 'r' 09 0001 ff"},
		"everything of both": {"01 00 02 00000000 03 0000 08 0001 'r' 09 0000 26 0000 0000", "01 00 02 00000000 03 0000 08 0001 'r' 09 0000 26 0000 0000"},
	} {
		if got, want := props(c.from).AppendForwarded(props("01 01")), props("01 01"+c.want); !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", name, got, want)
		}
	}
}

func TestPropertiesOfUnknownOriginPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("bytes that are no properties were walked")
		}
	}()
	Properties{0x7f}.Uint(PropSessionExpiry)
}
