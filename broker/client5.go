package broker

import (
	"time"

	"tidegate/mqtt/packet"
)

// client5 is what a client of MQTT 5 has said about itself in its CONNECT, and
// which topic aliases are in use with it.
type client5 struct {
	maxPacket int               // the largest packet that it takes; 0: any
	reasons   bool              // it wants reason strings
	known     map[string]uint16 // topics that the client knows by an alias; guarded by session.mu
	maxAlias  int               // of them
	aliases   [][]byte          // topics that the client has given an alias, nil before the first; of the reading goroutine
	mayGive   int               // the highest alias that the client may give
	bytes     int               // of aliases
	memory    *budget
	theirs    charge // for aliases
	ours      charge // for known; guarded by session.mu
}

// aliasSize is what a topic alias takes in a PUBLISH. maxAliasBytes bounds each of
// the topics that are remembered because the broker gave them an alias, and
// maxAliasesBytes all together to which the client gave one.
const (
	aliasSize       = 3
	maxAliasBytes   = 512
	maxAliasesBytes = 64 << 10
)

// worthAlias reports whether an alias makes a PUBLISH smaller, and never larger
// than the client allows.
func worthAlias(topic []byte) bool { return len(topic) > aliasSize && len(topic) <= maxAliasBytes }

func newClient5(p *packet.Connect, b *Broker) *client5 {
	limits := &b.cfg.Limits
	return &client5{
		memory:    &b.memory,
		maxPacket: int(min(p.Properties.UintOr(packet.PropMaximumPacketSize, 0), packet.MaxSize)),
		reasons:   p.Properties.UintOr(packet.PropRequestProblemInfo, 1) == 1,
		maxAlias:  min(int(p.Properties.UintOr(packet.PropTopicAliasMaximum, 0)), limits.MaxTopicAlias),
		mayGive:   limits.MaxTopicAlias,
	}
}

// connack appends what the client has to know of the broker (MQTT 5.0, section
// 3.2.2.3).
func (c *conn) connack(a *arrival, expiry uint32) packet.Properties {
	l := &c.b.cfg.Limits
	var props packet.Properties
	props = props.AppendUint(packet.PropReceiveMaximum, uint32(l.ReceiveMaximum))
	props = props.AppendUint(packet.PropMaximumPacketSize, uint32(l.MaxPacketSize))
	props = props.AppendUint(packet.PropTopicAliasMaximum, uint32(l.MaxTopicAlias))
	if a.assigned {
		props = props.AppendText(packet.PropAssignedClientID, a.ClientID)
	}
	if expiry != a.Properties.UintOr(packet.PropSessionExpiry, 0) {
		props = props.AppendUint(packet.PropSessionExpiry, expiry)
	}
	if most := c.b.keepAlive(&a.Connect); most != a.KeepAlive {
		props = props.AppendUint(packet.PropServerKeepAlive, uint32(most))
	}
	if c.exchange != nil {
		props = append(props, c.exchange.properties(a.proof)...)
	}
	return props
}

// topic returns the topic of a PUBLISH, which may have come as an alias
// [MQTT-3.3.2-9] [MQTT-3.3.2-12].
func (f *client5) topic(p *packet.Publish) ([]byte, error) {
	alias, has := p.Properties.Uint(packet.PropTopicAlias)
	switch {
	case !has:
		return p.Topic, nil
	case int(alias) > f.mayGive:
		return nil, &packet.Error{Reason: packet.ReasonTopicAliasInvalid, Text: "PUBLISH with a topic alias over the maximum", ID: "MQTT-3.3.2-9"}
	case len(p.Topic) > 0:
		return p.Topic, f.remember(alias, p.Topic)
	case f.aliases == nil || len(f.aliases[alias]) == 0:
		return nil, &packet.Error{Reason: packet.ReasonProtocolError, Text: "PUBLISH with a topic alias that stands for nothing", ID: "MQTT-4.13.1-1"}
	}
	return f.aliases[alias], nil
}

