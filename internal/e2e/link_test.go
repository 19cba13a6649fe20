//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"tidegate/mqtt"
	"tidegate/mqtt/packet"
)

// link is a connection of a client whose session outlives it. It is spoken packet
// by packet, because such a client has to remember identifiers over connections.
type link struct {
	net.Conn
	in      *packet.Reader
	present bool // the broker had the session

	writing sync.Mutex // one packet at a time
}

// link connects a client to the gateway as soon as it is up. It fails only when
// ctx is done.
func (g *gateway) link(ctx context.Context, id string) (l *link, err error) {
	err = g.reach(ctx, func(address string) (err error) {
		l, err = newLink(ctx, address, id)
		return err
	})
	return l, err
}

func newLink(ctx context.Context, address, id string) (*link, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	l := &link{Conn: c, in: packet.NewReader(c, packet.MaxSize)}
	hello := packet.Connect{Version: packet.V311, ClientID: id}
	if err := l.send(hello.Append(nil)); err != nil {
		return nil, err
	}
	var k packet.Connack
	f, err := l.in.Next()
	if err == nil {
		err = k.Decode(f)
	}
	if err == nil && k.Code != packet.Accepted {
		err = fmt.Errorf("refused with code %d", k.Code)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	l.present = k.SessionPresent
	return l, nil
}

// send writes a packet; if that fails, the connection has ended.
func (l *link) send(p []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	_, err := l.Write(p)
	if err != nil {
		_ = l.Close()
	}
	return err
}

func (l *link) answer(t packet.Type, id uint16) {
	_ = l.send((&packet.Ack{Type: t, ID: id}).Append(nil))
}

func (l *link) subscribe(filter string, q mqtt.QoS) {
	s := packet.Subscribe{ID: 65535, Subscriptions: []mqtt.Subscription{{Filter: filter, QoS: q}}}
	_ = l.send(s.Append(nil))
}

// kill ends the connection without a word, goodbye in an orderly way.
func (l *link) kill() { _ = l.Close() }

func (l *link) goodbye() {
	_ = l.send(packet.Disconnect{}.Append(nil))
	_ = l.Close()
}

// text is the payload of a numbered message at QoS q: anybody can tell whether it
// arrived as it was sent. Sizes vary.
func text(m message, q mqtt.QoS) string {
	size := m.n * 7919 % 1500
	if m.n%97 == 0 {
		size = 9000
	}
	return fmt.Sprintf("%d %d ", m.n, q) + strings.Repeat(string(rune('a'+m.n%26)), size)
}
