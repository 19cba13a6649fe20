package bridge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"tidegate/mqtt/packet"
)

// Packet types as they stand in the first byte (MQTT 3.1.1, section 2.2.1).
const (
	typePublish = 3
	typePuback  = 4
	typePubrel  = 6
	typePubcomp = 7
)

var errLength = errors.New("the server sends a packet whose length makes no sense")

// guard passes on the bytes that a server sends, but no packet larger than
// limit: paho allocates whatever a header claims. It cuts a PUBLISH that is
// larger down to its topic and notes its identifier, so that it can be
// acknowledged without a payload, and never comes again. Any other packet is
// never that large, and ends the connection. PUBREL it keeps back: paho would answer it at once. A PUBACK,
// too, that says yes and no more: the receipt is not paho's.
type guard struct {
	src      *bufio.Reader
	limit    int
	five     bool            // MQTT 5: properties follow the identifier
	released func(id uint16) // is told of PUBREL; it may block
	acked    func(id uint16) // is told of PUBACK
	cut      numbers         // of what is cut, until it is handed on
	ready    []byte          // to be read next: a header, or a small packet
	header   [5]byte         // room for it
	left     int             // bytes of the packet behind ready
}

func (g *guard) Read(b []byte) (int, error) {
	for len(g.ready) == 0 && g.left == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	if len(g.ready) > 0 {
		n := copy(b, g.ready)
		g.ready = g.ready[n:]
		return n, nil
	}
	n, err := g.src.Read(b[:min(len(b), g.left)])
	g.left -= n
	return n, err
}

// next reads the fixed header of the next packet (MQTT 3.1.1, section 2.2) and
// decides what becomes of it.
func (g *guard) next() error {
	first, err := g.src.ReadByte()
	if err != nil {
		return err
	}
	size, err := g.length()
	if err != nil {
		return err
	}
	switch kind := first >> 4; {
	case size > g.limit && kind == typePublish:
		return g.shorten(first, size)
	case size > g.limit:
		return fmt.Errorf("the server sends a packet of type %d with %d bytes, which no such packet has", kind, size)
	case kind == typePubrel && size >= 2:
		return g.release(size)
	case kind == typePuback && size >= 2 && size <= 4:
		if took, err := g.acknowledge(size); took || err != nil {
			return err
		}
	}
	g.ready, g.left = binary.AppendUvarint(append(g.header[:0], first), uint64(size)), size
	return nil
}

// acknowledge takes a PUBACK of size bytes (MQTT 3.1.1 and 5.0, section 3.4), unless it says no, or why.
func (g *guard) acknowledge(size int) (took bool, err error) {
	b, err := g.src.Peek(size)
	if err != nil {
		return false, unexpected(err)
	}
	if size > 2 && packet.Reason(b[2]).Failed() || size > 3 && b[3] > 0 {
		return false, nil
	}
	id := binary.BigEndian.Uint16(b)
	_, _ = g.src.Discard(size)
	g.acked(id)
	return true, nil
}

// release takes a PUBREL of size bytes.
func (g *guard) release(size int) error {
	head, err := g.src.Peek(2)
	if err != nil {
		return unexpected(err)
	}
	id := binary.BigEndian.Uint16(head)
	if _, err := g.src.Discard(size); err != nil {
		return unexpected(err)
	}
	g.released(id)
	return nil
}

// length reads the remaining length (section 2.2.3), whose encoding is that of
// [binary.Uvarint] with at most four bytes.
func (g *guard) length() (int, error) {
	size := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := g.src.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		size |= int(b&0x7f) << shift
		if b < 0x80 {
			return size, nil
		}
	}
	return 0, errLength
}

// shorten makes a PUBLISH without payload of one with size bytes.
func (g *guard) shorten(first byte, size int) error {
	head := make([]byte, 2, 256)
	if _, err := io.ReadFull(g.src, head); err != nil {
		return unexpected(err)
	}
	rest := int(binary.BigEndian.Uint16(head))
	if first&0x06 != 0 {
		rest += 2
	}
	if size < 2+rest {
		return errLength
	}
	head = append(head, make([]byte, rest)...)
	if _, err := io.ReadFull(g.src, head[2:]); err != nil {
		return unexpected(err)
	}
	if _, err := io.CopyN(io.Discard, g.src, int64(size-len(head))); err != nil {
		return unexpected(err)
	}
	if first&0x06 == 0 {
		return nil // nobody waits for an acknowledgement
	}
	g.cut.add(binary.BigEndian.Uint16(head[len(head)-2:]))
	if g.five {
		head = append(head, 0)
	}
	g.ready = append(binary.AppendUvarint([]byte{first}, uint64(len(head))), head...)
	return nil
}

// unexpected is err in the middle of a packet.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
