package bridge

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func newGuard(r io.Reader, limit int) *guard {
	return &guard{src: bufio.NewReader(r), limit: limit, released: func(uint16) {}}
}

func publishPacket(qos byte, id uint16, topic string, payload []byte) []byte {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, topic, payload
	var b bytes.Buffer
	_ = p.Write(&b)
	return b.Bytes()
}

func TestGuardPassesOnWhatIsSmall(t *testing.T) {
	var sent bytes.Buffer
	_ = packets.NewControlPacket(packets.Connack).Write(&sent)
	_ = packets.NewControlPacket(packets.Pingresp).Write(&sent)
	sent.Write(publishPacket(1, 7, "a", bytes.Repeat([]byte("x"), 990)))
	sent.Write(publishPacket(0, 0, "b", nil))
	want := bytes.Clone(sent.Bytes())
	g := newGuard(iotest.OneByteReader(&sent), 1000)
	if got, err := io.ReadAll(g); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want the %d that were sent", len(got), err, len(want))
	}
}

func TestGuardKeepsBackWhatIsReleased(t *testing.T) {
	pingresp := "\xd0\x00"
	for _, pubrel := range []string{"\x62\x02\x01\x2c", "\x62\x03\x01\x2c\x92", "\x62\x09\x01\x2c\x92\x05\x1f\x00\x02no"} {
		var ids []uint16
		g := newGuard(strings.NewReader(pingresp+pubrel+pingresp), 1000)
		g.released = func(id uint16) { ids = append(ids, id) }
		got, err := io.ReadAll(g)
		if err != nil || string(got) != pingresp+pingresp || !slices.Equal(ids, []uint16{300}) {
			t.Errorf("of %x came %x, released %d, %v", pubrel, got, ids, err)
		}
	}
}

func TestGuardKeepsBackWhatIsAcknowledged(t *testing.T) {
	pingresp := "\xd0\x00"
	for _, puback := range []string{"\x40\x02\x01\x2c", "\x40\x03\x01\x2c\x10", "\x40\x04\x01\x2c\x10\x00"} {
		var ids []uint16
		g := newGuard(strings.NewReader(pingresp+puback+pingresp), 1000)
		g.acked = func(id uint16) { ids = append(ids, id) }
		got, err := io.ReadAll(g)
		if err != nil || string(got) != pingresp+pingresp || !slices.Equal(ids, []uint16{300}) {
			t.Errorf("of %x came %x, acknowledged %d, %v", puback, got, ids, err)
		}
	}
	g := newGuard(strings.NewReader("\x40\x03\x01\x2c"), 1000)
	g.acked = func(id uint16) { t.Errorf("half a PUBACK acknowledges %d", id) }
	if _, err := io.ReadAll(g); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the end within a PUBACK: %v", err)
	}
}

// What says more than yes, or makes no sense, is paho's.
func TestGuardPassesOnWhatIsRefused(t *testing.T) {
	for _, sent := range []string{"\x40\x03\x01\x2c\x87", "\x40\x09\x01\x2c\x10\x05\x1f\x00\x02no", "\x40\x04\x01\x2c\x10\x01", "\x40\x01\x01", "\x50\x02\x01\x2c"} {
		g := newGuard(strings.NewReader(sent), 1000)
		g.acked = func(id uint16) { t.Errorf("%x acknowledges %d", sent, id) }
		if got, err := io.ReadAll(g); err != nil || string(got) != sent {
			t.Errorf("of %x came %x, %v", sent, got, err)
		}
	}
}

func TestGuardTakesNoMemory(t *testing.T) {
	sent, read := bytes.NewReader(nil), make([]byte, 5)
	for name, packet := range map[string]string{"PUBACK, which it takes": "\x40\x02\x01\x2c", "SUBACK, which it passes on": "\x90\x03\x01\x2c\x00"} {
		g, raw := newGuard(sent, 1000), []byte(packet)
		g.acked = func(uint16) {}
		if n := testing.AllocsPerRun(100, func() {
			sent.Reset(raw)
			_, _ = io.ReadFull(g, read)
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestGuardCutsWhatIsLarge(t *testing.T) {
	var sent bytes.Buffer
	sent.Write(publishPacket(2, 9, "large", make([]byte, 100_000)))
	sent.Write(publishPacket(0, 0, "large", make([]byte, 100_000)))
	sent.Write(publishPacket(1, 10, "small", []byte("x")))
	g := newGuard(&sent, 1024)
	got, err := io.ReadAll(g)
	want := append(publishPacket(2, 9, "large", nil), publishPacket(1, 10, "small", []byte("x"))...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if !g.cut.remove(9) || g.cut.remove(9) || g.cut.remove(10) {
		t.Error("it does not know what it has cut")
	}
}

func TestGuardRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		sent string
		want string
	}{
		"a length of five bytes":            {"\x30\xff\xff\xff\xff\x01", errLength.Error()},
		"a SUBACK of 200 MB":                {"\x90\x80\x80\x80\x60", "type 9 with 201326592 bytes"},
		"a topic longer than its packet":    {"\x32\xff\x7f\xff\xff" + strings.Repeat("x", 70000), errLength.Error()},
		"the end within a header":           {"\x30\x80", io.ErrUnexpectedEOF.Error()},
		"the end within a packet it cuts":   {"\x30\xff\x7f\x00\x01a", io.ErrUnexpectedEOF.Error()},
		"the end within a PUBREL":           {"\x62\x02\x01", io.ErrUnexpectedEOF.Error()},
		"the end behind its identifier":     {"\x62\x03\x01\x2c", io.ErrUnexpectedEOF.Error()},
		"the end within the topic of a cut": {"\x30\xff\x7f\x00\x09a", io.ErrUnexpectedEOF.Error()},
	} {
		if _, err := io.ReadAll(newGuard(strings.NewReader(c.sent), 1024)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Whatever a server sends, paho's parser never gets to see a packet larger than
// the limit, nor does the guard give out more than it got.
func FuzzGuard(f *testing.F) {
	f.Add(publishPacket(1, 5, "a/b", make([]byte, 300)))
	f.Add([]byte("\x62\x02\x00\x05\x90\x03\x00\x01\x01"))
	f.Add([]byte("\x30\xff\xff\xff\x7f\x00\x01a"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		const limit = 128
		got, err := io.ReadAll(newGuard(bytes.NewReader(sent), limit))
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errLength) && !strings.Contains(err.Error(), "no such packet has") {
			t.Errorf("failed with %v", err)
		}
		if len(got) > len(sent) {
			t.Errorf("%d bytes became %d", len(sent), len(got))
		}
		for rest := bufio.NewReader(bytes.NewReader(got)); ; {
			first, err := rest.ReadByte()
			if err != nil {
				return
			}
			size, err := (&guard{src: rest}).length()
			if err != nil {
				t.Fatalf("the header of the packet %x: %v", first, err)
			}
			if topic := 2 + 65535 + 2; size > limit && (first>>4 != typePublish || size > topic) {
				t.Fatalf("a packet of %d bytes", size)
			}
			_, _ = rest.Discard(size)
		}
	})
}