// remember notes the topic that the client gives an alias.
func (f *client5) remember(alias uint32, topic []byte) error {
	if f.aliases == nil {
		f.aliases = make([][]byte, f.mayGive+1)
	}
	f.bytes += len(topic) - len(f.aliases[alias])
	if f.bytes > maxAliasesBytes || f.bytes > small && !f.memory.room(forSessions) {
		return &packet.Error{Reason: packet.ReasonQuotaExceeded, ID: "MQTT-4.13.1-1", Text: "the topics with an alias take too much memory"}
	}
	f.theirs.set(f.memory, forConnections, f.bytes)
	f.aliases[alias] = append(f.aliases[alias][:0], topic...)
	return nil
}

// extra is what the message gets on its way to the client. The caller holds
// session.mu.
func (f *client5) extra(it *item, now int64) packet.Extra {
	x := packet.Extra{Waited: it.body.waited(now), SubscriptionIDs: it.ids}
	topic := it.body.topic()
	if alias, known := f.known[string(topic)]; known {
		x.Alias, x.OmitTopic = alias, true
	} else if len(f.known) < f.maxAlias && worthAlias(topic) && f.takes(it.wireSize(aliasSize)) && f.memory.room(forSessions) {
		if f.known == nil {
			f.known = make(map[string]uint16)
		}
		x.Alias = uint16(len(f.known) + 1)
		f.known[string(topic)] = x.Alias
		f.ours.set(f.memory, forConnections, len(f.known)*maxAliasBytes)
	}
	return x
}

// forget gives back the memory of the aliases, once the session has another
// consumer or none.
func (f *client5) forget() {
	f.theirs.set(f.memory, forConnections, 0)
	f.ours.set(f.memory, forConnections, 0)
}

// takes reports whether a packet of so many bytes is not larger than the client
// allows [MQTT-3.1.2-24]. So does nil, which is a client that cannot say so.
func (f *client5) takes(size int) bool { return f == nil || f.maxPacket == 0 || size <= f.maxPacket }

// disconnect5 handles a DISCONNECT of MQTT 5 (section 3.14).
func (c *conn) disconnect5(f packet.Frame) error {
	var p packet.Disconnect5
	if err := p.Decode(f); err != nil {
		return err
	}
	if expiry, ok := p.Properties.Uint(packet.PropSessionExpiry); ok {
		if !c.s.setExpiry(min(expiry, c.b.maxExpiry())) {
			return &packet.Error{
				Reason: packet.ReasonProtocolError, ID: "MQTT-4.13.1-1",
				Text: "DISCONNECT asks to keep a session that was to end with the connection",
			}
		}
	}
	if expiry, ok := p.Properties.Uint(packet.PropSessionExpiry); ok && expiry > 0 {
		c.s.save(c.turn.now+lazy, nil) // a restart must not keep it for longer
	}
	if p.Reason == packet.ReasonSuccess {
		c.will = nil // [MQTT-3.14.4-3]
	}
	return errDisconnected
}

// setExpiry changes how long the session outlives its connection. One that was to
// end with it cannot be kept.
func (s *session) setExpiry(seconds uint32) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry == 0 && seconds > 0 {
		return false
	}
	s.expiry = seconds
	return true
}

// maxExpiry returns the longest that a session may be kept, in seconds.
func (b *Broker) maxExpiry() uint32 {
	return uint32(time.Duration(b.cfg.Limits.SessionExpiry) / time.Second)
}

// willDelayOf returns for how long the will is held back after the connection has
// ended, in nanoseconds (MQTT 5.0, section 3.1.3.2.2).
func willDelayOf(w *packet.Will) int64 {
	if w == nil {
		return 0
	}
	return int64(w.Properties.UintOr(packet.PropWillDelay, 0)) * int64(time.Second)
}
