package conformance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing/synctest"
	"time"
)

// client is one of a script's clients. It knows bytes, not packets.
type client struct {
	st   *stage
	name string
	conn net.Conn    // nil: it has no connection
	got  chan []byte // the packets that came, closed when the broker closes

	ids   []string        // of the PUBLISH packets that came, last to first
	inUse map[string]bool // those that are not acknowledged
}

// patience is how long a client waits for what must come, in virtual time.
const patience = time.Second

// letters returns what a letter stands for in the client's bytes.
func (c *client) letters() letters {
	l := c.st.version.letters()
	for i, letter := range []string{"I", "J"} {
		if i < len(c.ids) {
			l[letter] = c.ids[i]
		}
	}
	return l
}

// do does one step.
func (c *client) do(s step) {
	switch s.verb {
	case ">":
		c.send(s, s.rest)
	case "<":
		c.want(s, s.rest)
	case "on":
		c.connect(s, "02", "", "00")
	case "keep":
		c.connect(s, "00", "1100000e10", "00")
	case "back":
		c.connect(s, "00", "1100000e10", "01")
	case "quiet":
		time.Sleep(settled)
		synctest.Wait()
		c.send(s, "c000")
		c.want(s, "d000")
	case "off":
		c.send(s, "e000")
		c.end(s)
	case "end":
		c.end(s)
	case "drop":
		c.close()
		synctest.Wait()
	default:
		c.st.t.Errorf("%s: %q is no verb", s.at, s.verb)
	}
}

// connect sends a CONNECT and wants it accepted.
func (c *client) connect(s step, flags, property, present string) {
	props, rest := "", ""
	switch c.st.version {
	case v5:
		props, rest = "{"+property+s.rest+"}", "**"
	case v31:
		present = "00" // MQTT 3.1 has no such flag
	}
	c.send(s, fmt.Sprintf("10 {N V %s 0000 %s \"%s\"}", flags, props, c.name))
	c.want(s, "20 {"+present+"00"+rest+"}")
}

// send sends bytes. What happens if the broker does not take them is for the next
// step to say.
func (c *client) send(s step, text string) {
	p, err := parse(text, c.letters())
	c.st.must(s, err)
	raw, err := p.bytes()
	c.st.must(s, err)
	if c.conn == nil {
		c.open()
	}
	c.release(raw)
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	_, _ = c.conn.Write(raw)
	synctest.Wait()
}

func (c *client) open() {
	c.conn, c.got = c.st.dial(), make(chan []byte, 1000)
	go func(conn net.Conn, got chan<- []byte) {
		defer close(got)
		r := bufio.NewReader(conn)
		for {
			raw, err := readPacket(r)
			if err != nil {
				return
			}
			got <- raw
		}
	}(c.conn, c.got)
}

// readPacket reads a packet by the fixed header alone.
func readPacket(r *bufio.Reader) ([]byte, error) {
	raw := make([]byte, 1, 64)
	var err error
	if raw[0], err = r.ReadByte(); err != nil {
		return nil, err
	}
	n := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		raw = append(raw, b)
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	body := make([]byte, n)
	_, err = io.ReadFull(r, body)
	return append(raw, body...), err
}

// next waits for the next packet, or the end: ok is false.
func (c *client) next(s step) (raw []byte, ok bool) {
	if c.conn == nil {
		c.open()
	}
	select {
	case raw, ok = <-c.got:
	case <-time.After(patience):
		c.st.t.Errorf("%s: %s has waited for %s in vain", s.at, c.name, patience)
	}
	return raw, ok
}

func (c *client) want(s step, text string) {
	p, err := parse(text, c.letters())
	c.st.must(s, err)
	if raw, ok := c.next(s); !ok {
		c.st.t.Errorf("%s: %s got no packet, want %s", s.at, c.name, text)
	} else if !p.matches(raw) {
		c.st.t.Errorf("%s: %s got % x (%q), want %s", s.at, c.name, raw, raw, text)
	} else if raw[0]&0xf6 >= 0x32 && raw[0]&0xf6 <= 0x34 {
		c.remember(s, raw)
	}
}

// remember notes the packet identifier of a PUBLISH, which must not be that of
// another one that is under way.
func (c *client) remember(s step, raw []byte) {
	topic := 2 // where it begins
	for raw[topic-1] >= 0x80 {
		topic++
	}
	id := topic + 2 + int(raw[topic])<<8 + int(raw[topic+1])
	name := fmt.Sprintf("%x", raw[id:id+2])
	again := raw[0]&0x08 != 0
	if name == "0000" || c.inUse[name] && !again {
		c.st.t.Errorf("%s: the PUBLISH has the identifier %s, which is 0 or in use", s.at, name)
	}
	if c.inUse == nil {
		c.inUse = make(map[string]bool)
	}
	c.inUse[name] = true
	c.ids = append([]string{name}, c.ids...)
}

// release notes that an identifier is free again.
func (c *client) release(raw []byte) {
	refused := len(raw) > 4 && raw[0] == 0x50 && raw[4] >= 0x80
	if len(raw) >= 4 && (raw[0] == 0x40 || raw[0] == 0x70 || refused) {
		delete(c.inUse, fmt.Sprintf("%x", raw[2:4]))
	}
}

func (c *client) end(s step) {
	if raw, ok := c.next(s); ok {
		c.st.t.Errorf("%s: %s got % x (%q), want the end of the connection", s.at, c.name, raw, raw)
	}
	c.close()
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
