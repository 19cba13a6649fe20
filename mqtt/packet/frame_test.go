package packet

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"tidegate/mqtt"
)

func TestSplitAsksForMore(t *testing.T) {
	cases := []struct {
		name string
		hex  string
		need int
	}{
		{"nothing yet", "", 0},
		{"a first byte", "30", 0},
		{"half a length", "30 80", 0},
		{"three quarters of a length", "30 80 80 80", 0},
		{"a length of one byte", "30 03", 5},
		{"a body but for one byte", "30 03 0001", 5},
		{"a length of two bytes", "30 80 01", 131},
		{"the longest length", "30 ff ff ff 7f", MaxSize},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, n, need, err := Split(unhex(t, c.hex), noLimit)
			if f.First != 0 || n != 0 || need != c.need || err != nil {
				t.Errorf("got %v, %d, need %d, %v; want need %d", f, n, need, err, c.need)
			}
		})
	}
}

func TestSplitTakesOnlyTheFirstPacket(t *testing.T) {
	f, n, need, err := Split(unhex(t, "c0 00 30 03 0001 'a'"), noLimit)
	if f.Type() != TypePingreq || n != 2 || need != 2 || err != nil {
		t.Errorf("got %v, %d, need %d, %v", f, n, need, err)
	}
}

// Whoever appends to a body must not write into the next packet.
func TestSplitBodyHasNoSpareCapacity(t *testing.T) {
	raw := unhex(t, "40 02 0001 c0 00")
	f, _, _, err := Split(raw, noLimit)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(f.Body, 0xff)
	if raw[4] != 0xc0 {
		t.Error("append to the body changed the next packet")
	}
}

func TestSplitRefusesLargePackets(t *testing.T) {
	exact := unhex(t, "30 03 0001 'a'")
	if _, n, _, err := Split(exact, len(exact)); n != len(exact) || err != nil {
		t.Errorf("a packet of the limit: %d, %v", n, err)
	}
	for _, known := range []int{2, len(exact)} {
		_, n, _, err := Split(exact[:known], len(exact)-1)
		if n != 0 || !errors.Is(err, mqtt.ErrTooLarge) {
			t.Errorf("%d bytes of a packet over the limit: %d, %v", known, n, err)
		}
	}
}

func TestHeaderLengths(t *testing.T) {
	for length, want := range map[int]string{
		0: "30 00", 127: "30 7f", 128: "30 80 01", 16383: "30 ff 7f", 16384: "30 80 80 01",
		2097151: "30 ff ff 7f", 2097152: "30 80 80 80 01", maxLength: "30 ff ff ff 7f",
	} {
		got := appendHeader(nil, 0x30, length)
		if !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("length %d is written %x, want %s", length, got, want)
		}
		back, width, err := link{}.remainingLength(got[1:])
		if back != length || width != len(got)-1 || err != nil {
			t.Errorf("length %d is read back as %d in %d bytes, %v", length, back, width, err)
		}
	}
}

func TestReaderFindsPacketsInAnyChunks(t *testing.T) {
	large := (&Publish{Topic: []byte("t"), Payload: bytes.Repeat([]byte("x"), 3*readerBuffer)}).Append(nil)
	var stream []byte
	stream = append(stream, unhex(t, "c0 00 40 02 0001")...)
	stream = append(stream, large...)
	stream = append(stream, unhex(t, "e0 00")...)
	for name, src := range map[string]io.Reader{
		"all at once":    bytes.NewReader(stream),
		"byte by byte":   iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":         iotest.HalfReader(bytes.NewReader(stream)),
		"error with EOF": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(src, noLimit)
			for _, want := range []struct {
				packet Type
				size   int
			}{{TypePingreq, 0}, {TypePuback, 2}, {TypePublish, 3 + 3*readerBuffer}, {TypeDisconnect, 0}} {
				f, err := r.Next()
				if err != nil || f.Type() != want.packet || len(f.Body) != want.size {
					t.Fatalf("got %s of %d bytes, %v; want %s of %d", f.Type(), len(f.Body), err, want.packet, want.size)
				}
			}
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("at the end: %v, want io.EOF itself", err)
			}
		})
	}
}

func TestReaderErrors(t *testing.T) {
	broken := errors.New("cable pulled")
	cases := []struct {
		name string
		src  io.Reader
		want error
	}{
		{"the stream ends inside a packet", strings.NewReader("\x40\x02\x00"), io.ErrUnexpectedEOF},
		{"the stream fails", iotest.ErrReader(broken), broken},
		{"a packet is over the limit", strings.NewReader("\x30\x7f"), mqtt.ErrTooLarge},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := NewReader(c.src, 100).Next(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A peer that claims 256 MB and sends little must not cost 256 MB.
func TestReaderBufferFollowsWhatCame(t *testing.T) {
	claim := append([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 10000)...)
	r := NewReader(bytes.NewReader(claim), noLimit)
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if cap(r.buf) > 4*len(claim) {
		t.Errorf("the buffer grew to %d bytes for %d", cap(r.buf), len(claim))
	}
}

func TestNamesInErrors(t *testing.T) {
	for got, want := range map[string]string{
		TypeConnect.String():       "CONNECT",
		TypeDisconnect.String():    "DISCONNECT",
		TypeAuth.String():          "AUTH",
		Type(0).String():           "packet type 0",
		Type(16).String():          "packet type 16",
		V31.String():               "3.1",
		V311.String():              "3.1.1",
		V5.String():                "5.0",
		Version(6).String():        "protocol level 6",
		Accepted.String():          "accepted",
		RefusedVersion.String():    "protocol version not supported: try another MQTT version",
		ConnackCode(0x84).String(): "reserved return code 132: the server may speak another MQTT version",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
